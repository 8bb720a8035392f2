// Transfer: one copy between host and device on its way, and how it ended.
#pragma once

#include <chrono>
#include <condition_variable>
#include <exception>
#include <memory>
#include <mutex>
#include <optional>

#include "cuda/handles.h"

namespace dlferry::cuda {

// The transfer was cancelled. What it had written so far is undefined.
class Cancelled : public std::exception {
 public:
  [[nodiscard]] const char* what() const noexcept override {
    return "the transfer was cancelled before all of it was copied";
  }
};

// The process is ending, and nothing is copied any more.
class Ended : public Unavailable {
 public:
  Ended() : Unavailable("transfers have ended: the interpreter is shutting down") {}
};

// Shared by its users and by the lane that works on it. Thread-safe. It owns no memory: whoever
// asked for the transfer keeps source and destination alive until `is_done`.
class Transfer {
 public:
  // Copies that were submitted in full to a stream of the caller's: done when the event is.
  // `reads_late` as below.
  [[nodiscard]] static std::shared_ptr<Transfer> submitted(int device, std::shared_ptr<Event> event,
                                                           bool reads_late);
  // Nothing to copy.
  [[nodiscard]] static std::shared_ptr<Transfer> finished(int device);
  // For a lane, which will say what happens.
  explicit Transfer(int device) noexcept : device_(device) {}

  // Whether nothing touches source or destination any more: all is copied, or the transfer failed
  // or was cancelled. Never waits. Throws Error when the driver cannot say.
  [[nodiscard]] bool is_done();

  // Makes the work that is submitted to `stream` from now on wait for the copy. Waits itself until
  // the last part has been submitted, and where threads write the destination, until they have:
  // for work on a stream only where the transfer was ordered after it. False, with nothing done,
  // when they have not by then. Throws how the transfer ended, when it ended badly, and Error where
  // `stream` is being captured and the copies are still under way.
  using Timeout = std::optional<std::chrono::nanoseconds>;
  bool wait(cu::Stream stream, Timeout timeout = {});

  // Waits until the transfer is done; false when it is not by then. Throws how it ended badly.
  [[nodiscard]] bool synchronize(Timeout timeout = {});

  // Waits until the source may be changed: it has been read, as far as it is pageable. False when
  // it has not been by then.
  bool wait_until_read(Timeout timeout = {});

  // Whether it has been, as far as can be told without asking the driver.
  [[nodiscard]] bool is_read() const noexcept;

  // No part is submitted from now on. False when all had been: then the transfer goes on.
  bool cancel() noexcept;

  // ---- for the lane ----
  [[nodiscard]] bool is_abandoned() const noexcept;  // failed or cancelled: submit no more of it
  void fail(std::exception_ptr why) noexcept;        // the first reason stays
  void part_begins() noexcept;
  void part_ends() noexcept;
  // `last` is what the last part recorded; null where none was submitted. `reads_late`: page-locked
  // sources are read by the copies themselves. `drains`: destinations are written after the copies.
  void all_submitted(std::shared_ptr<Event> last, bool reads_late, bool drains) noexcept;

 private:
  template <typename Condition>
  [[nodiscard]] bool await(std::unique_lock<std::mutex>& held, Timeout timeout,
                           Condition condition);
  void finish_if_complete() noexcept;
  [[nodiscard]] bool synchronize_event(Timeout timeout);
  void throw_if_failed(const std::unique_lock<std::mutex>& held) const;

  const int device_;
  mutable std::mutex mutex_;
  std::condition_variable changed_;
  std::shared_ptr<Event> last_;  // set once all is submitted
  std::exception_ptr failure_;
  int parts_ = 0;  // submitted and not ended
  bool submitted_ = false;
  bool reads_late_ = false;
  bool drains_ = false;
  bool watched_ = true;  // by a lane; otherwise `last_` alone knows
  bool done_ = false;
};

}  // namespace dlferry::cuda
