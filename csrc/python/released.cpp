#include "python/released.h"

#include <algorithm>
#include <array>
#include <atomic>
#include <thread>

#include "python/gil.h"

namespace dlferry::python {
namespace {

// A forked child counts the threads of its parent too, but has nothing to wait for: see
// `close_transfers`.
std::array<std::atomic<int>, 2> inside{};
std::atomic<bool> ended{false};

std::atomic<int>& count(Visit::For what) noexcept { return inside[static_cast<std::size_t>(what)]; }

}  // namespace

Visit::Visit(For what) noexcept : what_(what) { ++count(what_); }

Visit::~Visit() { --count(what_); }

Released::Released(Visit::For what) noexcept
    : visit_(what), state_(has_ended() ? nullptr : PyEval_SaveThread()) {}

Released::~Released() {
  if (state_) take_gil_back(state_);
}

bool has_ended() noexcept { return ended.load(std::memory_order_acquire); }

void end() noexcept { ended.store(true, std::memory_order_release); }

bool wait_until_left(Visit::For what, std::chrono::nanoseconds timeout) noexcept {
  using Clock = std::chrono::steady_clock;
  const Clock::time_point deadline = Clock::now() + timeout;
  std::chrono::nanoseconds pause = std::chrono::microseconds(10);
  while (count(what) > 0) {
    if (Clock::now() >= deadline) return false;
    PyThreadState* const state = PyEval_SaveThread();
    std::this_thread::sleep_for(pause);
    take_gil_back(state);
    pause = std::min<std::chrono::nanoseconds>(2 * pause, std::chrono::milliseconds(1));
  }
  return true;
}

}  // namespace dlferry::python
