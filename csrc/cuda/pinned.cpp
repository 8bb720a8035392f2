#include "cuda/pinned.h"

#include <pthread.h>

#include <algorithm>
#include <array>
#include <atomic>
#include <map>
#include <mutex>
#include <new>
#include <shared_mutex>

#include "cuda/handles.h"

namespace dlferry::cuda {
namespace {

// Ranges of addresses, which may overlap and occur more than once. Thread-safe.
class Ranges {
 public:
  enum class Cover { kNone, kPart, kWhole };

  void add(std::uintptr_t begin, std::uintptr_t end) {
    const std::lock_guard lock(mutex_);
    ranges_.emplace(begin, end);
    longest_ = std::max(longest_, end - begin);
  }

  void remove(std::uintptr_t begin, std::uintptr_t end) noexcept {
    const std::lock_guard lock(mutex_);
    auto [it, last] = ranges_.equal_range(begin);
    while (it != last && it->second != end) ++it;
    if (it != last) ranges_.erase(it);
    if (ranges_.empty()) longest_ = 0;
  }

  // How much of [begin, end) one range holds.
  [[nodiscard]] Cover cover(std::uintptr_t begin, std::uintptr_t end) const noexcept {
    const std::shared_lock lock(mutex_);
    Cover found = Cover::kNone;
    for (auto it = ranges_.lower_bound(end); it != ranges_.begin();) {
      --it;
      if (it->first <= begin) {
        if (it->second >= end) return Cover::kWhole;
        if (begin - it->first >= longest_) break;  // nothing that starts here or before reaches us
      }
      if (it->second > begin) found = Cover::kPart;
    }
    return found;
  }

 private:
  mutable std::shared_mutex mutex_;
  std::multimap<std::uintptr_t, std::uintptr_t> ranges_;  // begin → end
  std::uintptr_t longest_ = 0;                            // no range is longer
};

// One that the driver has, and those who share it.
struct Registered {
  std::uintptr_t end;
  cu::Context context;
  std::size_t users = 1;
  KnownRange known{};
};

struct State {
  Ranges known;

  std::mutex registering;  // guards the next line; held while the driver registers
  std::map<std::uintptr_t, Registered> registered;  // by begin; none overlaps another

