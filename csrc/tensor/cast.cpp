#include "tensor/cast.h"

#include <algorithm>

#include "tensor/kernels.h"

namespace dlferry {
namespace {

constexpr std::size_t kBetween = 512;  // floats on the stack between two steps

template <class List>
constexpr int index_in(const List& list, DType dtype) {
  for (std::size_t i = 0; i < list.size(); ++i) {
    if (list[i] == dtype) return static_cast<int>(i);
  }
  return -1;
}

CastRun plain_cast(DType to, DType from) noexcept {
  const int row = index_in(kPlainTypes, to), column = index_in(kPlainTypes, from);
  if (row < 0 || column < 0) return nullptr;
  return kernels().plain[static_cast<std::size_t>(row)][static_cast<std::size_t>(column)];
}

// One step that ends in float32, whatever the source.
CastRun widen(DType from) noexcept {
  const int index = index_in(kSmallTypes, from);
  return index < 0 ? plain_cast(DType::kFloat32, from)
                   : kernels().widen[static_cast<std::size_t>(index)];
}

// One step that starts from float32, whatever the destination.
CastRun narrow(DType to) noexcept {
  const int index = index_in(kSmallTypes, to);
  return index < 0 ? plain_cast(to, DType::kFloat32)
                   : kernels().narrow[static_cast<std::size_t>(index)];
}

}  // namespace

Cast::Cast(DType to, DType from) noexcept : from_size_(item_size(from)), to_size_(item_size(to)) {
  if (to == DType::kFloat32) {
    first_ = widen(from);
  } else if (from == DType::kFloat32) {
    first_ = narrow(to);
  } else if (!(first_ = plain_cast(to, from))) {
    first_ = widen(from);
    second_ = narrow(to);
  }
}

void Cast::apply(std::byte* dst, const std::byte* src, std::size_t count) const noexcept {
  if (!second_) return first_(dst, src, count);
  alignas(64) std::byte between[kBetween * sizeof(float)];
  for (std::size_t done = 0; done < count; done += kBetween) {
    const std::size_t some = std::min(kBetween, count - done);
    first_(between, src + done * from_size_, some);
    second_(dst + done * to_size_, between, some);
  }
}

}  // namespace dlferry
