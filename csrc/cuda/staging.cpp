#include "cuda/staging.h"

#include <algorithm>
#include <utility>

#include "cuda/pinned.h"

namespace dlferry::cuda {

void StagingRing::adopt(HostAllocation memory) {
  free_.reserve(slots_);
  memory_ = std::move(memory);
  find_all();
}

void StagingRing::find_all() noexcept {
  for (std::size_t i = 0; i < slots_; ++i) free_.push_back(memory_.data() + i * slot_bytes_);
  lost_ = 0;
}

void StagingRing::give_back(std::byte* slot) noexcept {
  free_.push_back(slot);  // `adopt` made room
  PinnedCounts::end_use(slot_bytes_);
}

void StagingRing::lose(std::byte*) noexcept {
  ++lost_;
  PinnedCounts::end_use(slot_bytes_);  // nobody's any more
}

std::byte* StagingRing::take() noexcept {
  if (free_.empty()) return nullptr;
  std::byte* const slot = free_.back();  // the one used last is warmest in the caches
  free_.pop_back();
  PinnedCounts::begin_use(slot_bytes_);
  return slot;
}

InlineSlots::Slot* InlineSlots::take() {
  const std::lock_guard lock(mutex_);
  if (slots_.empty()) {
    std::vector<Slot> slots(kSlots);
    memory_ = HostAllocation(kSlotBytes * kSlots);
    for (std::size_t i = 0; i < kSlots; ++i) slots[i].data = memory_.data() + i * kSlotBytes;
    slots_ = std::move(slots);
  }
  // In turns, so the oldest copy is looked at first. A few more, for callers on several streams.
  constexpr std::size_t kTries = 4;
  for (std::size_t i = 0; i < kTries; ++i) {
    Slot& slot = slots_[next_];
    next_ = (next_ + 1) % kSlots;
    if (slot.taken || (slot.last_use && !slot.last_use->is_done())) continue;
    slot.last_use.reset();
    slot.taken = true;
    PinnedCounts::begin_use(kSlotBytes);
    return &slot;
  }
  return nullptr;
}

void InlineSlots::give_back(Slot* slot, std::shared_ptr<Event> last_use) noexcept {
  const std::lock_guard lock(mutex_);
  slot->last_use = std::move(last_use);
  slot->taken = false;
  PinnedCounts::end_use(kSlotBytes);
}

void InlineSlots::lose(Slot*) noexcept { PinnedCounts::end_use(kSlotBytes); }  // it stays taken

}  // namespace dlferry::cuda
