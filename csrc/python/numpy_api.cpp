#define DLFERRY_IMPORT_NUMPY
#include "python/numpy_api.h"

#include <array>
#include <iterator>
#include <string_view>

namespace dlferry::python {
namespace {

constexpr DType kIntegers[2][4] = {
    {DType::kInt8, DType::kInt16, DType::kInt32, DType::kInt64},
    {DType::kUInt8, DType::kUInt16, DType::kUInt32, DType::kUInt64},
};

// The name of ml_dtypes' scalar type is torch's name of the dtype, with or without its module.
std::optional<DType> dtype_from_ml_dtypes(PyArray_Descr* descr) noexcept {
  std::string_view name = descr->typeobj->tp_name;
  if (const auto dot = name.rfind('.'); dot != std::string_view::npos) name.remove_prefix(dot + 1);
  const auto dtype = dtype_from_name(name);
  const bool matches =
      dtype && static_cast<npy_intp>(item_size(*dtype)) == PyDataType_ELSIZE(descr);
  return matches && is_floating(*dtype) ? dtype : std::nullopt;
}

template <typename Integer, bool kUnsigned>
constexpr DType integer() {
  constexpr int kLog2 = sizeof(Integer) == 1   ? 0
                        : sizeof(Integer) == 2 ? 1
                        : sizeof(Integer) == 4 ? 2
                                               : 3;
  return kIntegers[kUnsigned][kLog2];
}

constexpr auto kByTypeNumber = [] {
  std::array<std::optional<DType>, NPY_HALF + 1> table{};
  table[NPY_BOOL] = DType::kBool;
  table[NPY_BYTE] = DType::kInt8;
  table[NPY_UBYTE] = DType::kUInt8;
  table[NPY_SHORT] = integer<npy_short, false>();
  table[NPY_USHORT] = integer<npy_ushort, true>();
  table[NPY_INT] = integer<npy_int, false>();
  table[NPY_UINT] = integer<npy_uint, true>();
  table[NPY_LONG] = integer<npy_long, false>();
  table[NPY_ULONG] = integer<npy_ulong, true>();
  table[NPY_LONGLONG] = integer<npy_longlong, false>();
  table[NPY_ULONGLONG] = integer<npy_ulonglong, true>();
  table[NPY_HALF] = DType::kFloat16;
  table[NPY_FLOAT] = DType::kFloat32;
  table[NPY_DOUBLE] = DType::kFloat64;
  table[NPY_CFLOAT] = DType::kComplex64;
  table[NPY_CDOUBLE] = DType::kComplex128;
  return table;
}();

std::array<dlpack::DataType, kByTypeNumber.size()> dlpack_types{};

void find_dlpack_types() noexcept {
  for (std::size_t number = 0; number < kByTypeNumber.size(); ++number) {
    const std::optional<DType> dtype = kByTypeNumber[number];
    if (dtype && !is_complex(*dtype)) dlpack_types[number] = info(*dtype).dlpack;
  }
}

struct ScalarType {
  PyTypeObject* type;  // NumPy's: it lives as long as the process
  DType dtype;
};

constexpr int kScalarTypes[] = {NPY_BOOL,   NPY_BYTE,     NPY_UBYTE,     NPY_SHORT,
                                NPY_USHORT, NPY_INT,      NPY_UINT,      NPY_LONG,
                                NPY_ULONG,  NPY_LONGLONG, NPY_ULONGLONG, NPY_HALF,
                                NPY_FLOAT,  NPY_DOUBLE,   NPY_CFLOAT,    NPY_CDOUBLE};
std::array<ScalarType, std::size(kScalarTypes)> scalar_types;

void find_scalar_types() noexcept {
  for (std::size_t i = 0; i < scalar_types.size(); ++i) {
    PyArray_Descr* descr = PyArray_DescrFromType(kScalarTypes[i]);
    scalar_types[i] = {descr->typeobj, *dtype_from_numpy(descr)};
    Py_DECREF(descr);
  }
}

struct TypeNumber {
  DType dtype;
  int number;
};

constexpr TypeNumber kTypeNumbers[] = {
    {DType::kBool, NPY_BOOL},           {DType::kUInt8, NPY_UINT8},
    {DType::kInt8, NPY_INT8},           {DType::kUInt16, NPY_UINT16},
    {DType::kInt16, NPY_INT16},         {DType::kUInt32, NPY_UINT32},
    {DType::kInt32, NPY_INT32},         {DType::kUInt64, NPY_UINT64},
    {DType::kInt64, NPY_INT64},         {DType::kFloat16, NPY_FLOAT16},
    {DType::kFloat32, NPY_FLOAT32},     {DType::kFloat64, NPY_FLOAT64},
    {DType::kComplex64, NPY_COMPLEX64}, {DType::kComplex128, NPY_COMPLEX128},
};
std::array<PyArray_Descr*, kDTypeCount> descrs{};

void find_descrs() noexcept {
  for (const auto& [dtype, number] : kTypeNumbers) {
    descrs[static_cast<std::size_t>(dtype)] = PyArray_DescrFromType(number);
  }
}

}  // namespace

bool import_numpy() {
  if (_import_array() < 0) return false;
  find_dlpack_types();
  find_descrs();
  find_scalar_types();
  return true;
}

std::optional<DType> dtype_from_scalar(PyObject* object) noexcept {
  for (const ScalarType& known : scalar_types) {
    if (Py_TYPE(object) == known.type) return known.dtype;
  }
  return std::nullopt;
}

std::optional<DType> dtype_from_numpy(PyArray_Descr* descr) noexcept {
  const auto number = static_cast<std::size_t>(descr->type_num);
  if (number < kByTypeNumber.size()) return kByTypeNumber[number];
  return PyTypeNum_ISUSERDEF(descr->type_num) ? dtype_from_ml_dtypes(descr) : std::nullopt;
}

std::optional<View> view_of_array(PyArrayObject* array) noexcept {
  const auto dtype = dtype_from_numpy(PyArray_DESCR(array));
  if (!dtype) return std::nullopt;
  return View{reinterpret_cast<std::byte*>(PyArray_BYTES(array)),
              reinterpret_cast<const std::int64_t*>(PyArray_DIMS(array)),
              reinterpret_cast<const std::int64_t*>(PyArray_STRIDES(array)),
              PyArray_NDIM(array),
              *dtype,
              !PyArray_ISNOTSWAPPED(array),
              {}};
}

const dlpack::DataType* dlpack_type_of_number(int number) noexcept {
  const auto index = static_cast<std::size_t>(number);
  if (index >= dlpack_types.size() || dlpack_types[index].bits == 0) return nullptr;
  return &dlpack_types[index];
}

PyArray_Descr* numpy_descr(DType dtype) noexcept { return descrs[static_cast<std::size_t>(dtype)]; }

}  // namespace dlferry::python
