#include "cuda/transfer.h"

#include <algorithm>
#include <thread>
#include <utility>

namespace dlferry::cuda {
namespace {

using Clock = std::chrono::steady_clock;

// How a thread waits that has to look: at first it does nothing else, for little copies are done
// sooner than it would wake up (Linux takes 50 us on top of any sleep). Then it sleeps for a part
// of the time that it has waited.
constexpr std::chrono::microseconds kAwake{100}, kLongestPause{200};
constexpr int kPausesOfWaiting = 8;

// A handle that a forked child inherited: its threads and its device are the parent's.
void require_own_process() {
  if (is_forked()) (void)driver();  // throws Unavailable
}

// The driver would end the capture.
[[noreturn]] void refuse_to_wait() {
  throw Error("cuStreamIsCapturing", cu::kErrorStreamCaptureUnsupported,
              "The stream is being captured into a graph, which cannot wait for a copy outside of "
              "it: wait for the transfer before the capture");
}

}  // namespace

std::shared_ptr<Transfer> Transfer::submitted(int device, std::shared_ptr<Event> event,
                                              bool reads_late) {
  auto transfer = std::make_shared<Transfer>(device);
  transfer->last_ = std::move(event);
  transfer->submitted_ = true;
  transfer->reads_late_ = reads_late;
  transfer->watched_ = false;
  return transfer;
}

std::shared_ptr<Transfer> Transfer::finished(int device) {
  auto transfer = std::make_shared<Transfer>(device);
  transfer->submitted_ = transfer->done_ = true;
  return transfer;
}

bool Transfer::is_done() {
  require_own_process();
  const std::lock_guard lock(mutex_);
  if (!done_ && !watched_) {
    const DriverScope scope(device_);
    done_ = last_->is_done();
  }
  return done_;
}

template <typename Condition>
bool Transfer::await(std::unique_lock<std::mutex>& held, Timeout timeout, Condition condition) {
  if (timeout) return changed_.wait_for(held, *timeout, condition);
  changed_.wait(held, condition);
  return true;
}

bool Transfer::wait(cu::Stream stream, Timeout timeout) {
  require_own_process();
  std::unique_lock lock(mutex_);
  const auto is_known = [this] { return failure_ || done_ || (submitted_ && !drains_); };
  if (!await(lock, timeout, is_known)) return false;
  throw_if_failed(lock);
  if (done_) return true;
  const DriverScope scope(device_);
  if (is_capturing(stream)) {
    if (last_->is_done()) return true;
    refuse_to_wait();
  }
  last_->make_wait(stream);  // the copy's own stream, too: a later one may have its handle
  return true;
}

bool Transfer::synchronize(Timeout timeout) {
  require_own_process();
  std::unique_lock lock(mutex_);
  if (!watched_ && !done_) {
    lock.unlock();
    if (!synchronize_event(timeout)) return false;
    lock.lock();
    done_ = true;
  }
  if (!await(lock, timeout, [this] { return done_; })) return false;
  throw_if_failed(lock);
  return true;
}

// CUDA has no wait with a timeout.
bool Transfer::synchronize_event(Timeout timeout) {
  const DriverScope scope(device_);
  if (!timeout) {
    last_->synchronize();
    return true;
  }
  const Clock::time_point begun = Clock::now();
  while (!last_->is_done()) {
    const std::chrono::nanoseconds waited = Clock::now() - begun;
    if (waited >= *timeout) return false;
    if (waited < kAwake) {
      std::this_thread::yield();
    } else {
      std::this_thread::sleep_for(std::min<std::chrono::nanoseconds>(
          {waited / kPausesOfWaiting, kLongestPause, *timeout - waited}));
    }
  }
  return true;
}

bool Transfer::wait_until_read(Timeout timeout) {
  require_own_process();
  {
    std::unique_lock lock(mutex_);
    if (!await(lock, timeout, [this] { return submitted_; })) return false;
    if (!reads_late_) {
      throw_if_failed(lock);
      return true;
    }
  }
  return synchronize(timeout);
}

bool Transfer::is_read() const noexcept {
  const std::lock_guard lock(mutex_);
  return done_ || (submitted_ && !reads_late_);
}

bool Transfer::cancel() noexcept {
  if (is_forked()) return false;
  const std::lock_guard lock(mutex_);
  if (submitted_) return false;
  if (!failure_) failure_ = std::make_exception_ptr(Cancelled());
  changed_.notify_all();
  return true;
}

bool Transfer::is_abandoned() const noexcept {
  const std::lock_guard lock(mutex_);
  return failure_ != nullptr;
}

void Transfer::fail(std::exception_ptr why) noexcept {
  const std::lock_guard lock(mutex_);
  if (!failure_) failure_ = std::move(why);
  changed_.notify_all();
}

void Transfer::part_begins() noexcept {
  const std::lock_guard lock(mutex_);
  ++parts_;
}

void Transfer::part_ends() noexcept {
  const std::lock_guard lock(mutex_);
  --parts_;
  finish_if_complete();
}

void Transfer::all_submitted(std::shared_ptr<Event> last, bool reads_late, bool drains) noexcept {
  const std::lock_guard lock(mutex_);
  last_ = std::move(last);
  reads_late_ = reads_late;
  drains_ = drains;
  submitted_ = true;
  finish_if_complete();
  changed_.notify_all();
}

void Transfer::finish_if_complete() noexcept {
  if (!submitted_ || parts_ > 0) return;
  done_ = true;
  changed_.notify_all();
}

void Transfer::throw_if_failed(const std::unique_lock<std::mutex>&) const {
  if (failure_) std::rethrow_exception(failure_);
}

}  // namespace dlferry::cuda
