// The private ring: page-locked slots through which pageable memory crosses the link. Nobody
// outside the engine ever sees them. Where the system page-locks no more memory, a lane's slots are
// ordinary memory, for which its own thread waits in the driver, and there are no inline ones.
#pragma once

#include <cstddef>
#include <memory>
#include <mutex>
#include <vector>

#include "cuda/handles.h"

namespace dlferry::cuda {

// Page-locked memory for slots. None where the system has no more of it or does not permit it,
// which is remembered; throws Error where anything else fails, and Unavailable.
[[nodiscard]] HostAllocation allocate_slots(std::size_t bytes);

// Why slots are not page-locked; null where they are, as far as is known. Lives for ever.
[[nodiscard]] const char* why_ordinary() noexcept;

// The slots of one lane. Not thread-safe: the lane's lock guards it.
class StagingRing {
 public:
  StagingRing(std::size_t slot_bytes, std::size_t slots) noexcept
      : slot_bytes_(slot_bytes), slots_(slots) {}

  [[nodiscard]] std::size_t slot_bytes() const noexcept { return slot_bytes_; }
  [[nodiscard]] std::size_t bytes_wanted() const noexcept { return slot_bytes_ * slots_; }
  [[nodiscard]] std::size_t bytes() const noexcept { return locked_.bytes(); }  // page-locked

  // Allocating takes long, so the lane does it when the first slot is needed, without its lock.
  [[nodiscard]] bool has_memory() const noexcept { return data_ != nullptr; }
  [[nodiscard]] bool is_page_locked() const noexcept { return data_ == locked_.data(); }
  // Of the bytes wanted; where it is none, the slots are ordinary memory. Throws std::bad_alloc.
  void adopt(HostAllocation locked);

  [[nodiscard]] bool has_free_slot() const noexcept { return !free_.empty(); }
  // Copies may go on into or out of it, nobody knows for how long.
  void lose(std::byte* slot) noexcept;
  [[nodiscard]] bool has_lost() const noexcept { return !lost_.empty(); }
  [[nodiscard]] bool has_lost_all() const noexcept { return lost_.size() == slots_; }
  void find_lost() noexcept;  // all copies have ended that were under way when they were lost

  // Null when none is free.
  [[nodiscard]] std::byte* take() noexcept;
  void give_back(std::byte* slot) noexcept;

 private:
  const std::size_t slot_bytes_;
  const std::size_t slots_;
  HostAllocation locked_;
  std::unique_ptr<std::byte[]> ordinary_;
  std::byte* data_ = nullptr;  // of one of them
  std::vector<std::byte*> free_, lost_;
};

// Small slots for copies that the calling thread makes itself on the caller's own stream. A slot is
// free again when what was recorded after its copy is done. Thread-safe.
class InlineSlots {
 public:
  static constexpr std::size_t kSlotBytes = std::size_t{256} << 10;
  static constexpr std::size_t kSlots = 16;

  struct Slot {
    std::byte* data;
    std::shared_ptr<Event> last_use;  // null or done while the slot is free
    bool taken = false;
  };

  // Null when all are in use, as there is work on the callers' streams that they wait for, or when
  // there are none, as they cannot be page-locked: the driver would wait for a caller's stream. The
  // caller gives the slot back with the event that it recorded, or null where no copy goes on, or
  // loses it for ever, when its copy cannot be waited for. Throws Error.
  [[nodiscard]] Slot* take();
  void give_back(Slot* slot, std::shared_ptr<Event> last_use) noexcept;
  void lose(Slot* slot) noexcept;

 private:
  std::mutex mutex_;
  HostAllocation memory_;
  bool is_refused_ = false;  // such memory
  std::vector<Slot> slots_;
  std::size_t next_ = 0;  // the one taken longest ago
};

}  // namespace dlferry::cuda
