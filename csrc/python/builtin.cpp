#include "python/builtin.h"

namespace dlferry::python {

Method Method::of(PyTypeObject* type, PyObject* unbound) noexcept {
  Method method{unbound};
  if (type == nullptr || unbound == nullptr || !Py_IS_TYPE(unbound, &PyMethodDescr_Type)) {
    return method;
  }
  auto* descriptor = reinterpret_cast<PyMethodDescrObject*>(unbound);
  if (descriptor->d_method->ml_flags == METH_NOARGS &&
      PyType_IsSubtype(type, PyDescr_TYPE(descriptor)) != 0) {
    method.type = type;
    method.function = descriptor->d_method->ml_meth;
  }
  return method;
}

Builtin Builtin::of(PyObject* callable) noexcept {
  Builtin builtin{callable};
  if (callable != nullptr && PyCFunction_CheckExact(callable) &&
      PyCFunction_GET_FLAGS(callable) == METH_NOARGS) {
    builtin.function = PyCFunction_GET_FUNCTION(callable);
  }
  return builtin;
}

}  // namespace dlferry::python
