// The one include of NumPy's C API, and the dtypes that NumPy and torch share.
#pragma once

#include "python/object.h"

#define NPY_NO_DEPRECATED_API NPY_1_22_API_VERSION
#define NPY_TARGET_VERSION NPY_1_22_API_VERSION
#define PY_ARRAY_UNIQUE_SYMBOL dlferry_numpy_api
#ifndef DLFERRY_IMPORT_NUMPY
#define NO_IMPORT_ARRAY
#endif
#include <numpy/arrayobject.h>

#include <optional>

#include "tensor/view.h"

namespace dlferry::python {

// Loads NumPy's table; false with a Python error set. Called once, when the module is initialised.
[[nodiscard]] bool import_numpy();

// Empty for what torch cannot hold (strings, objects, records, times, long double, sub-byte).
// The float8 family and bfloat16 are ml_dtypes', recognised by name without importing it.
[[nodiscard]] std::optional<DType> dtype_from_numpy(PyArray_Descr* descr) noexcept;

// The memory of an array, for as long as nobody touches the array; empty where torch cannot hold
// its elements. Not checked: see `unreachable_reason`.
[[nodiscard]] std::optional<View> view_of_array(PyArrayObject* array) noexcept;

// A dtype in DLPack's terms, in one step, by NumPy's type number; null for what is not NumPy's own,
// or torch cannot hold, and for complex numbers, which torch wants better aligned than NumPy does.
[[nodiscard]] const dlpack::DataType* dlpack_type_of_number(int number) noexcept;

// Of a scalar of NumPy's own types, whose value PyArray_ScalarAsCtype gives; empty for what is
// none.
[[nodiscard]] std::optional<DType> dtype_from_scalar(PyObject* object) noexcept;

// NumPy's own dtype object, borrowed; null for the dtypes that NumPy itself does not have.
[[nodiscard]] PyArray_Descr* numpy_descr(DType dtype) noexcept;

}  // namespace dlferry::python
