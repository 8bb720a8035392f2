// Source: foreign memory on its way to a tensor. A View, what is known about it, and its owner.
#pragma once

#include <array>
#include <cstdint>
#include <utility>

#include "python/object.h"
#include "tensor/plan.h"
#include "tensor/view.h"

namespace dlferry::python {

// Keeps foreign memory alive: a Python object, or a managed tensor whose deleter is still to be
// called. Move-only. May be dropped on any thread, with or without the GIL; a Python object that
// outlives the interpreter is leaked, because there is no one left to release it.
class Owner {
 public:
  Owner() noexcept = default;
  [[nodiscard]] static Owner of(Ref object) noexcept;
  [[nodiscard]] static Owner of(dlpack::ManagedTensor* tensor) noexcept;
  [[nodiscard]] static Owner of(dlpack::ManagedTensorVersioned* tensor) noexcept;
  [[nodiscard]] static Owner of_capsule(Ref capsule) noexcept;  // unclaimed: still the producer's
  Owner(Owner&& other) noexcept
      : kind_(std::exchange(other.kind_, Kind::kNone)), pointer_(other.pointer_) {}
  Owner& operator=(Owner&& other) noexcept {
    std::swap(kind_, other.kind_);
    std::swap(pointer_, other.pointer_);
    return *this;
  }
  ~Owner() {
    if (kind_ != Kind::kNone) release();
  }

  // Consumes the capsule, if the owner is one, and owns its tensor from now on. Until then a
  // refusal leaves the capsule as it was. BufferError when another consumer came first.
  [[nodiscard]] bool claim();

 private:
  enum class Kind : std::uint8_t { kNone, kObject, kCapsule, kManaged, kManagedVersioned };
  Owner(Kind kind, void* pointer) noexcept : kind_(kind), pointer_(pointer) {}
  Kind kind_ = Kind::kNone;
  void release() noexcept;

  void* pointer_ = nullptr;
};

// Moved, never copied: `view` may point into the object itself.
struct Source {
  Source() noexcept = default;
  Source(Source&& other) noexcept;
  Source& operator=(Source&&) = delete;

  View view;
  Facts facts = 0;          // of the memory; dtype and device are the request's affair
  bool contiguous = false;  // known to be C-contiguous: torch may work the strides out
  bool has_dtype = false;  // false: torch has no dtype for these elements, `view` is not to be used
  Owner owner;
  // Back `view.shape` and `view.strides` where nothing else keeps them: an array's own may change
  // under another thread's hands.
  std::array<std::int64_t, kMaxDims> shape;
  std::array<std::int64_t, kMaxDims> strides;
};

}  // namespace dlferry::python
