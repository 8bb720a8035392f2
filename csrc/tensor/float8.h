// The 8-bit floats: codes from float32 by rounding, float32 from codes by a table.
//
// What lies beyond the largest finite value, and NaN, follow torch's c10 types.
#pragma once

#include <array>
#include <bit>
#include <cstdint>

#include "tensor/small_float.h"

namespace dlferry::small_float {

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
inline constexpr ByteTable kE4m3fnuz =
    byte_table([](unsigned code) { return code == 0x80u ? kNaN : finite_value<3, 8>(code); });
inline constexpr ByteTable kE5m2fnuz =
    byte_table([](unsigned code) { return code == 0x80u ? kNaN : finite_value<2, 16>(code); });
inline constexpr ByteTable kE8m0fnu = byte_table([](unsigned code) {
  if (code == 255u) return kNaN;
  return std::bit_cast<float>(code == 0u ? 0x00400000u : static_cast<std::uint32_t>(code) << 23);
});

}  // namespace dlferry::small_float
