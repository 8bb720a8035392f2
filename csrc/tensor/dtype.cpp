#include "tensor/dtype.h"

#include <array>
#include <bit>

namespace dlferry {
namespace {

constexpr std::array<DTypeInfo, kDTypeCount> kTable = {{
    {"bool", {dlpack::kBool, 8, 1}, 0, 1},
    {"uint8", {dlpack::kUInt, 8, 1}, 0, 1},
    {"int8", {dlpack::kInt, 8, 1}, 0, 1},
    {"uint16", {dlpack::kUInt, 16, 1}, 1, 2},
    {"int16", {dlpack::kInt, 16, 1}, 1, 2},
    {"uint32", {dlpack::kUInt, 32, 1}, 2, 4},
    {"int32", {dlpack::kInt, 32, 1}, 2, 4},
    {"uint64", {dlpack::kUInt, 64, 1}, 3, 8},
    {"int64", {dlpack::kInt, 64, 1}, 3, 8},
    {"float16", {dlpack::kFloat, 16, 1}, 1, 2},
    {"bfloat16", {dlpack::kBfloat, 16, 1}, 1, 2},
    {"float32", {dlpack::kFloat, 32, 1}, 2, 4},
    {"float64", {dlpack::kFloat, 64, 1}, 3, 8},
    {"complex32", {dlpack::kComplex, 32, 1}, 2, 2},
    {"complex64", {dlpack::kComplex, 64, 1}, 3, 4},
    {"complex128", {dlpack::kComplex, 128, 1}, 4, 8},
    {"float8_e4m3fn", {dlpack::kFloat8_e4m3fn, 8, 1}, 0, 1},
    {"float8_e4m3fnuz", {dlpack::kFloat8_e4m3fnuz, 8, 1}, 0, 1},
    {"float8_e5m2", {dlpack::kFloat8_e5m2, 8, 1}, 0, 1},
    {"float8_e5m2fnuz", {dlpack::kFloat8_e5m2fnuz, 8, 1}, 0, 1},
    {"float8_e8m0fnu", {dlpack::kFloat8_e8m0fnu, 8, 1}, 0, 1},
}};

// By DLPack's code and the logarithm of its bits: every look at a tensor passes here.
constexpr auto kByCode = [] {
  std::array<std::array<std::optional<DType>, 8>, dlpack::kFloat8_e8m0fnu + 1> table{};
  for (std::size_t i = 0; i < kTable.size(); ++i) {
    const dlpack::DataType type = kTable[i].dlpack;
    table[type.code][static_cast<std::size_t>(std::countr_zero(type.bits))] = static_cast<DType>(i);
  }
  return table;
}();

}  // namespace

const DTypeInfo& info(DType dtype) noexcept { return kTable[static_cast<std::size_t>(dtype)]; }

std::optional<DType> dtype_from_dlpack(dlpack::DataType type) noexcept {
  if (type.lanes != 1 || type.code >= kByCode.size() || !std::has_single_bit(type.bits)) {
    return std::nullopt;
  }
  return kByCode[type.code][static_cast<std::size_t>(std::countr_zero(type.bits))];
}

std::optional<DType> dtype_from_name(std::string_view name) noexcept {
  for (std::size_t i = 0; i < kTable.size(); ++i) {
    if (kTable[i].name == name) return static_cast<DType>(i);
  }
  return std::nullopt;
}

bool is_floating(DType dtype) noexcept {
  switch (dtype) {
    case DType::kFloat16:
    case DType::kBFloat16:
    case DType::kFloat32:
    case DType::kFloat64:
    case DType::kFloat8_e4m3fn:
    case DType::kFloat8_e4m3fnuz:
    case DType::kFloat8_e5m2:
    case DType::kFloat8_e5m2fnuz:
    case DType::kFloat8_e8m0fnu:
      return true;
    default:
      return false;
  }
}

bool is_complex(DType dtype) noexcept {
  return dtype == DType::kComplex32 || dtype == DType::kComplex64 || dtype == DType::kComplex128;
}

DType complex_partner(DType dtype) noexcept {
  if (dtype == DType::kFloat64) return DType::kComplex128;
  return dtype == DType::kFloat16 ? DType::kComplex32 : DType::kComplex64;
}

}  // namespace dlferry
