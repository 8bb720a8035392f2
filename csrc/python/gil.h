// The GIL, for what may run on any thread: deleters that torch and other consumers call.
#pragma once

#include <unistd.h>

#include "python/object.h"

namespace dlferry::python {

// From the moment that finalisation begins: a thread that asked for the GIL then would never go on.
inline bool interpreter_is_gone() noexcept { return Py_IsInitialized() == 0; }

// Takes the GIL, which this thread does not have. An interpreter that shuts down meanwhile ends the
// thread, before Python 3.14 by unwinding its stack: destructors would drop references without the
// GIL, and `noexcept` would end the process. It stops here instead, for good, as from 3.14 on.
template <typename Take>
void take_or_stop(Take take) noexcept {
  try {
    take();
  } catch (...) {
    for (;;) pause();
  }
}

// Ends what PyEval_SaveThread began.
inline void take_gil_back(PyThreadState* state) noexcept {
  take_or_stop([state] { PyEval_RestoreThread(state); });
}

// Holds the GIL, whether or not this thread had it. PyGILState_Ensure does the same for about 12 ns
// more, a twenty-fifth of a whole conversion: it finds the thread's state thrice, and counts.
class Gil {
 public:
  Gil() noexcept : own_(PyGILState_GetThisThreadState()) {
    if (own_ == nullptr) {
      // A thread that Python has not seen, or has forgotten.
      take_or_stop([this] { made_ = PyGILState_Ensure(); });
    } else if (own_ != current()) {
      take_gil_back(own_);
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
