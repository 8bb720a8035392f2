#include "python/gil.h"

namespace dlferry::python {
namespace {

constexpr char kKey[] = "dlferry.importer";

void forget_importer(PyObject*) { importer.state.store(nullptr, std::memory_order_release); }

}  // namespace

// A thread's dictionary is cleared before its state is given back, whoever does that: the thread at
// its end, a forked child for the threads it has lost, the interpreter for all.
bool remember_importer() {
  PyObject* const kept = PyThreadState_GetDict();  // borrowed
  if (kept == nullptr) return true;                // then its state is searched for, as any other
  const Ref watch = Ref::steal(PyCapsule_New(&importer, kKey, &forget_importer));
  // An earlier import's watch goes here, and forgets.
  if (!watch || PyDict_SetItemString(kept, kKey, watch.get()) != 0) return false;
  importer.thread.store(this_thread(), std::memory_order_relaxed);
  importer.state.store(PyThreadState_Get(), std::memory_order_release);
  return true;
}

}  // namespace dlferry::python
