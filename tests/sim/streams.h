// Streams: a queue each, worked off in order by a thread of its own.
#pragma once

#include <condition_variable>
#include <deque>
#include <memory>
#include <mutex>
#include <thread>
#include <unordered_map>
#include <vector>

#include "captures.h"
#include "contexts.h"
#include "tasks.h"

namespace dlferry::sim {

using Lock = std::unique_lock<std::mutex>;
struct World;

struct Stream : std::enable_shared_from_this<Stream> {
  std::uint64_t handle = 0;
  Context* context = nullptr;
  bool blocking = false;  // synchronises with the null stream
  bool foreign = false;   // made by the control interface, or a default stream: in no counter
  CapturePtr capture;

  std::deque<Task> queue;
  bool running = false;       // a task is being done, by the thread or by a caller
  MarkPtr waiting_for;        // by the task that is being done
  std::int64_t ready_at = 0;  // when the last task was over
  std::condition_variable wake;

  std::thread thread;
  bool has_thread = false;
  bool stop = false;   // the thread ends when the queue is empty
  bool ended = false;  // the thread has left its loop

  [[nodiscard]] bool is_idle() const noexcept { return !running && queue.empty(); }
};
using StreamPtr = std::shared_ptr<Stream>;

class Streams {
 public:
  StreamPtr create(Context& context, bool blocking, bool foreign);
  // The handle is gone at once, the stream when its work is done.
  void destroy(const StreamPtr& stream);
  // By handle; 0, 1 and 2 are `current`'s default streams. Null for what is no stream.
  StreamPtr find(std::uint64_t handle, Context* current);
  // The null stream of a context; null where nobody has used it.
  [[nodiscard]] StreamPtr legacy_of(const Context& context) const;
  // Live ones, default streams included.
  [[nodiscard]] const std::unordered_map<std::uint64_t, StreamPtr>& all() const noexcept {
    return live_;
  }
  // Destroyed ones whose work or thread may still be there.
  std::vector<StreamPtr>& destroyed() noexcept { return destroyed_; }

 private:
  StreamPtr default_stream(std::uint64_t& handle, Context& context);

  std::unordered_map<std::uint64_t, StreamPtr> live_;
  std::array<std::uint64_t, kMostDevices> legacy_{};
  std::vector<StreamPtr> destroyed_;
};

// Appends a task, in the order that the null stream asks for, and sees to it that it is done: here
// and now, where it can be without waiting and `inline_allowed`, or else by the stream's thread.
void submit(World& world, Lock& lock, Stream& stream, Task task);

// Waits until all work in the stream, as of now, is done or lost.
void drain(World& world, Lock& lock, Stream& stream);

// Ends a thread whose stream is idle, and waits for that.
void join(Lock& lock, Stream& stream);

// Sleeps until `deadline`, or until the stream's context is lost.
void sleep_until(Lock& lock, Stream& stream, std::int64_t deadline);

}  // namespace dlferry::sim
