// Released: the GIL given away, so that the thread may wait for others; and the end of all waiting.
#pragma once

#include <chrono>

#include "python/object.h"

namespace dlferry::python {

// A thread inside the core that may wait, or run Python code under C++ frames. An interpreter that
// shuts down ends threads when they take the GIL, and thereby a process whose thread is in C++: so
// the end of the process waits for visitors to leave.
class Visit {
 public:
  enum class For { kStarting, kWaiting };
  explicit Visit(For what) noexcept;
  Visit(const Visit&) = delete;
  ~Visit();

 private:
  const For what_;
};

// Gives the GIL away for as long as it lives, around whatever may lock, wait or join. From `end` on
// it keeps it, and nobody may wait for long: see `has_ended`.
class Released {
 public:
  explicit Released(Visit::For what) noexcept;  // with the GIL
  Released(const Released&) = delete;
  ~Released();

 private:
  const Visit visit_;
  PyThreadState* const state_;
};

// Whether `end` was called: transfers can no longer be started or waited for.
[[nodiscard]] bool has_ended() noexcept;

// For atexit, with the GIL: from now on nobody starts a transfer.
void end() noexcept;

// Waits, without the GIL, until all visits of this kind are over. False when some are not by then.
[[nodiscard]] bool wait_until_left(Visit::For what, std::chrono::nanoseconds timeout) noexcept;

}  // namespace dlferry::python
