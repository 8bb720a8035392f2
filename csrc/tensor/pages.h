// Cheap pages for large new memory.
#pragma once

#include <atomic>
#include <cstddef>

namespace dlferry {

// Whether this Linux makes pages that it is asked for (5.14 and later).
[[nodiscard]] bool makes_pages() noexcept;

// The pages under a large destination that has just been allocated, that is about to be
// overwritten, and that nobody has written to yet: huge ones, and at its edges the small ones that
// no huge page covers. Without them, a copy into new memory spends most of its time on page faults.
// The threads that write make them, each shortly before it is written to, since what Linux has just
// cleared is still in a cache; the huge ones all at once, here, where they have to be written to
// for that
// (`on_demand` is false). Small blocks stay as they are.
class NewPages {
 public:
  NewPages(std::byte* data, std::size_t bytes, bool on_demand = makes_pages()) noexcept;

  // Whether `reach` makes any: most of them are in a cache when they are written to, then.
  [[nodiscard]] bool are_made_on_demand() const noexcept { return count_ > 0; }

  // To be called before a thread writes below `end`, and to call again does no harm. Another thread
  // may still be making some of the pages: then both do.
  void reach(const std::byte* end) noexcept;

  // All of them, by all threads.
  void reach_all() noexcept;

 private:
  // One huge page, or the small ones before the first (0) or after the last (count_ - 1).
  void make(std::size_t part) const noexcept;

  std::byte* begin_ = nullptr;
  std::byte* first_ = nullptr;  // huge page
  std::byte* last_ = nullptr;   // where the last one ends
  std::byte* end_ = nullptr;
  std::size_t count_ = 0;  // of the parts; none where they are not made on demand
  std::atomic<std::size_t> next_{0};
};

}  // namespace dlferry
