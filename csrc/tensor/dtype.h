// The dtype table: what an element is, in DLPack's terms, with torch's name.
//
// Every element type that a torch tensor can hold and DLPack can describe. Sub-byte types are not
// here on purpose: nothing in dlferry may misread them.
#pragma once

#include <cstddef>
#include <cstdint>
#include <optional>
#include <string_view>

#include "abi/dlpack.h"

namespace dlferry {

enum class DType : std::uint8_t {
  kBool,
  kUInt8,
  kInt8,
  kUInt16,
  kInt16,
  kUInt32,
  kInt32,
  kUInt64,
  kInt64,
  kFloat16,
  kBFloat16,
  kFloat32,
  kFloat64,
  kComplex32,
  kComplex64,
  kComplex128,
  kFloat8_e4m3fn,
  kFloat8_e4m3fnuz,
  kFloat8_e5m2,
  kFloat8_e5m2fnuz,
  kFloat8_e8m0fnu,
};

inline constexpr std::size_t kDTypeCount = 21;

struct DTypeInfo {
  std::string_view name;  // torch's name: `getattr(torch, name)`
  dlpack::DataType dlpack;
  std::uint8_t log2_size;  // of the bytes of one element: strides are divided by shifting
  std::uint8_t swap_size;  // bytes of the unit that byte-swapping reverses (half of a complex)
};

// Never fails: `dtype` is always one of the enumerators.
[[nodiscard]] const DTypeInfo& info(DType dtype) noexcept;

[[nodiscard]] inline std::size_t item_size(DType dtype) noexcept {
  return std::size_t{1} << info(dtype).log2_size;
}

// Empty for whatever torch cannot hold: other lanes than 1, sub-byte and unknown codes.
[[nodiscard]] std::optional<DType> dtype_from_dlpack(dlpack::DataType type) noexcept;

// By torch's name, which for the types it shares with NumPy and ml_dtypes is theirs too.
[[nodiscard]] std::optional<DType> dtype_from_name(std::string_view name) noexcept;

[[nodiscard]] bool is_floating(DType dtype) noexcept;  // real floating point, 8 to 64 bits
[[nodiscard]] bool is_complex(DType dtype) noexcept;

// The complex dtype of a real floating point one, as torch pairs them.
[[nodiscard]] DType complex_partner(DType dtype) noexcept;

}  // namespace dlferry
