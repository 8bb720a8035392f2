// Ranges of random views against one element at a time.
#include <cstring>
#include <numeric>
#include <random>
#include <vector>

#include "check.h"
#include "tensor/kept_view.h"
#include "tensor/range.h"

namespace {

using namespace dlferry;

std::mt19937_64 rng(20261122);

std::int64_t up_to(std::int64_t most) {
  return std::uniform_int_distribution<std::int64_t>(0, most)(rng);
}

// A view of int32 with random axes, forwards, backwards, spread or repeated, over numbered memory.
struct Numbered {
  std::vector<std::int32_t> memory;
  std::vector<std::int64_t> shape, strides;
  View view;

  Numbered() {
    std::int64_t reach = 1, offset = 0;
    for (int ndim = static_cast<int>(up_to(4)); ndim > 0; --ndim) {
      const std::int64_t length = 1 + up_to(5), step = reach * (1 + up_to(1));
      const bool backwards = up_to(3) == 0;
      shape.insert(shape.begin(), length);
      strides.insert(strides.begin(), (backwards ? -step : step) * 4);
      if (backwards) offset += (length - 1) * step;
      reach = step * length;
    }
    memory.resize(static_cast<std::size_t>(reach));
    std::iota(memory.begin(), memory.end(), 1000);
    view.data = reinterpret_cast<std::byte*>(memory.data() + offset);
    view.shape = shape.data();
    view.strides = strides.data();
    view.ndim = static_cast<int>(shape.size());
    view.dtype = DType::kInt32;
  }

  [[nodiscard]] std::int32_t* element(std::int64_t index) const {
    std::byte* at = view.data;
    for (int i = view.ndim - 1; i >= 0; --i) {
      at += index % view.shape[i] * view.strides[i];
      index /= view.shape[i];
    }
    return reinterpret_cast<std::int32_t*>(at);
  }
};

void packs_and_unpacks_any_range() {
  for (int round = 0; round < 3000; ++round) {
    Numbered source;
    const std::int64_t all = element_count(source.view);
    const std::int64_t first = up_to(all), count = up_to(all - first);
    std::vector<double> packed(static_cast<std::size_t>(count) + 1, -1);
    const KeptView kept(source.view);
    pack_range(reinterpret_cast<std::byte*>(packed.data()), DType::kFloat64, *kept, first, count);
    CHECK(packed.back() == -1);
    for (std::int64_t i = 0; i < count; ++i) {
      CHECK(packed[static_cast<std::size_t>(i)] == *source.element(first + i));
    }
    for (std::int64_t i = 0; i < count; ++i) packed[static_cast<std::size_t>(i)] *= -1;
    const std::vector<std::int32_t> before = source.memory;
    unpack_range(source.view, reinterpret_cast<const std::byte*>(packed.data()), DType::kFloat64,
                 first, count);
    std::int64_t changed = 0;
    for (std::size_t i = 0; i < before.size(); ++i) changed += before[i] != source.memory[i];
    CHECK(changed == count);
    for (std::int64_t i = 0; i < count; ++i) {
      CHECK(*source.element(first + i) == packed[static_cast<std::size_t>(i)]);
    }
  }
}

void unpacks_to_foreign_byte_order() {
  std::vector<std::uint32_t> memory(10, 7), packed{0x01020304, 0xA0B0C0D0};
  const std::int64_t shape[] = {5}, strides[] = {8};
  const View every_other{.data = reinterpret_cast<std::byte*>(memory.data()),
                         .shape = shape,
                         .strides = strides,
                         .ndim = 1,
                         .dtype = DType::kUInt32,
                         .swapped = true};
  unpack_range(every_other, reinterpret_cast<const std::byte*>(packed.data()), DType::kUInt32, 1,
               2);
  CHECK(memory == std::vector<std::uint32_t>({7, 7, 0x04030201, 7, 0xD0C0B0A0, 7, 7, 7, 7, 7}));
}

}  // namespace

int main() {
  packs_and_unpacks_any_range();
  unpacks_to_foreign_byte_order();
  return dlferry::test::finish();
}
