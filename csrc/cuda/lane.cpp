#include "cuda/lane.h"

#include <algorithm>
#include <array>
#include <exception>
#include <optional>
#include <utility>

#include "tensor/quiet_thread.h"

namespace dlferry::cuda {
namespace {

// Smaller transfers go before the next part of larger ones.
constexpr std::size_t kSmallBytes = std::size_t{1} << 20;

// How often jobs are looked at that wait for work on the caller's stream.
constexpr std::chrono::microseconds kFirstPause{20}, kLongestPause{500};

}  // namespace

// What a thread needs before it may call the driver. Made at the first need and again after a
// failure, so that one failed call ends one transfer and not the lane.
class Lane::DriverThread {
 public:
  explicit DriverThread(int device) noexcept : device_(device) {}
  void enter() {
    if (!scope_) scope_.emplace(device_);
  }

 private:
  const int device_;
  std::optional<DriverScope> scope_;
};

bool Job::is_small() const noexcept { return parts.total_bytes() <= kSmallBytes; }

Lane::Lane(int device, Direction direction, std::size_t slot_bytes, std::size_t slots)
    : device_(device),
      direction_(direction),
      most_in_flight_(std::max(kMostInFlight, static_cast<int>(slots) - 1)),
      stream_(Stream::Priority::kHighest),
      ring_(slot_bytes, slots) {}

std::size_t Lane::ring_bytes() const noexcept {
  const std::lock_guard lock(mutex_);
  return ring_.bytes();
}

void Lane::submit(Job job) {
  auto queued = std::make_shared<Job>(std::move(job));
  {
    const std::lock_guard lock(mutex_);
    if (closing_) throw Ended();
    start_threads();
    (queued->is_small() ? small_ : large_).push_back(std::move(queued));
  }
  work_.notify_one();
}

bool Lane::close(std::chrono::nanoseconds timeout) noexcept {
  Lock lock(mutex_);
  closing_ = true;
  work_.notify_one();
  return ended_.wait_for(lock, timeout, [this] { return !submitting_ && !completing_; });
}

// Detached, because they are waited for with a timeout; the lane outlives them or is leaked.
void Lane::start_threads() {
  if (!submitting_) {
    quiet_thread([this] { submit_forever(); }).detach();
    submitting_ = true;
  }
  if (!completing_) {
    quiet_thread([this] { complete_forever(); }).detach();
    completing_ = true;
  }
}

// ---- submitting ----

void Lane::submit_forever() noexcept {
  std::optional<DriverThread> thread(device_);
  std::chrono::microseconds pause = kFirstPause;
  Lock lock(mutex_);
  while (!closing_) {
    bool unready = false;
    if (const std::shared_ptr<Job> job = next_job(*thread, unready)) {
      submit_part(*thread, job, lock);
      pause = kFirstPause;
    } else if (unready) {
      work_.wait_for(lock, pause);
      pause = std::min(2 * pause, kLongestPause);
    } else {
      work_.wait(lock);
      pause = kFirstPause;
    }
  }
  for (Jobs* queue : {&small_, &large_}) {
    while (!queue->empty()) {
      queue->front()->transfer->fail(std::make_exception_ptr(Ended()));
      retire(std::shared_ptr<Job>(queue->front()));
    }
  }
  lock.unlock();
  thread.reset();  // calls the driver
  lock.lock();
  submitting_ = false;
  on_link_.notify_one();
  ended_.notify_all();
}

// The first job that can go on: small ones first. `unready`: one waits for its stream.
std::shared_ptr<Job> Lane::next_job(DriverThread& thread, bool& unready) noexcept {
  for (const Jobs* queue : {&small_, &large_}) {
    for (const std::shared_ptr<Job>& job : *queue) {
      if (job->transfer->is_abandoned()) return job;
      if (!is_ready(thread, *job)) {
        unready = true;
      } else if (has_room(*job)) {
        return job;
      } else {
        break;  // what comes later does not overtake
      }
    }
  }
  return nullptr;
}

bool Lane::is_ready(DriverThread& thread, const Job& job) noexcept {
  if (!job.ready) return true;
  try {
    thread.enter();
    return job.ready.is_done();
  } catch (...) {
    job.transfer->fail(std::current_exception());
    return true;  // to be taken and retired
  }
}

bool Lane::has_room(const Job& job) const noexcept {
  if (job.transfer->is_abandoned()) return true;
  if (!job.is_small() && large_in_flight_ >= most_in_flight_) return false;
  if (job.parts.at_end() || job.parts.next_is_direct()) return true;
  return !ring_.has_memory() || ring_.has_free_slot() || ring_.has_lost_all();
}

void Lane::submit_part(DriverThread& thread, const std::shared_ptr<Job>& job, Lock& lock) noexcept {
  Transfer& transfer = *job->transfer;
  if (transfer.is_abandoned() || job->parts.at_end()) return retire(job);
  InFlight part{.job = job, .small = job->is_small()};
  transfer.part_begins();
  if (!part.small) ++large_in_flight_;
  bool begun = false, submitted = false;
  try {
    if (!job->parts.next_is_direct()) take_slot(thread, part, lock);
    lock.unlock();
    thread.enter();
    part.part = job->parts.next();
    if (part.slot && direction_ == Direction::kToDevice) fill_slot(part.part, part.slot);
    part.copied = std::make_shared<Event>(device_);
    const std::vector<LinkCopy> copies = part.part.copies(part.slot);
    begun = true;
    submit_copies(direction_, copies, stream_.get(), !part.slot || ring_.is_page_locked());
    part.copied->record(stream_.get());
    lock.lock();
    job->last = part.copied;
    in_flight_.push_back(part);
    submitted = true;
  } catch (...) {
    transfer.fail(std::current_exception());
    if (lock.owns_lock()) lock.unlock();
    const bool slot_is_free = !begun || is_stream_idle(thread);
    lock.lock();
    end_part(part, slot_is_free);
  }
  if (submitted) on_link_.notify_one();
  if (transfer.is_abandoned() || job->parts.at_end()) retire(job);
}

void Lane::take_slot(DriverThread& thread, InFlight& part, Lock& lock) {
  if (!ring_.has_memory()) {
    lock.unlock();  // nobody else allocates it
    HostAllocation memory = [this] {
      const DriverScope scope(device_);
      return allocate_slots(ring_.bytes_wanted());
    }();
    lock.lock();
    ring_.adopt(std::move(memory));
  }
  if (ring_.has_lost()) {
    lock.unlock();
    thread.enter();
    const cu::Result result = try_call<&Driver::cuStreamSynchronize>(stream_.get());
    lock.lock();
    if (result == cu::kSuccess) {
      ring_.find_lost();  // nobody else submits, so their copies came before this
    } else if (!ring_.has_free_slot()) {
      throw Error("cuStreamSynchronize", result);  // most likely it says why they were lost
    }
  }
  part.slot = ring_.take();
}

// Nothing more of the job will be submitted.
void Lane::retire(const std::shared_ptr<Job>& job) noexcept {
  const bool drains = direction_ == Direction::kToHost && job->parts.has_staged();
  job->transfer->all_submitted(job->last, job->parts.has_direct(), drains);
  for (Jobs* queue : {&small_, &large_}) std::erase(*queue, job);
}

// ---- completing ----

void Lane::complete_forever() noexcept {
  std::optional<DriverThread> thread(device_);
  Lock lock(mutex_);
  for (;;) {
    on_link_.wait(lock, [this] { return !in_flight_.empty() || (closing_ && !submitting_); });
    if (in_flight_.empty()) break;
    InFlight part = std::move(in_flight_.front());
    in_flight_.pop_front();
    lock.unlock();
    const bool slot_is_free = complete(*thread, part);
    lock.lock();
    end_part(part, slot_is_free);
  }
  lock.unlock();
  thread.reset();
  lock.lock();
  completing_ = false;
  ended_.notify_all();
}

// Whether the part's slot can be used again.
bool Lane::complete(DriverThread& thread, InFlight& part) noexcept {
  Transfer& transfer = *part.job->transfer;
  try {
    thread.enter();
    part.copied->synchronize();
  } catch (...) {
    transfer.fail(std::current_exception());
    return is_stream_idle(thread);
  }
  if (part.slot && direction_ == Direction::kToHost && !transfer.is_abandoned()) {
    drain_slot(part.part, part.slot);
  }
  return true;
}

// After a failure: whether all copies have ended, however long that takes. Copies on this stream
// wait for nothing but each other.
bool Lane::is_stream_idle(DriverThread& thread) noexcept {
  try {
    thread.enter();
  } catch (...) {
    return false;
  }
  return try_call<&Driver::cuStreamSynchronize>(stream_.get()) == cu::kSuccess;
}

void Lane::end_part(InFlight& part, bool slot_is_free) noexcept {
  if (part.slot && slot_is_free) ring_.give_back(part.slot);
  if (part.slot && !slot_is_free) ring_.lose(part.slot);
  if (!part.small) --large_in_flight_;
  part.job->transfer->part_ends();
  work_.notify_one();
}

}  // namespace dlferry::cuda
