// Ref: one owned reference to a Python object. Needs the GIL wherever it is made, copied or
// dropped.
#pragma once

#define PY_SSIZE_T_CLEAN
#include <Python.h>

#include <utility>

namespace dlferry::python {

class Ref {
 public:
  Ref() noexcept = default;
  [[nodiscard]] static Ref steal(PyObject* object) noexcept { return Ref(object); }
  [[nodiscard]] static Ref borrow(PyObject* object) noexcept {
    Py_XINCREF(object);
    return Ref(object);
  }
  Ref(Ref&& other) noexcept : object_(std::exchange(other.object_, nullptr)) {}
  Ref& operator=(Ref&& other) noexcept {
    std::swap(object_, other.object_);
    return *this;
  }
  ~Ref() { Py_XDECREF(object_); }

  [[nodiscard]] PyObject* get() const noexcept { return object_; }
  [[nodiscard]] PyObject* release() noexcept { return std::exchange(object_, nullptr); }
  explicit operator bool() const noexcept { return object_ != nullptr; }

 private:
  explicit Ref(PyObject* object) noexcept : object_(object) {}
  PyObject* object_ = nullptr;
};

// Clears an error that says that something did not work. False for one that is to end what runs,
// such as KeyboardInterrupt, which stays set.
inline bool clear_exception() noexcept {
  if (PyErr_Occurred() == nullptr) return true;
  if (PyErr_ExceptionMatches(PyExc_Exception) == 0) return false;
  PyErr_Clear();
  return true;
}

// Drops what may be the last reference while an error may be set.
[[gnu::noinline]] inline void drop_last_keeping_error(PyObject* object) noexcept {
  if (PyErr_Occurred() == nullptr) {
    Py_XDECREF(object);
    return;
  }
  PyObject *type, *value, *traceback;
  PyErr_Fetch(&type, &value, &traceback);
  Py_XDECREF(object);
  PyErr_Restore(type, value, traceback);
}

// Drops a reference while an error may be set: what runs then must not see or lose the error.
inline void drop_keeping_error(PyObject* object) noexcept {
  if (object != nullptr && Py_REFCNT(object) > 1) {
    Py_DECREF(object);  // runs nothing
  } else {
    drop_last_keeping_error(object);
  }
}

}  // namespace dlferry::python
