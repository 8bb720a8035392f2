// Exact Python ints, read where they lie: calling Python for each takes several times as long.
//
// The one place that knows how an int is kept. For a Python that keeps it in another way, nothing
// is read here, and Python is called.
#pragma once

#include <cstdint>

#include "python/object.h"

#if PY_VERSION_HEX < 0x030B0000
#include <longintrepr.h>
#endif

namespace dlferry::python {

#if PY_VERSION_HEX < 0x030F0000
#if PY_VERSION_HEX >= 0x030C0000
inline const digit* digits_of(PyObject* item) noexcept {
  return reinterpret_cast<const PyLongObject*>(item)->long_value.ob_digit;
}

// How many digits there are, with the sign of the number.
inline std::int64_t signed_length(PyObject* item) noexcept {
  const auto tag = reinterpret_cast<const PyLongObject*>(item)->long_value.lv_tag;
  return static_cast<std::int64_t>(tag >> 3U) * (1 - static_cast<std::int64_t>(tag & 3U));
}
#else
inline const digit* digits_of(PyObject* item) noexcept {
  return reinterpret_cast<const PyLongObject*>(item)->ob_digit;
}

inline std::int64_t signed_length(PyObject* item) noexcept { return Py_SIZE(item); }
#endif

// False for more than two digits. Signs are as likely as not, so there is no branch for them; zero
// has one digit in memory too.
inline bool read_digits(PyObject* item, std::int64_t& out) noexcept {
  const std::int64_t length = signed_length(item);
  const digit* digits = digits_of(item);
  if (length == 2 || length == -2) {
    out = (length >> 1) * (std::int64_t{digits[0]} | std::int64_t{digits[1]} << PyLong_SHIFT);
    return true;
  }
  if (length < -1 || length > 1) return false;
  out = length * std::int64_t{digits[0]};
  return true;
}
#else  // a Python whose ints are not known here
inline bool read_digits(PyObject*, std::int64_t&) noexcept { return false; }
#endif

}  // namespace dlferry::python
