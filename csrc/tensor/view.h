// View: a strided block of elements somewhere, without saying who owns it.
//
// Strides are in *bytes* (as in NumPy and the buffer protocol), so that odd and negative ones can
// be described; DLPack's element strides are multiplied on the way in and divided on the way out.
// A View borrows `shape` and `strides`: whoever made it keeps them alive.
#pragma once

#include <cstddef>
#include <cstdint>

#include "abi/dlpack.h"
#include "tensor/dtype.h"

namespace dlferry {

inline constexpr int kMaxDims = 64;

struct View {
  std::byte* data = nullptr;  // of the element with index 0 in every axis
  const std::int64_t* shape = nullptr;
  const std::int64_t* strides = nullptr;  // bytes; meaningless on axes of length <= 1
  int ndim = 0;
  DType dtype = DType::kUInt8;
  bool swapped = false;  // elements are in foreign byte order
  dlpack::Device device{dlpack::kCPU, 0};
};

// What of a View's layout keeps a torch tensor from representing it. Axes of length <= 1 never do.
struct Layout {
  bool negative_stride = false;
  bool odd_stride = false;  // not a multiple of the item size
  bool misaligned = false;  // data not aligned to the item (complex numbers too)
};
[[nodiscard]] Layout layout_of(const View& view) noexcept;

[[nodiscard]] std::int64_t element_count(const View& view) noexcept;

// First and last-plus-one byte that any element touches; equal when there is no element.
struct Extent {
  const std::byte* begin;
  const std::byte* end;
};
[[nodiscard]] Extent extent_of(const View& view) noexcept;

// Whether two views touch a common byte range (conservative: interleaved views count).
[[nodiscard]] bool overlap(const View& a, const View& b) noexcept;

[[nodiscard]] bool is_contiguous(const View& view) noexcept;  // C order, no gaps

// Whether the elements fill their extent without gap or overlap, in some order of the axes.
[[nodiscard]] bool is_dense(const View& view) noexcept;

// Strides in elements, as torch wants them: never negative, and contiguous ones for a view without
// elements. `keep` takes those of the view where they can be expressed (an axis of length <= 1 may
// have any), otherwise they are C-contiguous. Null `view.strides` means C-contiguous too.
void element_strides(const View& view, bool keep, std::int64_t* out) noexcept;

// Why the memory that a view describes cannot exist, as a phrase for an error; null when it can:
// a negative length, a size or reach that overflows 64 bits, or null data with elements.
[[nodiscard]] const char* unreachable_reason(const View& view) noexcept;

}  // namespace dlferry
