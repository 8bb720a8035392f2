#include "tensor/pages.h"

#include <sys/mman.h>

#include <cstdint>

#include "tensor/workers.h"

namespace dlferry {

void prepare_pages(std::byte* data, std::size_t bytes) noexcept {
  constexpr std::uintptr_t kHugePage = std::uintptr_t{2} << 20;
  const auto start = reinterpret_cast<std::uintptr_t>(data);
  const std::uintptr_t first = (start + kHugePage - 1) & ~(kHugePage - 1);
  const std::uintptr_t last = (start + bytes) & ~(kHugePage - 1);
  if (first >= last) return;
  auto* const pages = data + (first - start);
  // Refused where huge pages are turned off; the copy is then slower, and right.
  if (madvise(pages, last - first, MADV_HUGEPAGE) != 0) return;
  // Linux clears a huge page so that the touched part comes last: touched at its end, it is
  // cleared in rising order, which was measured to be twice as fast as the falling order that the
  // first write of a copy would bring about.
  const auto touch_last_byte = [pages](std::size_t page) noexcept {
    *static_cast<volatile std::byte*>(pages + (page + 1) * kHugePage - 1) = std::byte{0};
  };
  parallel((last - first) / kHugePage, touch_last_byte);
}

}  // namespace dlferry
