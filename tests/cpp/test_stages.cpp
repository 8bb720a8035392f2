// The stages behind host_copy, each forced to do what only large copies ask of it: rows and tiles
// with streaming stores, gathers of every kind at the edges of their memory, pages.
#include <sys/mman.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cstdint>
#include <cstring>
#include <numeric>
#include <random>
#include <vector>

#include "check.h"
#include "tensor/box.h"
#include "tensor/gather.h"
#include "tensor/kernels.h"
#include "tensor/pages.h"
#include "tensor/rows.h"
#include "tensor/stream_copy.h"
#include "tensor/tiles.h"

namespace dlferry {
namespace {

using Random = std::mt19937_64;

std::int64_t below(Random& random, std::int64_t limit) {
  return static_cast<std::int64_t>(random() % static_cast<std::uint64_t>(limit));
}

// Numbers that survive every cast between the types in use here.
constexpr std::int64_t kValues = 100;

template <class T>
T read(const std::byte* from) {
  T value;
  std::memcpy(&value, from, sizeof value);
  return value;
}

// Copies a matrix whose source is transposed, and checks every element and the gaps between rows.
template <class To, class From>
void transposed(Random& random, DType to, DType from, std::int64_t rows, std::int64_t columns,
                std::int64_t gap, bool stream) {
  constexpr auto kTo = static_cast<std::int64_t>(sizeof(To));
  constexpr auto kFrom = static_cast<std::int64_t>(sizeof(From));
  const std::int64_t shape[] = {rows, columns};
  const std::int64_t to_strides[] = {(columns + gap) * kTo, kTo};
  const std::int64_t from_strides[] = {kFrom, rows * kFrom};
  std::vector<From> values(static_cast<std::size_t>(rows * columns));
  for (From& value : values) value = static_cast<From>(below(random, kValues));
  std::vector<To> result(static_cast<std::size_t>(rows * (columns + gap)), To{111});

  const View dst{reinterpret_cast<std::byte*>(result.data()), shape, to_strides, 2, to};
  const View src{reinterpret_cast<std::byte*>(values.data()), shape, from_strides, 2, from};
  Conversion conversion{sizeof(From), sizeof(To), 1, {}, stream};
  if (to != from) conversion.cast.emplace(to, from);
  const Box box = make_box(dst, src);
  const std::optional<int> across = tile_axis(box);
  CHECK(across.has_value() == (rows > 1 && columns > 1));
  if (across) copy_tiles(box, *across, conversion);
  if (!across) copy_rows(box, conversion);

  bool right = true;
  for (std::int64_t i = 0; i < rows; ++i) {
    for (std::int64_t j = 0; j < columns + gap; ++j) {
      const To expected =
          j < columns ? static_cast<To>(values[static_cast<std::size_t>(j * rows + i)]) : To{111};
      right &= result[static_cast<std::size_t>(i * (columns + gap) + j)] == expected;
    }
  }
  CHECK(right);
}

void tiles() {
  Random random(1);
  for (int i = 0; i < 150; ++i) {
    const std::int64_t rows = 1 + below(random, 400), columns = 1 + below(random, 400);
    const std::int64_t gap = below(random, 3);
    const bool stream = i % 2 == 0;
    transposed<float, float>(random, DType::kFloat32, DType::kFloat32, rows, columns, gap, stream);
    transposed<std::uint8_t, std::uint8_t>(random, DType::kUInt8, DType::kUInt8, rows, columns, gap,
                                           stream);
    transposed<std::int16_t, std::int16_t>(random, DType::kInt16, DType::kInt16, rows, columns, gap,
                                           stream);
    transposed<double, std::int32_t>(random, DType::kFloat64, DType::kInt32, rows, columns, gap,
                                     stream);
    transposed<std::uint8_t, double>(random, DType::kUInt8, DType::kFloat64, rows, columns, gap,
                                     stream);
  }
  for (const std::int64_t channels : {2, 3, 4}) {
    transposed<std::uint8_t, std::uint8_t>(random, DType::kUInt8, DType::kUInt8, channels, 7001, 0,
                                           true);
    transposed<float, std::uint8_t>(random, DType::kFloat32, DType::kUInt8, 7001, channels, 0,
                                    true);
  }
}

// Groups of `count` elements, `step` apart, from a buffer that is exactly as large as they need:
// the address sanitizer sees a load or store too many.
void gathered(Random& random, std::size_t item, std::size_t unit, std::int64_t count,
              std::int64_t step, std::int64_t stride, std::int64_t groups) {
  const auto size = static_cast<std::int64_t>(item);
  const std::int64_t reach = (count - 1) * step, way = (groups - 1) * stride;
  const std::int64_t low = std::min<std::int64_t>(0, reach) + std::min<std::int64_t>(0, way);
  const std::int64_t high = std::max<std::int64_t>(0, reach) + std::max<std::int64_t>(0, way);
  std::vector<std::byte> source(static_cast<std::size_t>(high - low + size));
  for (std::byte& byte : source) byte = static_cast<std::byte>(random());
  std::vector<std::byte> result(static_cast<std::size_t>(groups * count * size));
  const std::byte* first = source.data() - low;
  Gather(item, unit, count, step, stride).run(result.data(), first, groups);
  bool right = true;
  for (std::int64_t i = 0; i < groups * count; ++i) {
    const std::byte* from = first + i / count * stride + i % count * step;
    std::array<std::byte, 16> expected;
    std::copy_n(from, item, expected.begin());
    for (std::size_t at = 0; at < item; at += unit) {
      if (unit > 1) std::reverse(expected.begin() + at, expected.begin() + at + unit);
    }
    right &= std::memcmp(result.data() + i * size, expected.data(), item) == 0;
  }
  CHECK(right);
}

void gathers() {
  Random random(2);
  for (const std::size_t item : {1U, 2U, 4U, 8U, 16U}) {
    // Byte order as it is, that of the element, or that of half of it (a complex number's part).
    const auto unit = [&] {
      const std::size_t units[] = {1, std::min<std::size_t>(item, 8), item > 2 ? item / 2 : 1};
      return units[below(random, 3)];
    };
    for (const std::int64_t groups : {1, 2, 5, 16, 17, 100}) {
      for (std::int64_t stride = -40; stride <= 40; ++stride) {
        gathered(random, item, unit(), 1, static_cast<std::int64_t>(item), stride, groups);
      }
      for (int i = 0; i < 60; ++i) {
        const std::int64_t count = 2 + below(random, 15), step = below(random, 33) - 16;
        if (!Gather::fits(item, count, step)) continue;
        gathered(random, item, unit(), count, step, below(random, 90) - 45, groups);
      }
    }
  }
}

void streams() {
  Random random(3);
  std::vector<std::byte> source(1000);
  for (std::byte& byte : source) byte = static_cast<std::byte>(random());
  for (int i = 0; i < 2000; ++i) {
    const auto from = static_cast<std::size_t>(below(random, 300));
    const auto to = static_cast<std::size_t>(below(random, 300));
    const auto bytes = static_cast<std::size_t>(below(random, 600));
    std::vector<std::byte> result(1000), expected(1000);
    stream_copy(result.data() + to, source.data() + from, bytes);
    finish_streams();
    if (bytes > 0) std::memcpy(expected.data() + to, source.data() + from, bytes);
    CHECK(result == expected);
  }
}

void pages() {
  constexpr std::size_t kBytes = (std::size_t{9} << 20) + 12345;
  void* memory = mmap(nullptr, kBytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  CHECK(memory != MAP_FAILED);
  auto* data = static_cast<std::byte*>(memory);
  data[0] = data[kBytes - 1] = std::byte{7};
  NewPages(data + 1, kBytes - 2, /*on_demand=*/false).reach_all();
  NewPages(data + 1, 100).reach_all();  // too small for any
  NewPages(data + 1, 0).reach_all();
  CHECK(data[0] == std::byte{7} && data[kBytes - 1] == std::byte{7});
  CHECK(std::all_of(data + 1, data + kBytes - 1, [](std::byte b) { return b == std::byte{0}; }));
  // On demand, what has been written stays: another thread may have been faster.
  std::fill_n(data, kBytes, std::byte{7});
  NewPages pages(data, kBytes, /*on_demand=*/true);
  for (std::size_t end = 0; end < kBytes; end += 700'000) pages.reach(data + end);
  pages.reach(data + kBytes);
  pages.reach_all();
  CHECK(std::all_of(data, data + kBytes, [](std::byte b) { return b == std::byte{7}; }));
  munmap(memory, kBytes);
}

bool is_resident(std::byte* data, std::size_t bytes) {
  std::vector<unsigned char> pages((bytes + 4095) / 4096);
  CHECK(mincore(data, bytes, pages.data()) == 0);
  return std::all_of(pages.begin(), pages.end(), [](unsigned char page) { return page & 1; });
}

// The edges are there before they are written to, and nothing long before. (What is between is up
// to the system: huge pages may be turned off.)
void pages_on_demand() {
  constexpr std::size_t kHuge = std::size_t{2} << 20, kBytes = 5 * kHuge;
  if (!makes_pages() || sysconf(_SC_PAGESIZE) != 4096) return;
  constexpr std::size_t kPage = 4096;
  void* memory = mmap(nullptr, kBytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  CHECK(memory != MAP_FAILED);
  auto* data = static_cast<std::byte*>(memory);
  {
    NewPages pages(data + 64, kBytes - 128);
    if (!pages.are_made_on_demand()) return;  // a system without huge pages
    pages.reach(data + 65);
    CHECK(is_resident(data, kPage) && !is_resident(data + kBytes - kPage, kPage));
    pages.reach(data + kBytes - 64);
    CHECK(is_resident(data, kPage) && is_resident(data + kBytes - kPage, kPage));
  }
  munmap(memory, kBytes);
}

}  // namespace
}  // namespace dlferry

int main() {
  dlferry::tiles();
  dlferry::gathers();
  dlferry::streams();
  dlferry::pages();
  dlferry::pages_on_demand();
  return dlferry::test::finish();
}