  std::mutex counting;
  PinnedStats stats;
};

// Made when first needed, and leaked on purpose: handles let go until the process ends. A forked
// child forgets it: the memory is its parent's, and the locks are in whatever state they were.
std::atomic<State*> current{nullptr};
void forget() noexcept { current.store(nullptr, std::memory_order_relaxed); }
[[maybe_unused]] const int at_fork = pthread_atfork(nullptr, nullptr, forget);

State& state() {
  State* existing = current.load(std::memory_order_acquire);
  if (existing) return *existing;
  auto* const made = new State;
  if (current.compare_exchange_strong(existing, made, std::memory_order_acq_rel)) return *made;
  delete made;  // another thread was first
  return *existing;
}

// Whether one allocation or registration of the driver's holds the range, and is always on the
// host.
bool driver_has(std::uintptr_t begin, std::uintptr_t end) noexcept {
  std::uint32_t type = 0, managed = 0;
  cu::DevicePtr start = 0;
  std::size_t bytes = 0;
  std::array attributes{cu::kMemoryType, cu::kIsManaged, cu::kRangeStart, cu::kRangeSize};
  std::array<void*, 4> values{&type, &managed, &start, &bytes};
  const cu::Result result = try_call<&Driver::cuPointerGetAttributes>(
      static_cast<unsigned>(attributes.size()), attributes.data(), values.data(), begin);
  // Where devices know the memory by another address than the host, `start` is that one.
  return result == cu::kSuccess && type == cu::kMemoryHost && managed == 0 && start <= begin &&
         bytes >= end - start;
}

bool can_register_read_only(int device) {
  cu::Device handle = 0;
  int supported = 0;
  call<&Driver::cuDeviceGet>(&handle, device);
  call<&Driver::cuDeviceGetAttribute>(&supported, cu::kReadOnlyHostRegisterSupported, handle);
  return supported != 0;
}

const char* advice_on(cu::Result code) noexcept {
  switch (code) {
    case cu::kErrorHostMemoryAlreadyRegistered:
      return "Some of the pages are page-locked already, for other memory: page-lock the whole "
             "block first and its parts afterwards, or copy to page-locked memory";
    case cu::kErrorNotSupported:
    case cu::kErrorNotPermitted:
      return "This system does not page-lock such memory in place: copy to page-locked memory";
    default:
      return nullptr;
  }
}

[[noreturn]] void refuse(cu::Result code) {
  throw Error("cuMemHostRegister", code, advice_on(code));
}

void register_pages(void* data, std::size_t bytes, bool read_only, int device) {
  const Driver& cuda = driver();
  cu::Result result = cuda.cuMemHostRegister_v2(data, bytes, cu::kHostRegisterPortable);
  // The flag is for pages that the system does not let anybody write to. Others do without it,
  // whatever the one who asks has in mind, because those who share the registration may write.
  const bool may_be_unwritable = result != cu::kSuccess && result != cu::kErrorOutOfMemory &&
                                 result != cu::kErrorHostMemoryAlreadyRegistered;
  if (read_only && may_be_unwritable && can_register_read_only(device)) {
    result = cuda.cuMemHostRegister_v2(data, bytes,
                                       cu::kHostRegisterPortable | cu::kHostRegisterReadOnly);
  }
  if (result != cu::kSuccess) refuse(result);
}

void add(PinnedStats::Amount& amount, std::size_t much) noexcept {
  amount.current += static_cast<std::int64_t>(much);
  amount.allocated += static_cast<std::int64_t>(much);
  amount.peak = std::max(amount.peak, amount.current);
}

void subtract(PinnedStats::Amount& amount, std::size_t much) noexcept {
  amount.current -= static_cast<std::int64_t>(much);
  amount.freed += static_cast<std::int64_t>(much);
}

void add(PinnedStats::Time& time, PinnedCounts::Moment started) noexcept {
  const std::int64_t took =
      std::chrono::duration_cast<std::chrono::microseconds>(PinnedCounts::now() - started).count();
  time.min = time.count == 0 ? took : std::min(time.min, took);
  time.max = std::max(time.max, took);
  time.total += took;
  ++time.count;
}

// Calls `change` with the figures. Where there is no memory for them, nothing is counted.
template <class Change>
void count(const Change& change) noexcept {
  try {
    State& shared = state();
    const std::lock_guard lock(shared.counting);
    change(shared.stats);
  } catch (const std::bad_alloc&) {
  }
}

}  // namespace

KnownRange::KnownRange(const void* data, std::size_t bytes)
    : begin_(reinterpret_cast<std::uintptr_t>(data)), end_(begin_ + bytes) {
  State& shared = state();
  shared.known.add(begin_, end_);
  holder_ = &shared;
}

KnownRange::~KnownRange() {
  State* const shared = current.load(std::memory_order_acquire);
  if (holder_ && holder_ == shared) shared->known.remove(begin_, end_);
}

bool is_pinned(const void* data, std::size_t bytes) noexcept {
  const auto begin = reinterpret_cast<std::uintptr_t>(data);
  const std::uintptr_t end = begin + bytes;
  if (end <= begin || is_forked()) return false;
  const State* const shared = current.load(std::memory_order_acquire);
  const Ranges::Cover cover = shared ? shared->known.cover(begin, end) : Ranges::Cover::kNone;
  // A copy across the border of a block is an error to the driver, so it must not be attempted.
  if (cover != Ranges::Cover::kNone) return cover == Ranges::Cover::kWhole;
  return bytes >= kAskDriverBytes && driver_has(begin, end);
}

Registration::Registration(const void* data, std::size_t bytes, bool read_only, int device) {
  const ContextGuard guard(device);  // throws in a forked child, before any lock
  const RelaxedCapture relaxed;
  const auto begin = reinterpret_cast<std::uintptr_t>(data);
  const std::uintptr_t end = begin + bytes;
  if (end < begin) refuse(cu::kErrorInvalidValue);
  if (bytes == 0) return;
  const auto started = PinnedCounts::now();
  State& shared = state();
  const std::lock_guard lock(shared.registering);
  auto at = shared.registered.lower_bound(end);  // the last one that starts below `end`
  if (at != shared.registered.begin() && (--at)->second.end > begin) {
    if (at->first > begin || at->second.end < end) refuse(cu::kErrorHostMemoryAlreadyRegistered);
    ++at->second.users;
  } else {
    const Ranges::Cover cover = shared.known.cover(begin, end);
    if (cover == Ranges::Cover::kWhole) return;
    if (cover == Ranges::Cover::kNone && driver_has(begin, end)) return;
    at = shared.registered.emplace(begin, Registered{end, primary_context(device)}).first;
    bool is_locked = false;
    try {
      register_pages(const_cast<void*>(data), bytes, read_only, device);
      is_locked = true;
      at->second.known = KnownRange(data, bytes);
    } catch (...) {
      if (is_locked) (void)try_call<&Driver::cuMemHostUnregister>(const_cast<void*>(data));
      shared.registered.erase(at);
      throw;
    }
    PinnedCounts::locked(bytes, started);
  }
  begin_ = at->first;
  bytes_ = bytes;
  PinnedCounts::begin_use(bytes);
}

Registration::~Registration() {
  if (!is_ours() || !loaded_driver()) return;
  const auto started = PinnedCounts::now();
  State& shared = *current.load(std::memory_order_acquire);
  const std::lock_guard lock(shared.registering);
  PinnedCounts::end_use(bytes_);
  const auto at = shared.registered.find(begin_);
  if (--at->second.users > 0) return;
  const std::size_t locked_bytes = at->second.end - begin_;
  const cu::Context context = at->second.context;
  shared.registered.erase(at);  // first, so that nobody takes it for page-locked any more
  const ContextGuard guard(context, std::nothrow);
  const RelaxedCapture relaxed(std::nothrow);
  (void)try_call<&Driver::cuMemHostUnregister>(reinterpret_cast<void*>(begin_));
  PinnedCounts::released(locked_bytes, started);
}

PinnedStats pinned_stats() noexcept {
  PinnedStats stats;
  count([&](const PinnedStats& current_stats) { stats = current_stats; });
  return stats;
}

void PinnedCounts::locked(std::size_t bytes, Moment started) noexcept {
  count([=](PinnedStats& stats) {
    add(stats.allocations, 1);
    add(stats.allocated_bytes, bytes);
    add(stats.host_alloc_time, started);
  });
}

void PinnedCounts::released(std::size_t bytes, Moment started) noexcept {
  count([=](PinnedStats& stats) {
    subtract(stats.allocations, 1);
    subtract(stats.allocated_bytes, bytes);
    add(stats.host_free_time, started);
  });
}

void PinnedCounts::begin_use(std::size_t bytes) noexcept {
  count([=](PinnedStats& stats) {
    add(stats.active_requests, 1);
    add(stats.active_bytes, bytes);
  });
}

void PinnedCounts::end_use(std::size_t bytes) noexcept {
  count([=](PinnedStats& stats) {
    subtract(stats.active_requests, 1);
    subtract(stats.active_bytes, bytes);
  });
}

}  // namespace dlferry::cuda
