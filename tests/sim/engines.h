// Copy engines: one for each direction of a device, which serves the streams in the order in which
// they come to it.
#pragma once

#include <condition_variable>
#include <cstdint>

#include "streams.h"

namespace dlferry::sim {

class Engine {
 public:
  // Waits for its turn, and until the engine moves. Called with the lock, as all of this.
  void enter(Lock& lock, const Stream& stream);
  void leave();
  // While it is stalled, copies come to it and stay.
  void stall(bool stalled);
  // For those that wait: the context of one may be lost.
  void look_again() { turn_.notify_all(); }

  [[nodiscard]] bool is_free() const noexcept { return tickets_ == serving_ && !is_stalled_; }
  // Copies that have come to it and are not done.
  [[nodiscard]] std::int64_t load() const noexcept {
    return static_cast<std::int64_t>(tickets_ - serving_);
  }

  // When the link is free again: with a rate, copies follow each other without a gap, however late
  // the threads are that wait for them.
  std::int64_t free_at = 0;

 private:
  std::uint64_t tickets_ = 0;
  std::uint64_t serving_ = 0;
  bool is_stalled_ = false;
  std::condition_variable turn_;
};

// Does a copy as its stream's next task: late, at the settings' rate, and counted. An operand that
// was freed meanwhile, or is not to be written, loses the context.
void transfer(World& world, Lock& lock, Stream& stream, const CopyTask& task);
void fill(World& world, Lock& lock, Stream& stream, const FillTask& task);

// Whether a copy onto an idle stream would neither sleep nor wait.
[[nodiscard]] bool is_immediate(World& world, const Stream& stream, const CopyTask& task);

// What queued copies hold: counted in when they are queued, out when they are done or dropped.
void hold(const CopyTask& task);
void let_go(const CopyTask& task);

}  // namespace dlferry::sim
