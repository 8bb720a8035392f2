#include "python/source.h"

#include <utility>

#include "python/gil.h"

namespace dlferry::python {
namespace {

void drop_on_any_thread(PyObject* object) noexcept {
  if (interpreter_is_gone()) return;
  with_gil([object] { drop_keeping_error(object); });
}

}  // namespace

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
      drop_on_any_thread(static_cast<PyObject*>(pointer_));
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
