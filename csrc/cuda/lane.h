// Lane: one direction of one device's link. Its threads fill, submit, wait and drain, so that no
// thread of the user's has to.
#pragma once

#include <atomic>
#include <chrono>
#include <condition_variable>
#include <cstdint>
#include <deque>
#include <memory>
#include <mutex>

#include "cuda/parts.h"
#include "cuda/staging.h"
#include "cuda/transfer.h"

namespace dlferry::cuda {

// What a lane has to do for one transfer.
struct Job {
  std::shared_ptr<Transfer> transfer;
  Parts parts;
  Event ready{};                  // nothing is copied before it is done; none: at once
  std::shared_ptr<Event> last{};  // of the last part submitted

  [[nodiscard]] bool is_small() const noexcept;
};

// A submitting thread makes parts: it fills a slot (towards the device) and hands the copy to the
// lane's stream. A completing thread waits for each in turn, drains its slot (towards the host) and
// gives it back. So the link works on one part while the next is filled or the one before drained.
// At most kMostInFlight parts of large transfers are on the link, or all slots but the one that is
// filled, where there are more; small transfers go before them.
class Lane {
 public:
  static constexpr int kMostInFlight = 3;

  // The threads start with the first job. Throws Error.
  Lane(int device, Direction direction, std::size_t slot_bytes, std::size_t slots);
  Lane(const Lane&) = delete;

  // New destinations are allocated for this stream: what is submitted to it waits for nothing but
  // copies.
  [[nodiscard]] cu::Stream stream() const noexcept { return stream_.get(); }
  [[nodiscard]] std::size_t slot_bytes() const noexcept { return ring_.slot_bytes(); }
  [[nodiscard]] std::size_t ring_bytes() const noexcept;

  // Throws Unavailable after `close`, and std::system_error when no thread can be started.
  void submit(Job job);

  // Fails what is queued, waits for what is on the link and ends the threads. False when that
  // takes longer than `timeout`: then the lane must never be destroyed. Can be called again.
  [[nodiscard]] bool close(std::chrono::nanoseconds timeout) noexcept;

 private:
  struct InFlight {
    std::shared_ptr<Job> job;
    Part part{};
    std::byte* slot = nullptr;  // direct parts have none
    std::shared_ptr<Event> copied{};
    bool small = false;
  };
  class DriverThread;
  using Jobs = std::deque<std::shared_ptr<Job>>;
  using Lock = std::unique_lock<std::mutex>;

  void start_threads();
  void submit_forever() noexcept;
  void complete_forever() noexcept;
  std::shared_ptr<Job> next_job(DriverThread& thread, bool& unready) noexcept;
  [[nodiscard]] bool is_ready(DriverThread& thread, const Job& job) noexcept;
  [[nodiscard]] bool has_room(const Job& job) const noexcept;
  void submit_part(DriverThread& thread, const std::shared_ptr<Job>& job, Lock& lock) noexcept;
  void take_slot(DriverThread& thread, InFlight& part, Lock& lock);
  void retire(const std::shared_ptr<Job>& job) noexcept;
  [[nodiscard]] bool complete(DriverThread& thread, InFlight& part) noexcept;
  [[nodiscard]] bool is_stream_idle(DriverThread& thread) noexcept;
  void end_part(InFlight& part, bool slot_is_free) noexcept;

  const int device_;
  const Direction direction_;
  const int most_in_flight_;
  Stream stream_;

  mutable std::mutex mutex_;
  std::condition_variable work_;     // for the submitting thread
  std::condition_variable on_link_;  // for the completing thread
  std::condition_variable ended_;    // for `close`
  StagingRing ring_;
  Jobs small_, large_;
  std::deque<InFlight> in_flight_;
  int large_in_flight_ = 0;
  bool submitting_ = false;  // whether the threads run
  bool completing_ = false;
  bool closing_ = false;
};

}  // namespace dlferry::cuda
