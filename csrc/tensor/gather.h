// Gather: reads elements that lie a fixed distance apart into a contiguous run in native byte
// order.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>

namespace dlferry {

// How one 16-byte load becomes one 16-byte store of as many groups as both can hold.
struct Shuffle {
  alignas(16) std::array<std::uint8_t, 16> from;  // for each byte stored, which of those loaded
  std::int64_t load_at;                           // where to load from, from the first group on
  std::int64_t groups;                            // per load
};

// One axis of elements or, since loops over two or three elements are slow, one axis of short runs
// of elements. Resolved once, for the many runs of a copy.
class Gather {
 public:
  static constexpr std::int64_t kMostBytes = 16;

  // Groups of one element of `item` bytes (a power of two up to 16), `stride` bytes apart (any
  // sign, odd or zero), each made of units of `swap_size` bytes to be reversed (1: none).
  Gather(std::size_t item, std::size_t swap_size, std::int64_t stride) noexcept;

  // Groups of `count` elements, `step` bytes apart in the group. `fits` tells whether there can be
  // such groups: neither what is read nor what is written may exceed kMostBytes.
  Gather(std::size_t item, std::size_t swap_size, std::int64_t count, std::int64_t step,
         std::int64_t stride) noexcept;
  [[nodiscard]] static bool fits(std::size_t item, std::int64_t count, std::int64_t step) noexcept;

  // Reads `count` groups, the first one's first element at `src`, to dst[0, count * bytes()).
  void run(std::byte* dst, const std::byte* src, std::int64_t count) const noexcept;

  [[nodiscard]] std::int64_t bytes() const noexcept { return bytes_; }  // of one group

 private:
  void prepare_shuffle() noexcept;
  void run_shuffled(std::byte* dst, const std::byte* src, std::int64_t loads) const noexcept;
  void run_one_by_one(std::byte* dst, const std::byte* src, std::int64_t count) const noexcept;
  [[nodiscard]] std::int64_t safe_loads(std::int64_t count) const noexcept;

  std::int64_t item_;
  std::int64_t swap_size_;
  std::int64_t in_group_;  // elements
  std::int64_t step_;
  std::int64_t stride_;
  std::int64_t bytes_;
  std::int64_t lowest_;  // the group's first byte in memory, from its first element
  std::int64_t span_;    // and how many bytes from there to its last
  bool contiguous_;
  Shuffle shuffle_{};  // no groups: not used
};

}  // namespace dlferry
