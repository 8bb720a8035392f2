#include "streams.h"

#include <pthread.h>
#include <signal.h>
#include <sys/prctl.h>

#include <chrono>
#include <utility>

#include "engines.h"
#include "world.h"

namespace dlferry::sim {
namespace {

template <class... Functions>
struct Overloaded : Functions... {
  using Functions::operator()...;
};

// A wait for a mark by a task; a lost context ends it.
void wait_for(Lock& lock, Stream& stream, const MarkPtr& mark) {
  stream.waiting_for = mark;
  while (!mark->is_reached && stream.context->sticky == cu::kSuccess) mark->reached.wait(lock);
  stream.waiting_for = nullptr;
}

void perform(World& world, Lock& lock, Stream& stream, const Task& task) {
  std::visit(Overloaded{
                 [&](const CopyTask& copy) { transfer(world, lock, stream, copy); },
                 [&](const RecordTask& record) { record.mark->reach(); },
                 [&](const WaitTask& wait) {
                   wait_for(lock, stream, wait.mark);
                   stream.ready_at = now();
                 },
                 [&](const KernelTask& kernel) {
                   sleep_until(lock, stream, now() + kernel.duration);
                   stream.ready_at = now();
                 },
                 [&](const FillTask& task_) { fill(world, lock, stream, task_); },
             },
             task);
}

void serve(StreamPtr stream) {
  prctl(PR_SET_TIMERSLACK, 1000UL);  // ns; sleeps are to end when they should
  pthread_setname_np(pthread_self(), "dlferry-sim");
  World& w = world();
  Lock lock(w.mutex);
  for (;;) {
    stream->wake.wait(lock,
                      [&] { return !stream->running && (!stream->queue.empty() || stream->stop); });
    if (stream->queue.empty()) break;
    const Task task = std::move(stream->queue.front());
    stream->queue.pop_front();
    stream->running = true;
    perform(w, lock, *stream, task);
    stream->running = false;
  }
  stream->ended = true;
}

void start_thread(Stream& stream) {
  // Signals belong to the program's threads.
  sigset_t all, before;
  sigfillset(&all);
  pthread_sigmask(SIG_SETMASK, &all, &before);
  stream.thread = std::thread(serve, stream.shared_from_this());
  stream.has_thread = true;
  pthread_sigmask(SIG_SETMASK, &before, nullptr);
}

void push(Stream& stream, Task task) {
  stream.queue.push_back(std::move(task));
  if (!stream.has_thread) start_thread(stream);
  stream.wake.notify_one();
}

bool is_immediate(World& world, const Stream& stream, const Task& task) {
  if (!stream.is_idle()) return false;
  if (const auto* const copy = std::get_if<CopyTask>(&task)) {
    return is_immediate(world, stream, *copy);
  }
  if (const auto* const wait = std::get_if<WaitTask>(&task)) return wait->mark->is_reached;
  return std::holds_alternative<RecordTask>(task);
}

// The null stream's work waits for the blocking streams', and theirs for its.
void order_with_null_stream(World& world, Stream& stream) {
  if (!stream.blocking) return;
  const StreamPtr legacy = world.streams.legacy_of(*stream.context);
  if (!legacy) return;
  const auto wait_for_all = [&](Stream& other) {
    if (&other == &stream || other.is_idle()) return;
    auto mark = std::make_shared<Mark>();
    push(other, RecordTask{mark});
    push(stream, WaitTask{mark});
  };
  if (legacy.get() != &stream) return wait_for_all(*legacy);
  for (const auto& [handle, other] : world.streams.all()) {
    if (other->blocking && other->context == stream.context) wait_for_all(*other);
  }
}

}  // namespace

void submit(World& world, Lock& lock, Stream& stream, Task task) {
  if (stream.context->sticky != cu::kSuccess) {  // nothing is done any more
    ++world.counts.dropped_tasks;
    if (const auto* const record = std::get_if<RecordTask>(&task)) record->mark->reach();
    return;
  }
  order_with_null_stream(world, stream);
  if (const auto* const copy = std::get_if<CopyTask>(&task)) hold(*copy);
  if (!is_immediate(world, stream, task)) return push(stream, std::move(task));
  if (std::holds_alternative<CopyTask>(task)) ++world.counts.inline_copies;
  stream.running = true;
  perform(world, lock, stream, task);
  stream.running = false;
  if (stream.has_thread) stream.wake.notify_one();  // others may have queued meanwhile
}

void drain(World& world, Lock& lock, Stream& stream) {
  const auto mark = std::make_shared<Mark>();
  submit(world, lock, stream, RecordTask{mark});
  while (!mark->is_reached) mark->reached.wait(lock);
}

void join(Lock& lock, Stream& stream) {
  if (!stream.has_thread) return;
  stream.stop = true;
  stream.wake.notify_one();
  lock.unlock();
  stream.thread.join();
  lock.lock();
  stream.has_thread = stream.stop = stream.ended = false;
}

void sleep_until(Lock& lock, Stream& stream, std::int64_t deadline) {
  const std::chrono::steady_clock::time_point end{std::chrono::nanoseconds(deadline)};
  stream.wake.wait_until(lock, end, [&] { return stream.context->sticky != cu::kSuccess; });
}

StreamPtr Streams::create(Context& context, bool blocking, bool foreign) {
  // Threads of destroyed streams that are over. They hold no lock any more: they need none to end.
  std::erase_if(destroyed_, [](const StreamPtr& stream) {
    if (stream->has_thread && !stream->ended) return false;
    if (stream->has_thread) stream->thread.join();
    return true;
  });
  auto stream = std::make_shared<Stream>();
  stream->handle = world().new_handle();
  stream->context = &context;
  stream->blocking = blocking;
  stream->foreign = foreign;
  live_.emplace(stream->handle, stream);
  return stream;
}

void Streams::destroy(const StreamPtr& stream) {
  if (const CapturePtr capture = std::exchange(stream->capture, nullptr)) {
    capture->valid = false;
    std::erase(capture->streams, stream.get());
  }
  live_.erase(stream->handle);
  for (std::uint64_t& legacy : legacy_) {
    if (legacy == stream->handle) legacy = 0;
  }
  destroyed_.push_back(stream);
  stream->stop = true;
  stream->wake.notify_one();
}

StreamPtr Streams::find(std::uint64_t handle, Context* current) {
  if (handle <= 2) {
    if (!current) return nullptr;
    const auto device = static_cast<std::size_t>(current->device);
    return default_stream(handle == 2 ? this_thread().per_thread_streams[device] : legacy_[device],
                          *current);
  }
  const auto found = live_.find(handle);
  return found == live_.end() ? nullptr : found->second;
}

StreamPtr Streams::default_stream(std::uint64_t& handle, Context& context) {
  const auto found = live_.find(handle);
  if (found != live_.end()) return found->second;
  StreamPtr made = create(context, true, true);
  handle = made->handle;
  return made;
}

StreamPtr Streams::legacy_of(const Context& context) const {
  const auto found = live_.find(legacy_[static_cast<std::size_t>(context.device)]);
  return found == live_.end() ? nullptr : found->second;
}

}  // namespace dlferry::sim
