// What the core needs from Python: the few callables installed once by `dlferry/__init__.py`, and
// torch itself, looked up on the first call that needs it.
#pragma once

#include <array>
#include <optional>

#include "abi/dlpack.h"
#include "python/builtin.h"
#include "python/object.h"
#include "tensor/dtype.h"

namespace dlferry::python {

// Callables of the Python layer. Held for the life of the process: the hot functions may run while
// modules are being torn down.
struct Installed {
  PyObject* torch_names = nullptr;  // () -> dict, `_doors.names_for_core`
  PyObject* asarray = nullptr;      // the general routes, for whatever the fast paths do not take
  PyObject* from_dlpack = nullptr;
  PyObject* to_numpy = nullptr;
  PyObject* stack = nullptr;
  PyObject* is_mapped_file = nullptr;  // (read-only array) -> bool
  PyObject* is_immutable = nullptr;    // (type) -> bool: arrays that no DLPack flag protects
  PyObject* exported = nullptr;        // (producer, never copy) -> capsule or None: in order
  PyObject* leaf = nullptr;            // (item of a sequence, dtype) -> tensor or None
  PyObject* promoted = nullptr;        // (dtypes) -> dtype
  PyObject* float_limit = nullptr;     // (dtype) -> float, the smallest magnitude that overflows
  PyObject* hidden_empty = nullptr;    // (shape, strides, dtype, device) -> tensor
};
[[nodiscard]] Installed& installed() noexcept;

// The table in a type's `__dlpack_c_exchange_api__`; null when it is none, or of another major
// version. Never leaves an error set.
[[nodiscard]] const dlpack::ExchangeTable* exchange_table(PyObject* capsule) noexcept;

// torch's objects, resolved once. Null with a Python error set when torch cannot be imported.
struct Torch {
  PyTypeObject* tensor;
  const dlpack::ExchangeTable* table;         // null before torch 2.10; can look at tensors
  std::array<PyObject*, kDTypeCount> dtypes;  // null for those that this torch lacks
  PyObject* cpu;                              // torch.device("cpu")
  PyObject* empty_strided;
  PyObject* from_capsule;  // (legacy capsule, dtype) -> tensor, where there is no table
  Method is_neg;
  Method is_conj;
  Method is_inference;
  Method detach;
  Method untyped_storage;
  Method resizable;     // of UntypedStorage
  PyObject* numpy;      // Tensor's, unbound: that costs less than to look it up on each tensor
  PyObject* new_empty;  // Tensor's, unbound
  Builtin has_function_mode;    // () -> bool
  Builtin dispatch_mode_count;  // () -> int
  Builtin is_tracing;           // () -> bool, by torch.jit
  PyObject* get_default_dtype;
  PyObject* increment_version;  // (tensor): tells autograd that its elements have changed
  PyObject* forward_ad;         // the module, whose `_current_level` is -1 outside `dual_level`
};
[[nodiscard]] const Torch* torch();

// The same; null before the first call of `torch`.
[[nodiscard]] const Torch* known_torch() noexcept;

// The DType of a `torch.dtype`; empty for those the table does not have, and for other objects.
[[nodiscard]] std::optional<DType> dtype_from_torch(const Torch& torch, PyObject* dtype) noexcept;

// Interned attribute and keyword names, as X(member, text).
#define DLFERRY_NAMES(X)             \
  X(dtype, "dtype")                  \
  X(device, "device")                \
  X(copy, "copy")                    \
  X(requires_grad, "requires_grad")  \
  X(readonly, "readonly")            \
  X(out, "out")                      \
  X(data_ptr, "data_ptr")            \
  X(shape, "shape")                  \
  X(stride, "stride")                \
  X(clone, "clone")                  \
  X(current_level, "_current_level") \
  X(dlpack, "__dlpack__")            \
  X(max_version, "max_version")      \
  X(exchange_api, "__dlpack_c_exchange_api__")

struct Names {
#define DLFERRY_MEMBER(member, text) PyObject* member = nullptr;
  DLFERRY_NAMES(DLFERRY_MEMBER)
#undef DLFERRY_MEMBER
  // Arguments and keywords of the core's own calls. Made at import like the names: a static made on
  // first use would wait for itself when the garbage collector runs in between and converts.
  PyObject* dlpack_version = nullptr;
  PyObject* for_version = nullptr;
  PyObject* for_version_and_copy = nullptr;
  PyObject* for_dtype = nullptr;
  PyObject* for_device = nullptr;
  PyObject* for_dtype_and_device = nullptr;
};
[[nodiscard]] const Names& names() noexcept;
[[nodiscard]] bool intern_names();  // false with a Python error set

}  // namespace dlferry::python
