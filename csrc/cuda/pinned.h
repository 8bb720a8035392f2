// Page-locked memory: which ranges are known, page-locking in place, and how much of it is ours.
#pragma once

#include <chrono>
#include <cstddef>
#include <cstdint>
#include <utility>

#include "cuda/driver.h"

namespace dlferry::cuda {

// Memory that is page-locked for as long as this lives, by whatever means. Whole blocks: memory
// that a range holds only a part of counts as pageable.
class KnownRange {
 public:
  KnownRange() noexcept = default;
  KnownRange(const void* data, std::size_t bytes);  // throws std::bad_alloc
  KnownRange(KnownRange&& other) noexcept { *this = std::move(other); }
  KnownRange& operator=(KnownRange&& other) noexcept {
    std::swap(begin_, other.begin_);
    std::swap(end_, other.end_);
    std::swap(holder_, other.holder_);
    return *this;
  }
  ~KnownRange();

 private:
  std::uintptr_t begin_ = 0;
  std::uintptr_t end_ = 0;
  void* holder_ = nullptr;  // null: no range
};

// Whether an asynchronous copy may use [data, data + bytes) directly: it is page-locked as one
// block. About unknown ranges the driver is asked, if it has been loaded and they are as large as
// kAskDriverBytes; for less, the question costs as much as the answer saves. False when unsure.
inline constexpr std::size_t kAskDriverBytes = std::size_t{64} << 10;
[[nodiscard]] bool is_pinned(const void* data, std::size_t bytes) noexcept;

// Somebody else's memory, page-locked in place. Whoever asks for a range that has been registered,
// or for a part of one, shares the registration; the last one to let go undoes it, on any thread,
// and waits for the driver. The memory must outlive this.
class Registration {
 public:
  Registration() noexcept = default;
  // Through the context of `device`, for all devices. Takes milliseconds, and longer while another
  // thread registers. `read_only`: the system may not allow writes to the memory, and no copy will
  // write to it. Throws Unavailable, or Error where the driver refuses.
  Registration(const void* data, std::size_t bytes, bool read_only, int device);
  Registration(Registration&& other) noexcept { *this = std::move(other); }
  Registration& operator=(Registration&& other) noexcept {
    std::swap(begin_, other.begin_);
    std::swap(bytes_, other.bytes_);
    return *this;
  }
  ~Registration();

  // False where the memory was page-locked already, by someone who may also undo that.
  [[nodiscard]] bool is_ours() const noexcept { return begin_ != 0; }

 private:
  std::uintptr_t begin_ = 0;  // of the range that is registered with the driver
  std::size_t bytes_ = 0;     // that were asked for
};

// What dlferry has page-locked itself, under the names of torch.cuda.host_memory_stats(). Blocks
// are host allocations and registrations; requests are registrations and slots that are in use.
struct PinnedStats {
  struct Amount {
    std::int64_t current = 0, peak = 0, allocated = 0, freed = 0;
  };
  struct Time {  // in microseconds
    std::int64_t total = 0, max = 0, min = 0, count = 0;
  };
  Amount allocations, allocated_bytes;   // of blocks
  Amount active_requests, active_bytes;  // of requests
  Time host_alloc_time, host_free_time;  // the counts are num_host_alloc and num_host_free
};
[[nodiscard]] PinnedStats pinned_stats() noexcept;

// How the figures come about. A forked child starts anew.
struct PinnedCounts {
  using Moment = std::chrono::steady_clock::time_point;
  [[nodiscard]] static Moment now() noexcept { return std::chrono::steady_clock::now(); }
  static void locked(std::size_t bytes, Moment started) noexcept;    // a block was made
  static void released(std::size_t bytes, Moment started) noexcept;  // and let go
  static void begin_use(std::size_t bytes) noexcept;                 // a request was granted
  static void end_use(std::size_t bytes) noexcept;                   // and is over
};

}  // namespace dlferry::cuda
