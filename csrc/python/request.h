// What a call of a hot function asks for.
#pragma once

#include <cstdint>

#include "python/doors.h"
#include "tensor/plan.h"

namespace dlferry::python {

inline constexpr Py_ssize_t kMostKeywords = 5;

// The arguments as they came (METH_FASTCALL | METH_KEYWORDS).
struct Call {
  PyObject* const* args;
  Py_ssize_t nargs;
  PyObject* keywords;  // a tuple of names, or null

  [[nodiscard]] bool is_bare() const noexcept { return nargs == 1 && keywords == nullptr; }

  [[nodiscard]] PyObject* delegate(PyObject* general) const {
    return PyObject_Vectorcall(general, args, static_cast<std::size_t>(nargs), keywords);
  }
};

// Objects are borrowed from the call.
struct Request {
  PyObject* dtype = Py_None;
  PyObject* out = Py_None;
  bool on_cpu = false;  // asked for, not merely left open
  CopyPolicy copy = CopyPolicy::kIfNeeded;
  ReadOnlyPolicy readonly = ReadOnlyPolicy::kCopy;
};

enum class Signature : std::uint8_t { kAsarray, kFromDlpack, kStack };

// False when the call wants something that the fast paths do not do, or is wrong: the general
// route knows which. Leaves no error set.
[[nodiscard]] bool parse(const Torch& torch, const Call& call, Signature signature,
                         Request& request);

}  // namespace dlferry::python
