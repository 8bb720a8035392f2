// float16 and bfloat16 as codes, from and to float32, and the rounding that all small floats share.
//
// Rounding is to nearest, ties to even. The sign of a NaN is kept, and float16 keeps the upper bits
// of its payload, as the F16C instructions do.
#pragma once

#include <bit>
#include <cstdint>

namespace dlferry::small_float {

inline constexpr std::uint32_t kSign = 0x80000000u;
inline constexpr std::uint32_t kInfinity = 0x7f800000u;

// Among magnitudes, which leave the sign bit free: vector units compare signed integers best.
constexpr bool below(std::uint32_t a, std::uint32_t b) {
  return static_cast<std::int32_t>(a) < static_cast<std::int32_t>(b);
}

// `a` if `condition`, else `b`, without the branch that would keep a loop from becoming vector
// code.
constexpr std::uint32_t choose(bool condition, std::uint32_t a, std::uint32_t b) {
  const std::uint32_t mask = 0u - static_cast<std::uint32_t>(condition);
  return (a & mask) | (b & ~mask);
}

// `magnitude` (a finite float32 without its sign) rounded to `kMantissa` bits of mantissa, with an
// exponent biased by `kBias`. Correct as long as the result fits; a carry out of the mantissa
// moves into the exponent, as it should.
template <int kMantissa, int kBias>
constexpr std::uint32_t round_magnitude(std::uint32_t magnitude) {
  constexpr int kDropped = 23 - kMantissa;
  constexpr std::uint32_t kSmallestNormal = static_cast<std::uint32_t>(128 - kBias) << 23;
  // In the binade of this power of two, one unit in the last place is the format's smallest
  // subnormal: adding it makes the adder round, and leaves the code in the low bits.
  constexpr std::uint32_t kAligner = static_cast<std::uint32_t>(128 - kBias + kDropped) << 23;
  constexpr std::uint32_t kRebias = static_cast<std::uint32_t>(127 - kBias) << 23;
  const float aligned = std::bit_cast<float>(magnitude) + std::bit_cast<float>(kAligner);
  const std::uint32_t subnormal = std::bit_cast<std::uint32_t>(aligned) - kAligner;
  const std::uint32_t odd = (magnitude >> kDropped) & 1u;
  const std::uint32_t half = (1u << (kDropped - 1)) - 1u;
  const std::uint32_t normal = (magnitude - kRebias + half + odd) >> kDropped;
  return choose(below(magnitude, kSmallestNormal), subnormal, normal);
}

constexpr float half_to_float(std::uint16_t code) {
  const std::uint32_t sign = static_cast<std::uint32_t>(code & 0x8000u) << 16;
  const std::uint32_t rest = static_cast<std::uint32_t>(code & 0x7fffu) << 13;
  const std::uint32_t normal = rest + (112u << 23);
  const std::uint32_t special = rest | kInfinity | ((rest & 0x7fffffu) != 0u ? 0x400000u : 0u);
  const float tiny = static_cast<float>(static_cast<int>(code & 0x3ffu)) * 0x1p-24f;
  std::uint32_t bits = rest >= (31u << 23) ? special : normal;
  bits = rest < (1u << 23) ? std::bit_cast<std::uint32_t>(tiny) : bits;
  return std::bit_cast<float>(bits | sign);
}

constexpr std::uint16_t half_from_float(float value) {
  const std::uint32_t bits = std::bit_cast<std::uint32_t>(value);
  const std::uint32_t magnitude = bits & ~kSign;
  const std::uint32_t nan = 0x7e00u | ((magnitude >> 13) & 0x3ffu);
  std::uint32_t code = round_magnitude<10, 15>(magnitude);
  code = below(magnitude, 0x47800000u) ? code : 0x7c00u;  // 65536 and beyond
  code = below(kInfinity, magnitude) ? nan : code;
  return static_cast<std::uint16_t>(code | ((bits & kSign) >> 16));
}

constexpr float bfloat16_to_float(std::uint16_t code) {
  return std::bit_cast<float>(static_cast<std::uint32_t>(code) << 16);
}

constexpr std::uint16_t bfloat16_from_float(float value) {
  const std::uint32_t bits = std::bit_cast<std::uint32_t>(value);
  const std::uint32_t rounded = (bits + 0x7fffu + ((bits >> 16) & 1u)) >> 16;
  const std::uint32_t nan = 0x7fc0u | ((bits & kSign) >> 16);
  return static_cast<std::uint16_t>(below(kInfinity, bits & ~kSign) ? nan : rounded);
}

}  // namespace dlferry::small_float
