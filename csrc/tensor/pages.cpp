#include "tensor/pages.h"

#include <sys/mman.h>
#include <unistd.h>

#include <algorithm>
#include <cstdint>

#include "tensor/workers.h"

namespace dlferry {
namespace {

constexpr std::uintptr_t kHugePage = std::uintptr_t{2} << 20;

// Of Linux 5.14; glibc's headers may not know it.
constexpr int kPopulateWrite = 23;

// The small pages that [begin, end) touches, each as a write would.
void populate(std::byte* begin, std::byte* end) noexcept {
  static const auto small = static_cast<std::uintptr_t>(sysconf(_SC_PAGESIZE));
  const std::uintptr_t before = reinterpret_cast<std::uintptr_t>(begin) % small;
  if (begin < end)
    madvise(begin - before, before + static_cast<std::size_t>(end - begin), kPopulateWrite);
}

}  // namespace

bool makes_pages() noexcept {
  static const bool known = madvise(nullptr, 0, kPopulateWrite) == 0;
  return known;
}

NewPages::NewPages(std::byte* data, std::size_t bytes, bool on_demand) noexcept {
  const auto start = reinterpret_cast<std::uintptr_t>(data);
  const std::uintptr_t first = (start + kHugePage - 1) & ~(kHugePage - 1);
  const std::uintptr_t last = (start + bytes) & ~(kHugePage - 1);
  if (first >= last) return;
  begin_ = data;
  first_ = data + (first - start);
  last_ = data + (last - start);
  end_ = data + bytes;
  // Refused where huge pages are turned off; the copy is then slower, and right.
  if (madvise(first_, last - first, MADV_HUGEPAGE) != 0) return;
  const std::size_t count = (last - first) / kHugePage;
  if (on_demand) {
    count_ = count + 2;
    return;
  }
  parallel(count, [this](std::size_t page) noexcept {
    *static_cast<volatile std::byte*>(first_ + (page + 1) * kHugePage - 1) = std::byte{0};
  });
}

// Asked for, not written to: another thread may have written here before.
void NewPages::make(std::size_t part) const noexcept {
  if (part == 0) {
    populate(begin_, first_);
  } else if (part == count_ - 1) {
    populate(last_, end_);
  } else {
    // Linux clears a huge page so that the touched part comes last: touched at its end, it is
    // cleared in rising order, which was measured to be twice as fast as the falling order that the
    // first write of a copy would bring about.
    std::byte* const end = first_ + part * kHugePage;
    populate(end - 1, end);
  }
}

void NewPages::reach(const std::byte* end) noexcept {
  if (count_ == 0) return;
  const std::size_t needed =
      end <= first_ ? 1 : 2 + static_cast<std::size_t>(end - first_ - 1) / kHugePage;
  // One more than that, so that the next piece does not have to wait for it.
  const std::size_t below = std::min(needed + 1, count_);
  while (next_.load(std::memory_order_relaxed) < below) {
    const std::size_t part = next_.fetch_add(1, std::memory_order_relaxed);
    if (part < count_) make(part);
  }
}

void NewPages::reach_all() noexcept {
  parallel(count_, [this](std::size_t part) noexcept { make(part); });
}

}  // namespace dlferry
