// The GIL, for what may run on any thread: deleters that torch and other consumers call.
#pragma once

#include <pthread.h>
#include <unistd.h>

#include <atomic>

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

// The state of the thread that holds the GIL; null when nobody does.
inline PyThreadState* gil_holder() noexcept {
#if PY_VERSION_HEX >= 0x030D0000
  return PyThreadState_GetUnchecked();
#else
  return _PyThreadState_UncheckedGet();
#endif
}

// What tells this thread from all others that run. On Linux the C library's name for it is the same
// address, but takes a call.
inline auto this_thread() noexcept {
#if defined(__GNUC__) && __GNUC__ >= 11 && !defined(__clang__) && defined(__x86_64__)
  return __builtin_thread_pointer();
#else
  return pthread_self();
#endif
}

// The thread that imported the module, on which most tensors are made and dropped. Its state is
// null from the moment that Python clears it.
struct Importer {
  std::atomic<decltype(this_thread())> thread{};
  std::atomic<PyThreadState*> state{nullptr};
};
inline Importer importer;

// Makes this thread the importer. With the GIL; false with an error set.
[[nodiscard]] bool remember_importer();

// The state of this thread; null for one that Python has not seen, or has forgotten.
inline PyThreadState* own_state() noexcept {
  PyThreadState* const known = importer.state.load(std::memory_order_acquire);
  if (known != nullptr && importer.thread.load(std::memory_order_relaxed) == this_thread()) {
    return known;
  }
  return PyGILState_GetThisThreadState();
}

// Does `work` with the GIL held, whether or not this thread has it. PyGILState_Ensure does the same
// for about 15 ns more, a twentieth of a whole conversion: it searches for the thread's state
// thrice, and counts.
template <typename Work>
void with_gil(Work work) noexcept {
  PyThreadState* const own = own_state();
  if (own == nullptr) [[unlikely]] {
    PyGILState_STATE made{};
    take_or_stop([&made] { made = PyGILState_Ensure(); });
    work();
    PyGILState_Release(made);
  } else if (own == gil_holder()) [[unlikely]] {
    work();
  } else {
    take_gil_back(own);
    work();
    PyEval_SaveThread();
  }
}

}  // namespace dlferry::python
