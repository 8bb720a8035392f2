// The private ring: page-locked slots through which pageable memory crosses the link. Nobody
// outside the engine ever sees them.
#pragma once

#include <cstddef>
#include <memory>
#include <mutex>
#include <vector>

#include "cuda/handles.h"

namespace dlferry::cuda {

// The slots of one lane. Not thread-safe: the lane's lock guards it.
class StagingRing {
 public:
  StagingRing(std::size_t slot_bytes, std::size_t slots) noexcept
      : slot_bytes_(slot_bytes), slots_(slots) {}

  [[nodiscard]] std::size_t slot_bytes() const noexcept { return slot_bytes_; }
  [[nodiscard]] std::size_t bytes_wanted() const noexcept { return slot_bytes_ * slots_; }
  [[nodiscard]] std::size_t bytes() const noexcept { return memory_.bytes(); }

  // Allocating takes long, so the lane does it when the first slot is needed, without its lock.
  [[nodiscard]] bool has_memory() const noexcept { return memory_.data() != nullptr; }
  void adopt(HostAllocation memory);  // of the bytes wanted

  [[nodiscard]] bool has_free_slot() const noexcept { return !free_.empty(); }
  // Copies may go on into or out of it, nobody knows for how long.
  void lose(std::byte* slot) noexcept;
  [[nodiscard]] bool has_lost_all() const noexcept { return lost_ == slots_; }
  void find_all() noexcept;  // all were lost, and all copies have ended

  // Null when none is free.
  [[nodiscard]] std::byte* take() noexcept;
  void give_back(std::byte* slot) noexcept;

 private:
  const std::size_t slot_bytes_;
  const std::size_t slots_;
  std::size_t lost_ = 0;
  HostAllocation memory_;
  std::vector<std::byte*> free_;
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

  // Null when all are in use: there is work on the callers' streams that they wait for. The caller
  // gives the slot back with the event that it recorded, or null where no copy goes on, or loses it
  // for ever, when its copy cannot be waited for. Throws Error.
  [[nodiscard]] Slot* take();
  void give_back(Slot* slot, std::shared_ptr<Event> last_use) noexcept;
  void lose(Slot* slot) noexcept;

 private:
  std::mutex mutex_;
  HostAllocation memory_;
  std::vector<Slot> slots_;
  std::size_t next_ = 0;  // the one taken longest ago
};

}  // namespace dlferry::cuda
