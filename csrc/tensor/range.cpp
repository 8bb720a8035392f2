#include "tensor/range.h"

#include <algorithm>
#include <array>
#include <utility>

#include "tensor/host_copy.h"

namespace dlferry {
namespace {

using Lengths = std::array<std::int64_t, kMaxDims>;

// Calls `copy(part)` with the parts of `view` that make up elements [first, first + count), in
// order: the end of one row, whole rows, the beginning of another, and so on for each axis.
template <class Copy>
void for_each_part(View view, std::int64_t first, std::int64_t count, const Copy& copy) {
  // Leading axes of which only one index is touched are gone before anything is copied.
  while (count > 0 && view.ndim > 0) {
    const View row{.data = view.data,
                   .shape = view.shape + 1,
                   .strides = view.strides + 1,
                   .ndim = view.ndim - 1,
                   .dtype = view.dtype,
                   .swapped = view.swapped,
                   .device = view.device};
    const std::int64_t per_row = element_count(row);
    const auto row_at = [&](std::int64_t index) {
      View at = row;
      at.data += index * view.strides[0];
      return at;
    };
    const std::int64_t skipped = first % per_row;
    if (skipped > 0 || count < per_row) {  // the end of a row, or all that is wanted
      const std::int64_t some = std::min(count, per_row - skipped);
      if (some == count) {
        view = row_at(first / per_row);
        first = skipped;
        continue;
      }
      for_each_part(row_at(first / per_row), skipped, some, copy);
      first += some;
      count -= some;
    }
    if (const std::int64_t rows = count / per_row; rows > 0) {
      Lengths shape;
      shape[0] = rows;
      std::copy_n(view.shape + 1, view.ndim - 1, shape.begin() + 1);
      View part = view;
      part.data += first / per_row * view.strides[0];
      part.shape = shape.data();
      copy(part);
      first += rows * per_row;
      count -= rows * per_row;
    }
  }
  if (count > 0) copy(view);  // a single element
}

// Calls `copy(packed, part)` for each part, with the view of its elements in packed memory.
template <class Copy>
void with_packed(std::byte* packed, DType dtype, const View& view, std::int64_t first,
                 std::int64_t count, const Copy& copy) {
  for_each_part(view, first, count, [&](const View& part) {
    Lengths strides;
    std::int64_t bytes = static_cast<std::int64_t>(item_size(dtype));
    for (int i = part.ndim - 1; i >= 0; --i) {
      strides[static_cast<std::size_t>(i)] = bytes;
      bytes *= part.shape[i];
    }
    copy(View{.data = packed,
              .shape = part.shape,
              .strides = strides.data(),
              .ndim = part.ndim,
              .dtype = dtype},
         part);
    packed += bytes;
  });
}

}  // namespace

void pack_range(std::byte* packed, DType dtype, const View& src, std::int64_t first,
                std::int64_t count) noexcept {
  with_packed(packed, dtype, src, first, count,
              [](const View& to, const View& part) { host_copy(to, part); });
}

void unpack_range(const View& dst, const std::byte* packed, DType dtype, std::int64_t first,
                  std::int64_t count) noexcept {
  // The views are alike on both ways, and this one is only read.
  with_packed(const_cast<std::byte*>(packed), dtype, dst, first, count,
              [](const View& from, const View& part) {
                View to = part, swapped = from;  // whoever swaps, it comes to the same
                std::swap(to.swapped, swapped.swapped);
                host_copy(to, swapped);
              });
}

}  // namespace dlferry
