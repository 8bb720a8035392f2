// The GIL, for what may run on any thread: deleters that torch and other consumers call.
#pragma once

#include "python/object.h"

namespace dlferry::python {

// From the moment that finalisation begins: a thread that asked for the GIL then would never go on.
inline bool interpreter_is_gone() noexcept { return Py_IsInitialized() == 0; }

// Holds the GIL, whether or not this thread had it. PyGILState_Ensure does the same for about 12 ns
// more, a twenty-fifth of a whole conversion: it finds the thread's state thrice, and counts.
class Gil {
 public:
  Gil() noexcept : own_(PyGILState_GetThisThreadState()) {
    if (own_ == nullptr) {
      made_ = PyGILState_Ensure();  // a thread that Python has not seen, or has forgotten
    } else if (own_ != current()) {
      PyEval_RestoreThread(own_);
    } else {
      held_before_ = true;
    }
  }
  Gil(const Gil&) = delete;
  Gil& operator=(const Gil&) = delete;
  ~Gil() {
    if (own_ == nullptr) {
      PyGILState_Release(made_);
    } else if (!held_before_) {
      PyEval_SaveThread();
    }
  }

 private:
  static PyThreadState* current() noexcept {
#if PY_VERSION_HEX >= 0x030D0000
    return PyThreadState_GetUnchecked();
#else
    return _PyThreadState_UncheckedGet();
#endif
  }

  PyThreadState* own_;
  PyGILState_STATE made_{};
  bool held_before_ = false;
};

}  // namespace dlferry::python
