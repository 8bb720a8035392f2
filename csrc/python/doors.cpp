#include "python/doors.h"

#include <atomic>
#include <string>

namespace dlferry::python {
namespace {

Names interned;
std::atomic<const Torch*> resolved{nullptr};

// Borrowed by `dict`, kept alive on purpose for the life of the process.
PyObject* keep(PyObject* dict, const char* name) {
  PyObject* value = PyDict_GetItemString(dict, name);
  if (value == nullptr) PyErr_Format(PyExc_KeyError, "names_for_core lacks %s", name);
  Py_XINCREF(value);
  return value;
}

const Torch* resolve() {
  const Ref dict = Ref::steal(PyObject_CallNoArgs(installed().torch_names));
  if (!dict) return nullptr;
  auto* found = new Torch{};  // leaked: the hot functions may run until the process ends
  found->tensor = reinterpret_cast<PyTypeObject*>(keep(dict.get(), "Tensor"));
  found->cpu = keep(dict.get(), "cpu");
  found->empty_strided = keep(dict.get(), "empty_strided");
  found->from_capsule = keep(dict.get(), "from_capsule");
  found->numpy = keep(dict.get(), "numpy");
  found->new_empty = keep(dict.get(), "new_empty");
  found->get_default_dtype = keep(dict.get(), "get_default_dtype");
  found->increment_version = keep(dict.get(), "increment_version");
  found->forward_ad = keep(dict.get(), "forward_ad");
  PyObject* capsule = keep(dict.get(), "exchange_table");
  PyObject* dtypes = keep(dict.get(), "dtypes");
  auto* storage = reinterpret_cast<PyTypeObject*>(keep(dict.get(), "UntypedStorage"));
  const auto method = [&dict](PyTypeObject* type, const char* name) {
    return Method::of(type, keep(dict.get(), name));
  };
  found->has_function_mode = Builtin::of(keep(dict.get(), "has_function_mode"));
  found->dispatch_mode_count = Builtin::of(keep(dict.get(), "dispatch_mode_count"));
  found->is_tracing = Builtin::of(keep(dict.get(), "is_tracing"));
  found->is_neg = method(found->tensor, "is_neg");
  found->is_conj = method(found->tensor, "is_conj");
  found->is_inference = method(found->tensor, "is_inference");
  found->detach = method(found->tensor, "detach");
  found->untyped_storage = method(found->tensor, "untyped_storage");
  found->resizable = method(storage, "resizable");
  if (PyErr_Occurred() != nullptr) return nullptr;
  found->table = exchange_table(capsule);
  if (found->table != nullptr && found->table->dltensor_from_py_object_no_sync == nullptr) {
    found->table = nullptr;
  }
  for (std::size_t i = 0; i < kDTypeCount; ++i) {
    const std::string name(info(static_cast<DType>(i)).name);
    found->dtypes[i] = PyDict_GetItemString(dtypes, name.c_str());
    Py_XINCREF(found->dtypes[i]);
  }
  return found;
}

}  // namespace

Installed& installed() noexcept {
  static Installed callables;
  return callables;
}

const dlpack::ExchangeTable* exchange_table(PyObject* capsule) noexcept {
  if (PyCapsule_IsValid(capsule, dlpack::kExchangeCapsule) == 0) return nullptr;
  void* pointer = PyCapsule_GetPointer(capsule, dlpack::kExchangeCapsule);
  auto* header = static_cast<dlpack::ExchangeHeader*>(pointer);
  while (header != nullptr && header->version.major != dlpack::kMajorVersion) {
    header = header->prev_api;
  }
  return reinterpret_cast<const dlpack::ExchangeTable*>(header);
}

const Torch* known_torch() noexcept { return resolved.load(std::memory_order_acquire); }

const Torch* torch() {
  if (const Torch* known = known_torch()) return known;
  const Torch* found = resolve();
  if (found != nullptr) resolved.store(found, std::memory_order_release);
  return found;
}

std::optional<DType> dtype_from_torch(const Torch& torch, PyObject* dtype) noexcept {
  for (std::size_t i = 0; i < kDTypeCount; ++i) {
    if (torch.dtypes[i] == dtype) return static_cast<DType>(i);
  }
  return std::nullopt;
}

const Names& names() noexcept { return interned; }

bool intern_names() {
#define DLFERRY_INTERN(member, text) \
  if ((interned.member = PyUnicode_InternFromString(text)) == nullptr) return false;
  DLFERRY_NAMES(DLFERRY_INTERN)
#undef DLFERRY_INTERN
  Names& made = interned;
  made.dlpack_version = Py_BuildValue("(ii)", dlpack::kMajorVersion, dlpack::kMinorVersion);
  made.for_version = PyTuple_Pack(1, made.max_version);
  made.for_version_and_copy = PyTuple_Pack(2, made.max_version, made.copy);
  made.for_dtype = PyTuple_Pack(1, made.dtype);
  made.for_device = PyTuple_Pack(1, made.device);
  made.for_dtype_and_device = PyTuple_Pack(2, made.dtype, made.device);
  return made.dlpack_version != nullptr && made.for_version != nullptr &&
         made.for_version_and_copy != nullptr && made.for_dtype != nullptr &&
         made.for_device != nullptr && made.for_dtype_and_device != nullptr;
}

}  // namespace dlferry::python
