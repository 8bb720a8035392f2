// Floats below 32 bits: their codes from and to float32, as bits, without touching the FPU's modes.
//
// Rounding is to nearest, ties to even. What lies beyond the largest finite value, and NaN, follow
// torch's c10 types; the sign of a NaN is kept where the format has one. float16 keeps the upper
// bits of a NaN's payload, as the F16C instructions do.
#pragma once

#include <array>
#include <bit>
#include <cstdint>

namespace dlferry::small_float {

inline constexpr std::uint32_t kSign = 0x80000000u;
inline constexpr std::uint32_t kInfinity = 0x7f800000u;

// Among magnitudes, which leave the sign bit free: vector units compare signed integers best.
constexpr bool below(std::uint32_t a, std::uint32_t b) {
  return static_cast<std::int32_t>(a) < static_cast<std::int32_t>(b);
}

// `a` if `condition`, else `b`, without the branch that would keep a loop from becoming vector code.
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

constexpr std::uint8_t e4m3fn_from_float(float value) {
  const std::uint32_t bits = std::bit_cast<std::uint32_t>(value);
  const std::uint32_t magnitude = bits & ~kSign;
  std::uint32_t code = round_magnitude<3, 7>(magnitude);
  code = below(code, 0x7eu) ? code : 0x7eu;
  code = below(magnitude, 0x43f00000u) ? code : 0x7eu;  // 480 and beyond, infinity too: saturate
  code = below(kInfinity, magnitude) ? 0x7fu : code;
  return static_cast<std::uint8_t>(code | ((bits & kSign) >> 24));
}

constexpr std::uint8_t e5m2_from_float(float value) {
  const std::uint32_t bits = std::bit_cast<std::uint32_t>(value);
  const std::uint32_t magnitude = bits & ~kSign;
  std::uint32_t code = round_magnitude<2, 15>(magnitude);
  code = below(magnitude, 0x47800000u) ? code : 0x7cu;  // 65536 and beyond
  code = below(kInfinity, magnitude) ? 0x7fu : code;
  return static_cast<std::uint8_t>(code | ((bits & kSign) >> 24));
}

// The "fnuz" formats: one NaN, which is the code of minus zero, and no infinity. `kOverflow` is the
// first power of two beyond the format, as float32 bits.
template <int kMantissa, int kBias, std::uint32_t kOverflow>
constexpr std::uint8_t fnuz_from_float(float value) {
  const std::uint32_t bits = std::bit_cast<std::uint32_t>(value);
  const std::uint32_t magnitude = bits & ~kSign;
  std::uint32_t code = round_magnitude<kMantissa, kBias>(magnitude);
  code = code != 0u ? code | ((bits & kSign) >> 24) : 0u;
  return static_cast<std::uint8_t>(below(magnitude, kOverflow) ? code : 0x80u);
}

// Powers of two only, unsigned: the sign is dropped, zero becomes the smallest power.
constexpr std::uint8_t e8m0fnu_from_float(float value) {
  const std::uint32_t bits = std::bit_cast<std::uint32_t>(value) & ~kSign;
  const std::uint32_t exponent = bits >> 23;
  const std::uint32_t mantissa = bits & 0x7fffffu;
  // A tie goes up from a normal number (whose implied bit is odd), down from a subnormal one.
  const bool up = mantissa > 0x400000u || (mantissa == 0x400000u && exponent > 0u);
  return static_cast<std::uint8_t>(exponent == 255u ? 255u : exponent + (up ? 1u : 0u));
}

// The finite value of an 8-bit code with `kMantissa` bits of mantissa.
template <int kMantissa, int kBias>
constexpr float finite_value(unsigned code) {
  const unsigned exponent = (code & 0x7fu) >> kMantissa;
  const unsigned mantissa = code & ((1u << kMantissa) - 1u);
  const unsigned digits = exponent == 0u ? mantissa : mantissa | (1u << kMantissa);
  const int power = static_cast<int>(exponent == 0u ? 1u : exponent) - kBias - kMantissa;
  const std::uint32_t scale = static_cast<std::uint32_t>(power + 127) << 23;
  const float value = static_cast<float>(digits) * std::bit_cast<float>(scale);
  return code & 0x80u ? -value : value;
}

using ByteTable = std::array<float, 256>;

template <class Value>
constexpr ByteTable byte_table(Value value) {
  ByteTable table{};
  for (unsigned code = 0; code < 256; ++code) table[code] = value(code);
  return table;
}

inline constexpr float kNaN = std::bit_cast<float>(0x7fc00000u);
inline constexpr float kMinusNaN = std::bit_cast<float>(0xffc00000u);
inline constexpr float kInf = std::bit_cast<float>(kInfinity);

inline constexpr ByteTable kE4m3fn = byte_table([](unsigned code) {
  if ((code & 0x7fu) == 0x7fu) return code & 0x80u ? kMinusNaN : kNaN;
  return finite_value<3, 7>(code);
});
inline constexpr ByteTable kE5m2 = byte_table([](unsigned code) {
  if ((code & 0x7fu) > 0x7cu) return code & 0x80u ? kMinusNaN : kNaN;
  if ((code & 0x7fu) == 0x7cu) return code & 0x80u ? -kInf : kInf;
  return finite_value<2, 15>(code);
});
inline constexpr ByteTable kE4m3fnuz = byte_table(
    [](unsigned code) { return code == 0x80u ? kNaN : finite_value<3, 8>(code); });
inline constexpr ByteTable kE5m2fnuz = byte_table(
    [](unsigned code) { return code == 0x80u ? kNaN : finite_value<2, 16>(code); });
inline constexpr ByteTable kE8m0fnu = byte_table([](unsigned code) {
  if (code == 255u) return kNaN;
  return std::bit_cast<float>(code == 0u ? 0x00400000u : static_cast<std::uint32_t>(code) << 23);
});

}  // namespace dlferry::small_float
