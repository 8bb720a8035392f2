// What a View says about its layout.
#include <array>
#include <cstdint>
#include <initializer_list>
#include <string_view>
#include <vector>

#include "check.h"
#include "tensor/view.h"

namespace dlferry {
namespace {

alignas(64) std::array<std::byte, 4096> memory;

struct Owned {
  std::vector<std::int64_t> shape;
  std::vector<std::int64_t> strides;
  View view;
};

Owned make(DType dtype, std::initializer_list<std::int64_t> shape,
           std::initializer_list<std::int64_t> strides, std::size_t offset = 0) {
  Owned owned{shape, strides, {}};
  owned.view = {.data = memory.data() + offset,
                .shape = owned.shape.data(),
                .strides = owned.strides.data(),
                .ndim = static_cast<int>(shape.size()),
                .dtype = dtype};
  return owned;  // moving a vector keeps its memory
}

bool representable(const View& view) {
  const Layout layout = layout_of(view);
  return !layout.negative_stride && !layout.odd_stride && !layout.misaligned;
}

void layouts() {
  CHECK(representable(make(DType::kFloat32, {3, 4}, {16, 4}).view));
  CHECK(representable(make(DType::kFloat32, {3, 4}, {0, 4}).view));
  CHECK(layout_of(make(DType::kFloat32, {3, 4}, {16, -4}, 12).view).negative_stride);
  CHECK(layout_of(make(DType::kFloat32, {3}, {6}).view).odd_stride);
  CHECK(layout_of(make(DType::kFloat32, {3}, {4}, 2).view).misaligned);
  // Axes of length one, and arrays without elements, never prevent anything.
  CHECK(representable(make(DType::kFloat32, {1, 4}, {-7, 4}).view));
  CHECK(representable(make(DType::kFloat32, {0, 4}, {16, -3}, 1).view));
  // A complex number is aligned as a whole, to the size of both its parts.
  CHECK(representable(make(DType::kComplex64, {2}, {8}, 8).view));
  CHECK(layout_of(make(DType::kComplex64, {2}, {8}, 4).view).misaligned);
}

void contiguity() {
  CHECK(is_contiguous(make(DType::kInt16, {2, 3}, {6, 2}).view));
  CHECK(is_contiguous(make(DType::kInt16, {1, 3}, {99, 2}).view));
  CHECK(is_contiguous(make(DType::kInt16, {}, {}).view));
  CHECK(is_contiguous(make(DType::kInt16, {0, 3}, {1, 1}).view));
  CHECK(!is_contiguous(make(DType::kInt16, {2, 3}, {2, 4}).view));
  CHECK(is_dense(make(DType::kInt16, {2, 3}, {2, 4}).view));
  CHECK(!is_dense(make(DType::kInt16, {2, 3}, {8, 2}).view));
  CHECK(!is_dense(make(DType::kInt16, {2, 3}, {0, 2}).view));
}

void extents() {
  const Owned whole = make(DType::kInt32, {4}, {4});
  CHECK(extent_of(whole.view).begin == memory.data());
  CHECK(extent_of(whole.view).end == memory.data() + 16);
  const Owned reversed = make(DType::kInt32, {4}, {-4}, 12);
  CHECK(extent_of(reversed.view).begin == memory.data());
  CHECK(extent_of(reversed.view).end == memory.data() + 16);
  const Owned after = make(DType::kInt32, {4}, {4}, 16);
  const Owned none = make(DType::kInt32, {0}, {4}, 4);
  CHECK(overlap(whole.view, reversed.view));
  CHECK(!overlap(whole.view, after.view));
  CHECK(!overlap(whole.view, none.view));
  CHECK(element_count(make(DType::kInt32, {3, 0, 5}, {0, 0, 0}).view) == 0);
  CHECK(element_count(make(DType::kInt32, {}, {}).view) == 1);
}

void what_cannot_exist() {
  const auto reason = [](const Owned& owned) {
    const char* text = unreachable_reason(owned.view);
    return std::string_view{text != nullptr ? text : ""};
  };
  CHECK(reason(make(DType::kInt64, {3, 4}, {32, 8})).empty());
  CHECK(reason(make(DType::kInt64, {1}, {INT64_MIN})).empty());
  CHECK(!reason(make(DType::kInt64, {-1}, {8})).empty());
  CHECK(!reason(make(DType::kInt64, {INT64_MAX}, {8})).empty());
  CHECK(!reason(make(DType::kInt64, {INT64_MAX, INT64_MAX, 0}, {8, 8, 8})).empty());
  CHECK(!reason(make(DType::kInt64, {2}, {INT64_MIN})).empty());
  CHECK(!reason(make(DType::kInt64, {2, 2}, {INT64_MAX, INT64_MAX})).empty());
  Owned null = make(DType::kInt64, {2}, {8});
  null.view.data = nullptr;
  CHECK(!reason(null).empty());
  Owned empty = make(DType::kInt64, {0}, {8});
  empty.view.data = nullptr;
  CHECK(reason(empty).empty());
}

}  // namespace
}  // namespace dlferry

int main() {
  dlferry::layouts();
  dlferry::contiguity();
  dlferry::extents();
  dlferry::what_cannot_exist();
  return dlferry::test::finish();
}
