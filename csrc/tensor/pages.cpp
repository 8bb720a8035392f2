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
  first_ = data + (first - start);
  // Refused where huge pages are turned off; the copy is then slower, and right.
  if (madvise(first_, last - first, MADV_HUGEPAGE) != 0) return;
  const std::size_t count = (last - first) / kHugePage;
  if (on_demand) {
    count_ = count;
    return;
  }
  parallel(count, [this](std::size_t page) noexcept {
    *static_cast<volatile std::byte*>(first_ + (page + 1) * kHugePage - 1) = std::byte{0};
  });
}

// Linux clears a huge page so that the touched part comes last: touched at its end, it is cleared
// in rising order, which was measured to be twice as fast as the falling order that the first write
// of a copy would bring about. Asked for, not written to: another thread may have written here
// before.
void NewPages::make(std::size_t page) const noexcept {
  static const auto small = static_cast<std::uintptr_t>(sysconf(_SC_PAGESIZE));
  madvise(first_ + (page + 1) * kHugePage - small, small, kPopulateWrite);
}

void NewPages::reach(const std::byte* end) noexcept {
  if (count_ == 0) return;
  // One more than is needed now, so that the next piece does not have to wait for it.
  const auto wanted = end <= first_ ? 0 : static_cast<std::size_t>(end - first_) / kHugePage + 2;
  const std::size_t below = std::min(wanted, count_);
  while (next_.load(std::memory_order_relaxed) < below) {
    const std::size_t page = next_.fetch_add(1, std::memory_order_relaxed);
    if (page < count_) make(page);
  }
}

void NewPages::reach_all() noexcept {
  parallel(count_, [this](std::size_t page) noexcept { make(page); });
}

}  // namespace dlferry
