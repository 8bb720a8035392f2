// Method, Builtin: callables of torch's without arguments, called as the C functions that they are.
#pragma once

#include "python/object.h"

namespace dlferry::python {

// A method of torch's without arguments. Where it is a C function, that is called straight: what
// Python checks on the way to it takes 5 ns, and `to_numpy` has three to call.
struct Method {
  PyObject* unbound = nullptr;
  PyTypeObject* type = nullptr;  // whose instances `function` takes; null without one
  PyCFunction function = nullptr;

  [[nodiscard]] static Method of(PyTypeObject* type, PyObject* unbound) noexcept;

  [[nodiscard]] PyObject* operator()(PyObject* self) const {
    return Py_TYPE(self) == type ? function(self, nullptr) : PyObject_CallOneArg(unbound, self);
  }
};

// The same for a function without arguments.
struct Builtin {
  PyObject* callable = nullptr;
  PyCFunction function = nullptr;  // null where it is no C function of that kind

  [[nodiscard]] static Builtin of(PyObject* callable) noexcept;

  [[nodiscard]] PyObject* operator()() const {
    return function != nullptr ? function(PyCFunction_GET_SELF(callable), nullptr)
                               : PyObject_CallNoArgs(callable);
  }
};

}  // namespace dlferry::python
