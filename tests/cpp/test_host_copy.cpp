// host_copy against one element at a time: any strides, byte order, overlap of the source with
// itself, and sizes on both sides of the thresholds for threads and streaming stores.
#include <algorithm>
#include <array>
#include <cstdint>
#include <cstring>
#include <limits>
#include <numeric>
#include <random>
#include <thread>
#include <vector>

#include "check.h"
#include "tensor/host_copy.h"
#include "tensor/workers.h"

namespace dlferry {
namespace {

using Random = std::mt19937_64;

std::int64_t below(Random& random, std::int64_t limit) {
  return static_cast<std::int64_t>(random() % static_cast<std::uint64_t>(limit));
}

// A view with memory of its own, exactly as large as its extent: a step outside is seen by the
// address sanitizer.
struct Block {
  std::vector<std::byte> memory;
  std::vector<std::int64_t> shape;
  std::vector<std::int64_t> strides;
  View view;

  Block(DType dtype, std::vector<std::int64_t> lengths, std::vector<std::int64_t> steps)
      : shape(std::move(lengths)), strides(std::move(steps)) {
    std::int64_t low = 0;
    std::int64_t high = static_cast<std::int64_t>(item_size(dtype));
    for (std::size_t i = 0; i < shape.size(); ++i) {
      const std::int64_t reach = std::max<std::int64_t>(shape[i] - 1, 0) * strides[i];
      (reach < 0 ? low : high) += reach;
    }
    memory.resize(static_cast<std::size_t>(high - low));
    view = {.data = memory.data() - low,
            .shape = shape.data(),
            .strides = strides.data(),
            .ndim = static_cast<int>(shape.size()),
            .dtype = dtype};
  }
};

std::vector<std::int64_t> dense_strides(const std::vector<std::int64_t>& shape, std::int64_t item,
                                        const std::vector<std::size_t>& order) {
  std::vector<std::int64_t> strides(shape.size());
  for (const std::size_t axis : order) {
    strides[axis] = item;
    item *= std::max<std::int64_t>(shape[axis], 1);
  }
  return strides;
}

// Calls `visit` with the addresses of each pair of elements.
template <class Visit>
void for_each(const View& a, const View& b, Visit visit) {
  if (element_count(a) == 0) return;
  std::vector<std::int64_t> index(static_cast<std::size_t>(a.ndim));
  for (;;) {
    const std::byte* left = a.data;
    const std::byte* right = b.data;
    for (std::size_t i = 0; i < index.size(); ++i) {
      left += index[i] * a.strides[i];
      right += index[i] * b.strides[i];
    }
    visit(left, right);
    std::size_t axis = index.size();
    while (axis > 0 && ++index[axis - 1] == a.shape[axis - 1]) index[--axis] = 0;
    if (axis == 0) return;
  }
}

void same_dtype(Random& random) {
  const auto dtype = static_cast<DType>(below(random, kDTypeCount));
  const auto item = static_cast<std::int64_t>(item_size(dtype));
  std::vector<std::int64_t> shape(static_cast<std::size_t>(below(random, 5)));
  for (std::int64_t& length : shape) length = below(random, 12);
  std::vector<std::int64_t> strides(shape.size());
  for (std::int64_t& stride : strides) {
    stride = below(random, 2) == 0 ? below(random, 9) * item : below(random, 121);
    if (below(random, 3) == 0) stride = -stride;
  }
  std::vector<std::size_t> order(shape.size());
  std::iota(order.rbegin(), order.rend(), std::size_t{0});
  if (below(random, 2) == 0) std::shuffle(order.begin(), order.end(), random);

  Block src(dtype, shape, strides);
  Block dst(dtype, shape, dense_strides(shape, item, order));
  for (std::byte& value : src.memory) value = static_cast<std::byte>(random());
  src.view.swapped = below(random, 3) == 0;
  host_copy(dst.view, src.view);

  const std::size_t unit = info(dtype).swap_size;
  for_each(dst.view, src.view, [&](const std::byte* to, const std::byte* from) {
    std::array<std::byte, 16> expected;
    std::copy_n(from, item, expected.begin());
    for (std::size_t at = 0; src.view.swapped && at < item_size(dtype); at += unit) {
      std::reverse(expected.begin() + at, expected.begin() + at + unit);
    }
    CHECK(std::memcmp(to, expected.data(), item_size(dtype)) == 0);
  });
}

// A cast that every value of `From` in use survives exactly, or as static_cast has it.
template <class To, class From>
void cast(Random& random, DType to, DType from, std::int64_t count, std::int64_t step) {
  const auto size = static_cast<std::int64_t>(sizeof(From));
  Block src(from, {count}, {step * size});
  Block dst(to, {count}, {static_cast<std::int64_t>(sizeof(To))});
  for (std::size_t at = 0; at + sizeof(From) <= src.memory.size(); at += sizeof(From)) {
    const auto value = static_cast<From>(below(random, 120));
    std::memcpy(src.memory.data() + at, &value, sizeof value);
  }
  host_copy(dst.view, src.view);
  for_each(dst.view, src.view, [](const std::byte* left, const std::byte* right) {
    To to_value;
    From from_value;
    std::memcpy(&to_value, left, sizeof to_value);
    std::memcpy(&from_value, right, sizeof from_value);
    CHECK(to_value == static_cast<To>(from_value));
  });
}

void casts(Random& random) {
  for (const std::int64_t count : {0, 1, 3, 16, 33, 1000, 100'000}) {
    for (const std::int64_t step : {1, 2, 3, -1}) {
      cast<float, std::uint8_t>(random, DType::kFloat32, DType::kUInt8, count, step);
      cast<double, std::int32_t>(random, DType::kFloat64, DType::kInt32, count, step);
      cast<std::int64_t, double>(random, DType::kInt64, DType::kFloat64, count, step);
      cast<std::int8_t, std::uint16_t>(random, DType::kInt8, DType::kUInt16, count, step);
      cast<bool, std::int64_t>(random, DType::kBool, DType::kInt64, count, step);
    }
  }
}

void large(Random& random, std::int64_t rows, std::int64_t columns, bool transposed, bool swapped) {
  const std::vector<std::int64_t> shape{rows, columns};
  const std::vector<std::int64_t> by_row{columns * 4, 4};
  const std::vector<std::int64_t> by_column{4, rows * 4};
  Block src(DType::kInt32, shape, transposed ? by_column : by_row);
  Block dst(DType::kInt32, shape, by_row);
  const auto seed = static_cast<std::uint32_t>(random());
  for (std::size_t i = 0; i < src.memory.size() / 4; ++i) {
    const std::uint32_t value = seed + static_cast<std::uint32_t>(i) * 2654435761U;
    std::memcpy(src.memory.data() + 4 * i, &value, 4);
  }
  src.view.swapped = swapped;
  host_copy(dst.view, src.view);
  for_each(dst.view, src.view, [&](const std::byte* left, const std::byte* right) {
    std::uint32_t to;
    std::uint32_t from;
    std::memcpy(&to, left, 4);
    std::memcpy(&from, right, 4);
    CHECK(to == (swapped ? __builtin_bswap32(from) : from));
  });
}

void copies_side_by_side() {
  std::vector<std::thread> threads;
  for (std::uint64_t seed = 0; seed < 3; ++seed) {
    threads.emplace_back([seed] {
      Random random(seed);
      for (int i = 0; i < 3; ++i) large(random, 1000, 513, i % 2 == 0, false);
    });
  }
  for (std::thread& thread : threads) thread.join();
}

}  // namespace
}  // namespace dlferry

int main() {
  using namespace dlferry;
  Random random(20260522);
  for (int i = 0; i < 3000; ++i) same_dtype(random);
  casts(random);
  for (const int workers : {1, 3}) {
    set_worker_count(workers);
    for (const bool swapped : {false, true}) {
      large(random, 1025, 1023, false, swapped);
      large(random, 1025, 1023, true, swapped);
    }
    large(random, 3, 9'000'000, false, false);
  }
  copies_side_by_side();
  return dlferry::test::finish();
}
