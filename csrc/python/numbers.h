// Python's own numbers -> elements of a tensor.
//
// Only exact bool, int, float and complex: reading those runs no code of anyone's. Instances of
// their subclasses do as they like, and are the general route's.
#pragma once

#include <cstddef>
#include <cstdint>
#include <optional>

#include "python/doors.h"

namespace dlferry::python {

// In the order of promotion.
enum class Number : std::uint8_t { kBool, kInt, kFloat, kComplex, kNone };

[[nodiscard]] inline Number number_kind(PyObject* object) noexcept {
  const PyTypeObject* type = Py_TYPE(object);
  if (type == &PyFloat_Type) return Number::kFloat;
  if (type == &PyLong_Type) return Number::kInt;
  if (type == &PyBool_Type) return Number::kBool;
  return type == &PyComplex_Type ? Number::kComplex : Number::kNone;
}

// What a dtype takes without inference: everything but complex numbers among reals.
[[nodiscard]] Number widest_number(DType dtype) noexcept;

// Writes numbers as elements of one dtype. The values are those of `_sequence._numbers`.
class NumberWriter {
 public:
  // Takes numbers up to `widest`. Empty, without an error, for a dtype that it does not write.
  // May run Python code.
  [[nodiscard]] static std::optional<NumberWriter> make(const Torch& torch, DType dtype,
                                                        Number widest);

  // Writes up to `count` items to aligned memory, and returns how many: it stops at what is no
  // number up to `widest`, or outside the dtype. Runs no Python code and leaves no error set.
  [[nodiscard]] Py_ssize_t write(PyObject* const* items, Py_ssize_t count,
                                 std::byte* elements) const noexcept {
    return run_(items, count, elements, *this);
  }

  DType dtype;
  Number widest;
  double limit;  // the smallest magnitude beyond the largest finite element; floats and complex

 private:
  using Run = Py_ssize_t (*)(PyObject* const* items, Py_ssize_t count, std::byte* elements,
                             const NumberWriter& rule) noexcept;
  NumberWriter(DType to, Number most, double beyond, Run run) noexcept
      : dtype(to), widest(most), limit(beyond), run_(run) {}
  [[nodiscard]] static Run run_for(DType dtype) noexcept;

  Run run_;
};

}  // namespace dlferry::python
