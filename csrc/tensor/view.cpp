#include "tensor/view.h"

#include <algorithm>
#include <array>
#include <cstdlib>
#include <functional>
#include <numeric>

namespace dlferry {
namespace {

bool is_empty(const View& view) noexcept {
  return std::any_of(view.shape, view.shape + view.ndim,
                     [](std::int64_t length) { return length == 0; });
}

}  // namespace

Layout layout_of(const View& view) noexcept {
  Layout layout;
  const auto within_item = static_cast<std::int64_t>(item_size(view.dtype)) - 1;
  if (is_empty(view)) return layout;
  for (int axis = 0; axis < view.ndim; ++axis) {
    if (view.shape[axis] <= 1) continue;
    layout.negative_stride |= view.strides[axis] < 0;
    layout.odd_stride |= (view.strides[axis] & within_item) != 0;
  }
  // NumPy is content with a complex number whose parts are aligned; torch wants the whole.
  layout.misaligned =
      (reinterpret_cast<std::uintptr_t>(view.data) & static_cast<std::uintptr_t>(within_item)) != 0;
  return layout;
}

std::int64_t element_count(const View& view) noexcept {
  return std::accumulate(view.shape, view.shape + view.ndim, std::int64_t{1}, std::multiplies<>());
}

Extent extent_of(const View& view) noexcept {
  const std::byte* low = view.data;
  const std::byte* high = view.data;
  if (is_empty(view)) return {low, high};
  for (int axis = 0; axis < view.ndim; ++axis) {
    const std::int64_t reach = (view.shape[axis] - 1) * view.strides[axis];
    (reach < 0 ? low : high) += reach;
  }
  return {low, high + item_size(view.dtype)};
}

bool overlap(const View& a, const View& b) noexcept {
  if (is_empty(a) || is_empty(b)) return false;
  const Extent left = extent_of(a);
  const Extent right = extent_of(b);
  return left.begin < right.end && right.begin < left.end;
}

bool is_contiguous(const View& view) noexcept {
  if (is_empty(view)) return true;
  auto expected = static_cast<std::int64_t>(item_size(view.dtype));
  for (int axis = view.ndim - 1; axis >= 0; --axis) {
    if (view.shape[axis] == 1) continue;
    if (view.strides[axis] != expected) return false;
    expected *= view.shape[axis];
  }
  return true;
}

bool is_dense(const View& view) noexcept {
  if (is_empty(view)) return true;
  std::array<int, kMaxDims> axes;
  int count = 0;
  for (int axis = 0; axis < view.ndim; ++axis) {
    if (view.shape[axis] > 1) axes[static_cast<std::size_t>(count++)] = axis;
  }
  std::sort(axes.begin(), axes.begin() + count,
            [&](int a, int b) { return view.strides[a] < view.strides[b]; });
  auto expected = static_cast<std::int64_t>(item_size(view.dtype));
  for (int i = 0; i < count; ++i) {
    const int axis = axes[static_cast<std::size_t>(i)];
    if (view.strides[axis] != expected) return false;
    expected *= view.shape[axis];
  }
  return true;
}

void element_strides(const View& view, bool keep, std::int64_t* out) noexcept {
  const int shift = info(view.dtype).log2_size;
  const auto within_item = (std::int64_t{1} << shift) - 1;
  const bool empty = is_empty(view);
  std::int64_t contiguous = 1;
  for (int axis = view.ndim - 1; axis >= 0; --axis) {
    const std::int64_t stride = view.strides != nullptr ? view.strides[axis] : -1;
    const bool usable = stride >= 0 && (stride & within_item) == 0;
    out[axis] = keep && !empty && usable ? stride >> shift : contiguous;
    contiguous *= std::max<std::int64_t>(view.shape[axis], 1);
  }
}

const char* unreachable_reason(const View& view) noexcept {
  std::int64_t bytes = static_cast<std::int64_t>(item_size(view.dtype));
  std::int64_t below = 0;
  std::int64_t above = bytes;
  bool empty = false;
  for (int axis = 0; axis < view.ndim; ++axis) {
    const std::int64_t length = view.shape[axis];
    if (length < 0) return "a negative length in its shape";
    if (length == 0) empty = true;
    // The product of the other lengths must fit even when one of them is 0: torch multiplies them.
    if (length > 1 && __builtin_mul_overflow(bytes, length, &bytes)) {
      return "a shape whose size overflows 64 bits";
    }
    if (length <= 1 || view.strides == nullptr) continue;
    std::int64_t span;
    std::int64_t& side = view.strides[axis] < 0 ? below : above;
    if (view.strides[axis] == INT64_MIN ||
        __builtin_mul_overflow(std::abs(view.strides[axis]), length - 1, &span) ||
        __builtin_add_overflow(side, span, &side)) {
      return "strides that reach beyond 64 bits";
    }
  }
  if (empty) return nullptr;
  if (view.data == nullptr) return "a null data pointer";
  const auto address = static_cast<std::int64_t>(reinterpret_cast<std::intptr_t>(view.data));
  std::int64_t end;
  if (address < below || __builtin_add_overflow(address, above, &end)) {
    return "elements outside the address space";
  }
  return nullptr;
}

}  // namespace dlferry
