#include "cuda/staging.h"

#include <algorithm>
#include <atomic>
#include <string>
#include <utility>

#include "cuda/pinned.h"

namespace dlferry::cuda {
namespace {

std::atomic<const std::string*> refusal{nullptr};  // the first one; leaked on purpose

void remember(const Error& error) {
  auto text = std::make_unique<const std::string>(error.what());
  const std::string* none = nullptr;
  if (refusal.compare_exchange_strong(none, text.get())) (void)text.release();
}

}  // namespace

HostAllocation allocate_slots(std::size_t bytes) {
  try {
    return HostAllocation(bytes);
  } catch (const Error& error) {
    if (error.code() != cu::kErrorOutOfMemory && error.code() != cu::kErrorNotPermitted) throw;
    remember(error);
    return {};
  }
}

const char* why_ordinary() noexcept {
  const std::string* const why = refusal;
  return why ? why->c_str() : nullptr;
}

void StagingRing::adopt(HostAllocation locked) {
  free_.reserve(slots_);
  lost_.reserve(slots_);
  if (!locked.data()) ordinary_ = std::make_unique_for_overwrite<std::byte[]>(bytes_wanted());
  locked_ = std::move(locked);
  data_ = ordinary_ ? ordinary_.get() : locked_.data();
  for (std::size_t i = 0; i < slots_; ++i) free_.push_back(data_ + i * slot_bytes_);
}

// `adopt` made room for all of them in either list.

void StagingRing::find_lost() noexcept {
  free_.insert(free_.end(), lost_.begin(), lost_.end());
  lost_.clear();
}

void StagingRing::give_back(std::byte* slot) noexcept {
  free_.push_back(slot);
  if (is_page_locked()) PinnedCounts::end_use(slot_bytes_);
}

void StagingRing::lose(std::byte* slot) noexcept {
  lost_.push_back(slot);
  if (is_page_locked()) PinnedCounts::end_use(slot_bytes_);  // nobody's any more
}

std::byte* StagingRing::take() noexcept {
  if (free_.empty()) return nullptr;
  std::byte* const slot = free_.back();  // the one used last is warmest in the caches
  free_.pop_back();
  if (is_page_locked()) PinnedCounts::begin_use(slot_bytes_);
  return slot;
}

InlineSlots::Slot* InlineSlots::take() {
  const std::lock_guard lock(mutex_);
  if (is_refused_) return nullptr;
  if (slots_.empty()) {
    std::vector<Slot> slots(kSlots);
    memory_ = allocate_slots(kSlotBytes * kSlots);
    is_refused_ = !memory_.data();
    if (is_refused_) return nullptr;
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
