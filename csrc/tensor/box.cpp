#include "tensor/box.h"

#include <algorithm>

namespace dlferry {
namespace {

// Whether `outer` goes on where `inner` ends, on both sides.
bool continues(const Axis& outer, const Axis& inner) noexcept {
  return outer.dst == inner.count * inner.dst && outer.src == inner.count * inner.src;
}

}  // namespace

Box make_box(const View& dst, const View& src) noexcept {
  Box box(dst.data, src.data);
  const auto begin = box.axes.begin();
  for (int i = 0; i < dst.ndim; ++i) {
    Axis axis{dst.shape[i], dst.strides[i], src.strides[i]};
    if (axis.count == 1) continue;
    if (axis.dst < 0) {  // walk it from its other end
      box.dst += (axis.count - 1) * axis.dst;
      box.src += (axis.count - 1) * axis.src;
      axis = {axis.count, -axis.dst, -axis.src};
    }
    box.append(axis);
  }
  if (box.ndim == 0) box.append({1, 0, 0});
  std::sort(begin, begin + box.ndim, [](const Axis& a, const Axis& b) { return a.dst > b.dst; });
  int last = 0;
  for (int i = 1; i < box.ndim; ++i) {
    Axis& outer = begin[last];
    const Axis& inner = begin[i];
    if (continues(outer, inner)) {
      outer = {outer.count * inner.count, inner.dst, inner.src};
    } else {
      begin[++last] = inner;
    }
  }
  box.ndim = last + 1;
  return box;
}

Box without_inner(const Box& box) noexcept {
  Box outer = box;
  --outer.ndim;
  return outer;
}

std::int64_t element_count(const Box& box) noexcept {
  std::int64_t count = 1;
  for (int i = 0; i < box.ndim; ++i) count *= box.axes[static_cast<std::size_t>(i)].count;
  return count;
}

bool is_dense(const Box& box, std::int64_t item) noexcept {
  std::int64_t expected = item;
  for (int i = box.ndim - 1; i >= 0; --i) {
    const Axis& axis = box.axes[static_cast<std::size_t>(i)];
    if (axis.count > 1 && axis.dst != expected) return false;
    expected *= axis.count;
  }
  return true;
}

}  // namespace dlferry
