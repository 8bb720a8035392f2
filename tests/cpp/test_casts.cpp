// Casts: what torch promises value by value, the small floats code by code, and all instruction
// sets bit by bit against each other.
#include <array>
#include <bit>
#include <cmath>
#include <cstdint>
#include <cstring>
#include <limits>
#include <random>
#include <vector>

#include "check.h"
#include "tensor/cast.h"
#include "tensor/kernels.h"
#include "tensor/machine.h"

namespace dlferry {
namespace {

constexpr double kInf = std::numeric_limits<double>::infinity();
constexpr double kNaN = std::numeric_limits<double>::quiet_NaN();

template <class To, class From>
To cast(DType to, DType from, From value) {
  To result;
  Cast(to, from).apply(reinterpret_cast<std::byte*>(&result),
                       reinterpret_cast<const std::byte*>(&value), 1);
  return result;
}

// The code of `value` in a small format, by way of double, as torch converts.
template <class Code>
Code code(DType to, double value) {
  return cast<Code>(to, DType::kFloat64, value);
}

void truncation_and_wrapping() {
  const auto u8 = [](double value) {
    return int{cast<std::uint8_t>(DType::kUInt8, DType::kFloat64, value)};
  };
  CHECK(u8(1.9) == 1 && u8(-1.5) == 255 && u8(300) == 44 && u8(3e9 + 1) == 1);
  CHECK(u8(kNaN) == 0 && u8(kInf) == 0);
  const auto i32 = [](float value) {
    return cast<std::int32_t>(DType::kInt32, DType::kFloat32, value);
  };
  constexpr auto kLowest = std::numeric_limits<std::int32_t>::min();
  CHECK(i32(-7.9F) == -7 && i32(3e9F) == kLowest && i32(-3e9F) == kLowest);
  CHECK(i32(std::nanf("")) == kLowest);
  CHECK(cast<std::uint32_t>(DType::kUInt32, DType::kFloat64, 4e9) == 4'000'000'000U);
  CHECK(cast<std::uint64_t>(DType::kUInt64, DType::kFloat64, 0x1p63) == std::uint64_t{1} << 63);
  CHECK(cast<std::int8_t>(DType::kInt8, DType::kInt64, std::int64_t{-129}) == 127);
  CHECK(cast<std::uint16_t>(DType::kUInt16, DType::kInt32, -1) == 65535);
}

void booleans_and_complex_numbers() {
  using Pair = std::array<float, 2>;
  const auto truth = [](auto value, DType from) {
    return int{cast<std::uint8_t>(DType::kBool, from, value)};
  };
  CHECK(truth(0.0, DType::kFloat64) == 0 && truth(-0.0, DType::kFloat64) == 0);
  CHECK(truth(kNaN, DType::kFloat64) == 1 && truth(0.1, DType::kFloat64) == 1);
  CHECK(truth(Pair{0, 1}, DType::kComplex64) == 1 && truth(Pair{0, 0}, DType::kComplex64) == 0);
  CHECK(cast<std::int64_t>(DType::kInt64, DType::kBool, std::uint8_t{2}) == 1);
  CHECK(cast<float>(DType::kFloat32, DType::kComplex64, Pair{3, 4}) == 3);
  CHECK(cast<Pair>(DType::kComplex64, DType::kInt16, std::int16_t{-5}) == Pair{-5, 0});
  CHECK(cast<std::array<double, 2>>(DType::kComplex128, DType::kComplex64, Pair{1, 2}) ==
        std::array<double, 2>{1, 2});
}

void rounding_to_small_floats() {
  const auto half = [](double value) { return code<std::uint16_t>(DType::kFloat16, value); };
  CHECK(half(1) == 0x3c00 && half(65519) == 0x7bff && half(65520) == 0x7c00);
  CHECK(half(0x1p-25) == 0 && half(0x1.8p-25) == 1 && half(-0.0) == 0x8000);
  // One rounding after another: to float32 first, where this becomes a tie.
  CHECK(half(1 + 0x1p-11 + 0x1p-40) == 0x3c00);
  const auto bfloat = [](double value) { return code<std::uint16_t>(DType::kBFloat16, value); };
  CHECK(bfloat(1 + 0x1p-8) == 0x3f80 && bfloat(1 + 0x3p-8) == 0x3f82);
  CHECK(bfloat(3.4e38) == 0x7f80 && bfloat(-kInf) == 0xff80);
  const auto e4m3fn = [](double value) { return code<std::uint8_t>(DType::kFloat8_e4m3fn, value); };
  CHECK(e4m3fn(448) == 0x7e && e4m3fn(1e9) == 0x7e && e4m3fn(-kInf) == 0xfe);
  CHECK(e4m3fn(kNaN) == 0x7f && e4m3fn(0x1p-10) == 0 && e4m3fn(0x1.8p-10) == 1);
  const auto e5m2 = [](double value) { return code<std::uint8_t>(DType::kFloat8_e5m2, value); };
  CHECK(e5m2(61439) == 0x7b && e5m2(61440) == 0x7c && e5m2(kInf) == 0x7c && e5m2(kNaN) == 0x7f);
  const auto e4m3fnuz = [](double value) {
    return code<std::uint8_t>(DType::kFloat8_e4m3fnuz, value);
  };
  CHECK(e4m3fnuz(-0.0) == 0 && e4m3fnuz(kInf) == 0x80 && e4m3fnuz(kNaN) == 0x80);
  CHECK(e4m3fnuz(240) == 0x7f && e4m3fnuz(248) == 0x80);
  const auto e8m0 = [](double value) { return code<std::uint8_t>(DType::kFloat8_e8m0fnu, value); };
  CHECK(e8m0(1) == 127 && e8m0(-2) == 128 && e8m0(1.5) == 128 && e8m0(1.4) == 127);
  CHECK(e8m0(0) == 0 && e8m0(kInf) == 255);
}

// Every code comes back, and what lies between two neighbours goes to the nearer, or even, one.
template <class Code>
void every_code(DType small, unsigned codes) {
  float before = 0;
  for (unsigned i = 0; i < codes; ++i) {
    const auto here = static_cast<Code>(i);
    const auto value = cast<float>(DType::kFloat32, small, here);
    const auto back = [small](float number) { return cast<Code>(small, DType::kFloat32, number); };
    if (!std::isnan(value)) CHECK(back(value) == here);
    const bool neighbours = i > 0 && std::isfinite(before) && std::isfinite(value) &&
                            std::signbit(before) == std::signbit(value);
    if (neighbours && small != DType::kFloat8_e8m0fnu) {
      const float middle = before + (value - before) / 2;
      const auto even = static_cast<Code>(i % 2 == 0 ? i : i - 1);
      CHECK(back(middle) == even);
      CHECK(back(std::nextafter(middle, value)) == here);
      CHECK(back(std::nextafter(middle, before)) == static_cast<Code>(i - 1));
    }
    before = value;
  }
}

void every_small_code() {
  every_code<std::uint16_t>(DType::kFloat16, 65536);
  every_code<std::uint16_t>(DType::kBFloat16, 65536);
  for (const DType small : {DType::kFloat8_e4m3fn, DType::kFloat8_e4m3fnuz, DType::kFloat8_e5m2,
                            DType::kFloat8_e5m2fnuz, DType::kFloat8_e8m0fnu}) {
    every_code<std::uint8_t>(small, 256);
  }
}

constexpr std::size_t kCount = 777;  // not a whole number of vectors

// Bytes of any kind, with a good share of ordinary numbers of `dtype`.
std::vector<std::byte> operands(std::mt19937_64& random, DType dtype) {
  std::vector<std::byte> bytes(kCount * item_size(dtype) + 1);
  for (std::byte& byte : bytes) byte = static_cast<std::byte>(random());
  std::normal_distribution<double> ordinary(0, 1000);
  const auto put = [&](auto value, std::size_t at) {
    std::memcpy(bytes.data() + 1 + at * sizeof value, &value, sizeof value);
  };
  for (std::size_t i = 0; i < kCount; i += 2) {
    if (dtype == DType::kFloat32) put(static_cast<float>(ordinary(random)), i);
    if (dtype == DType::kFloat64) put(ordinary(random), i);
  }
  return bytes;
}

void same_results(CastRun left, CastRun right, const std::vector<std::byte>& from,
                  std::size_t to_size) {
  std::vector<std::byte> a(kCount * to_size + 1), b(a);
  left(a.data() + 1, from.data() + 1, kCount);  // misaligned on both sides
  right(b.data() + 1, from.data() + 1, kCount);
  CHECK(a == b);
}

void agrees_with_portable(const Kernels& set) {
  std::mt19937_64 random(7);
  const Kernels& plain = portable::kKernels;
  for (std::size_t from = 0; from < kPlainTypes.size(); ++from) {
    const std::vector<std::byte> bytes = operands(random, kPlainTypes[from]);
    for (std::size_t to = 0; to < kPlainTypes.size(); ++to) {
      same_results(set.plain[to][from], plain.plain[to][from], bytes, item_size(kPlainTypes[to]));
    }
  }
  for (std::size_t i = 0; i < kSmallTypes.size(); ++i) {
    const std::vector<std::byte> small = operands(random, kSmallTypes[i]);
    const std::vector<std::byte> floats = operands(random, DType::kFloat32);
    same_results(set.widen[i], plain.widen[i], small, sizeof(float));
    same_results(set.narrow[i], plain.narrow[i], floats, item_size(kSmallTypes[i]));
  }
}

void instruction_sets_agree() {
  agrees_with_portable(kernels());
#if defined(__x86_64__)
  if (instruction_set() != InstructionSet::kPortable) agrees_with_portable(avx2::kKernels);
#endif
}

// A run gives what its elements give one by one, and nothing is written past its end.
void runs_are_their_elements() {
  std::mt19937_64 random(11);
  for (std::size_t from = 0; from < kDTypeCount; ++from) {
    const auto from_type = static_cast<DType>(from);
    const std::vector<std::byte> bytes = operands(random, from_type);
    for (std::size_t to = 0; to < kDTypeCount; ++to) {
      const auto to_type = static_cast<DType>(to);
      const bool half_complex = from_type == DType::kComplex32 || to_type == DType::kComplex32;
      if (half_complex || from == to) continue;
      const Cast cast(to_type, from_type);
      const std::size_t from_size = item_size(from_type), to_size = item_size(to_type);
      std::vector<std::byte> whole((kCount + 1) * to_size), single(whole);
      cast.apply(whole.data(), bytes.data() + 1, kCount);
      for (std::size_t i = 0; i < kCount; ++i) {
        cast.apply(single.data() + i * to_size, bytes.data() + 1 + i * from_size, 1);
      }
      CHECK(whole == single);
    }
  }
}

}  // namespace
}  // namespace dlferry

int main() {
  dlferry::truncation_and_wrapping();
  dlferry::booleans_and_complex_numbers();
  dlferry::rounding_to_small_floats();
  dlferry::every_small_code();
  dlferry::instruction_sets_agree();
  dlferry::runs_are_their_elements();
  return dlferry::test::finish();
}
