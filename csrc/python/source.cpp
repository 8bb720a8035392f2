#include "python/source.h"

#include <utility>

namespace dlferry::python {
namespace {

// From the moment that finalisation begins: a thread that asked for the GIL then would never go on.
bool interpreter_is_gone() noexcept { return Py_IsInitialized() == 0; }

PyThreadState* current_thread_state() noexcept {
#if PY_VERSION_HEX >= 0x030D0000
  return PyThreadState_GetUnchecked();
#else
  return _PyThreadState_UncheckedGet();
#endif
}

// Holds the GIL, whether or not this thread had it. PyGILState_Ensure does the same for about 12 ns
// more, a twenty-fifth of a whole conversion: it finds the thread's state thrice, and counts.
class Gil {
 public:
  Gil() noexcept : own_(PyGILState_GetThisThreadState()) {
    if (own_ == nullptr) {
      made_ = PyGILState_Ensure();  // a thread that Python has not seen, or has forgotten
    } else if (own_ != current_thread_state()) {
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
  PyThreadState* own_;
  PyGILState_STATE made_{};
  bool held_before_ = false;
};

}  // namespace

void drop_anywhere(PyObject* object) noexcept {
  if (interpreter_is_gone()) return;
  const Gil gil;
  drop_keeping_error(object);
}

Owner Owner::of(Ref object) noexcept { return {Kind::kObject, object.release()}; }

Owner Owner::of(dlpack::ManagedTensor* tensor) noexcept { return {Kind::kManaged, tensor}; }

Owner Owner::of(dlpack::ManagedTensorVersioned* tensor) noexcept {
  return {Kind::kManagedVersioned, tensor};
}

Owner Owner::of_capsule(Ref capsule) noexcept { return {Kind::kCapsule, capsule.release()}; }

void Owner::release() noexcept {
  switch (kind_) {
    case Kind::kNone:
      return;
    case Kind::kObject:
    case Kind::kCapsule:
      drop_anywhere(static_cast<PyObject*>(pointer_));
      return;
    case Kind::kManaged: {
      auto* tensor = static_cast<dlpack::ManagedTensor*>(pointer_);
      if (tensor->deleter != nullptr) tensor->deleter(tensor);
      return;
    }
    case Kind::kManagedVersioned: {
      auto* tensor = static_cast<dlpack::ManagedTensorVersioned*>(pointer_);
      if (tensor->deleter != nullptr) tensor->deleter(tensor);
      return;
    }
  }
}

bool Owner::claim() {
  if (kind_ != Kind::kCapsule) return true;
  auto* capsule = static_cast<PyObject*>(pointer_);
  const bool versioned = PyCapsule_IsValid(capsule, dlpack::kCapsuleVersioned) != 0;
  const char* name = versioned ? dlpack::kCapsuleVersioned : dlpack::kCapsule;
  void* tensor = PyCapsule_GetPointer(capsule, name);
  if (tensor == nullptr) {
    PyErr_SetString(PyExc_BufferError, "this DLPack capsule has been consumed already");
    return false;
  }
  const char* used = versioned ? dlpack::kUsedCapsuleVersioned : dlpack::kUsedCapsule;
  if (PyCapsule_SetName(capsule, used) != 0) return false;
  kind_ = versioned ? Kind::kManagedVersioned : Kind::kManaged;
  pointer_ = tensor;
  drop_keeping_error(capsule);
  return true;
}

Source::Source(Source&& other) noexcept
    : view(other.view),
      facts(other.facts),
      contiguous(other.contiguous),
      has_dtype(other.has_dtype),
      owner(std::move(other.owner)),
      shape(other.shape),
      strides(other.strides) {
  if (view.shape == other.shape.data()) view.shape = shape.data();
  if (view.strides == other.strides.data()) view.strides = strides.data();
}

}  // namespace dlferry::python
