#include "python/numbers.h"

#include <algorithm>
#include <array>
#include <cmath>
#include <limits>
#include <type_traits>

#include "python/digits.h"
#include "tensor/cast.h"

namespace dlferry::python {
namespace {

// False for an exact int beyond double.
bool read_double(PyObject* integer, double& out) noexcept {
  std::int64_t small;
  if (read_digits(integer, small)) {
    out = static_cast<double>(small);
    return true;
  }
  out = PyLong_AsDouble(integer);
  if (out != -1.0 || PyErr_Occurred() == nullptr) return true;
  PyErr_Clear();
  return false;
}

bool is_outside(double value, double limit) noexcept {
  const double magnitude = std::fabs(value);
  return magnitude >= limit && magnitude < std::numeric_limits<double>::infinity();
}

bool as_real(PyObject* item, double limit, double& out) noexcept {
  if (Py_TYPE(item) == &PyFloat_Type) {
    out = PyFloat_AS_DOUBLE(item);
  } else if (Py_TYPE(item) == &PyLong_Type) {
    if (!read_double(item, out)) return false;
  } else if (Py_TYPE(item) == &PyBool_Type) {
    out = item == Py_True ? 1.0 : 0.0;
  } else {
    return false;
  }
  return !is_outside(out, limit);
}

// Types are looked at in groups, with one branch for all of them.
constexpr Py_ssize_t kGroup = 8;

bool all_are(const PyTypeObject& type, PyObject* const* items) noexcept {
  bool all = true;
  for (Py_ssize_t i = 0; i < kGroup; ++i) all &= Py_TYPE(items[i]) == &type;
  return all;
}

// Writes whole groups as far as `groups` gets, then item by item through the one that stopped it.
// `groups` has to be a function of its own, which keeps nothing across the calls that a single item
// may need: that is a sixth of its time.
template <typename Groups, typename One>
Py_ssize_t write_all(Py_ssize_t count, const Groups& groups, const One& one) noexcept {
  for (Py_ssize_t i = 0;;) {
    if (count - i >= kGroup) i += groups(i);
    if (i == count) return count;
    for (const Py_ssize_t end = std::min(count, i + kGroup); i < end; ++i) {
      if (!one(i)) return i;
    }
  }
}

// Up to the first group that holds anything but floats below the limit.
template <typename Float>
[[gnu::noinline]] Py_ssize_t write_float_groups(PyObject* const* items, Py_ssize_t count,
                                                Float* out, double limit) noexcept {
  Py_ssize_t done = 0;
  for (; done + kGroup <= count; done += kGroup) {
    if (!all_are(PyFloat_Type, items + done)) return done;
    bool inside = true;
    for (Py_ssize_t i = done; i < done + kGroup; ++i) {
      const double value = PyFloat_AS_DOUBLE(items[i]);
      inside &= !is_outside(value, limit);
      out[i] = static_cast<Float>(value);
    }
    if (!inside) return done;
  }
  return done;
}

template <typename Float>
Py_ssize_t write_floats(PyObject* const* items, Py_ssize_t count, std::byte* elements,
                        const NumberWriter& rule) noexcept {
  auto* out = reinterpret_cast<Float*>(elements);
  const auto groups = [&](Py_ssize_t i) {
    return write_float_groups(items + i, count - i, out + i, rule.limit);
  };
  return write_all(count, groups, [&](Py_ssize_t i) {
    double value;
    if (!as_real(items[i], rule.limit, value)) return false;
    out[i] = static_cast<Float>(value);
    return true;
  });
}

// The floats below 32 bits, cast by the kernels of the array copies.
Py_ssize_t write_small_floats(PyObject* const* items, Py_ssize_t count, std::byte* elements,
                              const NumberWriter& rule) noexcept {
  constexpr Py_ssize_t kBlock = 256;
  const Cast cast(rule.dtype, DType::kFloat64);
  const auto size = static_cast<Py_ssize_t>(item_size(rule.dtype));
  for (Py_ssize_t done = 0; done < count; done += kBlock) {
    alignas(64) std::byte block[kBlock * sizeof(double)];
    const Py_ssize_t wanted = std::min(kBlock, count - done);
    const Py_ssize_t written = write_floats<double>(items + done, wanted, block, rule);
    cast.apply(elements + done * size, block, static_cast<std::size_t>(written));
    if (written < wanted) return done + written;
  }
  return count;
}

template <typename Float>
Py_ssize_t write_complex(PyObject* const* items, Py_ssize_t count, std::byte* elements,
                         const NumberWriter& rule) noexcept {
  auto* out = reinterpret_cast<Float*>(elements);
  for (Py_ssize_t i = 0; i < count; ++i) {
    Py_complex value{0.0, 0.0};
    if (Py_TYPE(items[i]) == &PyComplex_Type) {
      value = reinterpret_cast<PyComplexObject*>(items[i])->cval;
      if (is_outside(value.real, rule.limit) || is_outside(value.imag, rule.limit)) return i;
    } else if (!as_real(items[i], rule.limit, value.real)) {
      return i;
    }
    out[2 * i] = static_cast<Float>(value.real);
    out[2 * i + 1] = static_cast<Float>(value.imag);
  }
  return count;
}

// Truncated towards zero. False when it does not fit.
template <typename Integer>
bool from_float(double value, Integer& out) noexcept {
  constexpr int kBits = std::numeric_limits<Integer>::digits;
  const double whole = std::trunc(value);
  const double end = std::ldexp(1.0, kBits);
  const double begin = std::numeric_limits<Integer>::is_signed ? -end : 0.0;
  if (!(whole >= begin && whole < end)) return false;
  out = static_cast<Integer>(whole);
  return true;
}

template <typename Integer>
bool fits(std::int64_t value) noexcept {
  if constexpr (std::is_same_v<Integer, std::uint64_t>) return value >= 0;
  return static_cast<std::int64_t>(static_cast<Integer>(value)) == value;
}

// By Python itself, whatever its size. False when it does not fit.
template <typename Integer>
bool from_large_int(PyObject* item, Integer& out) noexcept {
  int overflow = 0;
  const std::int64_t value = PyLong_AsLongLongAndOverflow(item, &overflow);
  if (overflow == 0) {
    out = static_cast<Integer>(value);
    return fits<Integer>(value);
  }
  if constexpr (std::is_same_v<Integer, std::uint64_t>) {
    out = PyLong_AsUnsignedLongLong(item);
    if (PyErr_Occurred() == nullptr) return true;
    PyErr_Clear();
  }
  return false;
}

template <typename Integer>
bool write_small_int(PyObject* item, Integer& out) noexcept {
  std::int64_t value;
  if (!read_digits(item, value) || !fits<Integer>(value)) return false;
  out = static_cast<Integer>(value);
  return true;
}

// Up to the first group that holds anything but ints of up to two digits that fit.
template <typename Integer>
[[gnu::noinline]] Py_ssize_t write_int_groups(PyObject* const* items, Py_ssize_t count,
                                              Integer* out) noexcept {
  Py_ssize_t done = 0;
  for (; done + kGroup <= count; done += kGroup) {
    if (!all_are(PyLong_Type, items + done)) return done;
    for (Py_ssize_t i = done; i < done + kGroup; ++i) {
      if (!write_small_int(items[i], out[i])) return done;
    }
  }
  return done;
}

template <typename Integer>
bool write_integer(PyObject* item, Number widest, Integer& out) noexcept {
  if (Py_TYPE(item) == &PyLong_Type) {
    return write_small_int(item, out) || from_large_int(item, out);
  }
  if (Py_TYPE(item) == &PyBool_Type) {
    out = item == Py_True ? 1 : 0;
    return true;
  }
  return widest >= Number::kFloat && Py_TYPE(item) == &PyFloat_Type &&
         from_float(PyFloat_AS_DOUBLE(item), out);
}

template <typename Integer>
Py_ssize_t write_integers(PyObject* const* items, Py_ssize_t count, std::byte* elements,
                          const NumberWriter& rule) noexcept {
  auto* out = reinterpret_cast<Integer*>(elements);
  const auto groups = [&](Py_ssize_t i) { return write_int_groups(items + i, count - i, out + i); };
  return write_all(count, groups,
                   [&](Py_ssize_t i) { return write_integer(items[i], rule.widest, out[i]); });
}

Py_ssize_t write_bools(PyObject* const* items, Py_ssize_t count, std::byte* elements,
                       const NumberWriter& rule) noexcept {
  for (Py_ssize_t i = 0; i < count; ++i) {
    PyObject* item = items[i];
    if (number_kind(item) > rule.widest) return i;
    const bool value = item == Py_True || (item != Py_False && PyObject_IsTrue(item) != 0);
    elements[i] = std::byte{value};
  }
  return count;
}

bool has_limit(DType dtype) noexcept { return is_floating(dtype) || is_complex(dtype); }

// Asked of Python once a dtype; 0 where it is not known yet. Empty with a Python error set.
std::optional<double> limit_of(const Torch& torch, DType dtype) {
  static std::array<double, kDTypeCount> known{};
  double& limit = known[static_cast<std::size_t>(dtype)];
  if (limit != 0.0) return limit;
  PyObject* name = torch.dtypes[static_cast<std::size_t>(dtype)];
  const Ref answer = Ref::steal(PyObject_CallOneArg(installed().float_limit, name));
  if (!answer) return std::nullopt;
  const double value = PyFloat_AsDouble(answer.get());
  if (PyErr_Occurred() != nullptr) return std::nullopt;
  return limit = value;
}

}  // namespace

Number widest_number(DType dtype) noexcept {
  return is_complex(dtype) ? Number::kComplex : Number::kFloat;
}

NumberWriter::Run NumberWriter::run_for(DType dtype) noexcept {
  switch (dtype) {
    case DType::kBool:
      return &write_bools;
    case DType::kUInt8:
      return &write_integers<std::uint8_t>;
    case DType::kInt8:
      return &write_integers<std::int8_t>;
    case DType::kUInt16:
      return &write_integers<std::uint16_t>;
    case DType::kInt16:
      return &write_integers<std::int16_t>;
    case DType::kUInt32:
      return &write_integers<std::uint32_t>;
    case DType::kInt32:
      return &write_integers<std::int32_t>;
    case DType::kUInt64:
      return &write_integers<std::uint64_t>;
    case DType::kInt64:
      return &write_integers<std::int64_t>;
    case DType::kFloat32:
      return &write_floats<float>;
    case DType::kFloat64:
      return &write_floats<double>;
    case DType::kComplex64:
      return &write_complex<float>;
    case DType::kComplex128:
      return &write_complex<double>;
    case DType::kComplex32:
      return nullptr;
    default:
      return &write_small_floats;
  }
}

std::optional<NumberWriter> NumberWriter::make(const Torch& torch, DType dtype, Number widest) {
  const Run run = run_for(dtype);
  if (run == nullptr) return std::nullopt;
  std::optional<double> limit = 0.0;
  if (has_limit(dtype)) limit = limit_of(torch, dtype);
  if (!limit) {
    (void)clear_exception();
    return std::nullopt;
  }
  return NumberWriter(dtype, widest, *limit, run);
}

}  // namespace dlferry::python
