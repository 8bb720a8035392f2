#include "python/asarray.h"

#include <algorithm>
#include <array>
#include <atomic>
#include <cstring>
#include <string>
#include <utility>

#include "python/exchange.h"
#include "python/ingest.h"
#include "python/mechanisms.h"
#include "python/request.h"
#include "python/sequence.h"
#include "tensor/host_copy.h"

namespace dlferry::python {
namespace {

std::atomic<int> guards{0};

bool is_host(const View& view) noexcept { return view.device.device_type != dlpack::kCUDA; }

// A copy of read-only memory is refused when the memory is a mapped file. False with an error set.
bool add_mapped_file(PyObject* object, const Request& request, Source& source) {
  const bool matters = (source.facts & kReadOnly) != 0 && request.copy != CopyPolicy::kAlways &&
                       request.readonly == ReadOnlyPolicy::kCopy;
  if (!matters) return true;
  const Ref mapped = Ref::steal(PyObject_CallOneArg(installed().is_mapped_file, object));
  if (mapped.get() == Py_True) source.facts |= kMappedFile;
  return static_cast<bool>(mapped);
}

// The general route, with the source that was made of the object so far: a producer is asked for
// its memory once only.
PyObject* delegate(const Call& call, PyObject* general, Source& source) {
  if (PyArray_CheckExact(call.args[0]) || PyCapsule_CheckExact(call.args[0])) {
    return call.delegate(general);  // cheap to look at again, and better known by name
  }
  try {
    const pybind11::object wrapped = wrap(std::move(source), call.args[0]);
    std::array<PyObject*, 1 + kMostKeywords> args;
    const Py_ssize_t keywords = call.keywords == nullptr ? 0 : PyTuple_GET_SIZE(call.keywords);
    std::copy_n(call.args, 1 + keywords, args.begin());
    args[0] = wrapped.ptr();
    return PyObject_Vectorcall(general, args.data(), 1, call.keywords);
  } catch (const std::exception& error) {
    PyErr_SetString(PyExc_MemoryError, error.what());
    return nullptr;
  }
}

// Memory that a Python object describes, shared or copied; anything else goes the general route.
PyObject* convert(const Torch& torch, const Call& call, const Request& request, PyObject* general) {
  PyObject* object = call.args[0];
  Source source;
  switch (ingest(object, request.copy == CopyPolicy::kNever, source)) {
    case Ingest::kFailed:
      return nullptr;
    case Ingest::kDeclined:
      return call.delegate(general);
    case Ingest::kTaken:
      break;
  }
  std::optional<DType> dtype = source.view.dtype;
  if (request.dtype != Py_None) dtype = dtype_from_torch(torch, request.dtype);
  if (source.has_dtype && dtype && is_host(source.view)) {
    const Facts memory = source.facts;
    if (*dtype != source.view.dtype) source.facts |= kDTypeDiffers;
    if (!add_mapped_file(object, request, source)) return nullptr;
    const Plan plan = decide(source.facts, request.copy, request.readonly);
    if (plan.action == Action::kShare) return share(torch, source);
    const bool guarded = plan.implicit && guards.load(std::memory_order_relaxed) != 0;
    if (plan.action == Action::kCopy && !guarded && can_copy(*dtype, source.view.dtype)) {
      return copy(torch, source, *dtype);
    }
    source.facts = memory;
  }
  return delegate(call, general, source);
}

bool is_tensor(const Torch& torch, PyObject* object) {
  return PyObject_TypeCheck(object, torch.tensor) != 0;
}

// Subclasses of ndarray may carry a mask or be a mapped file: those are told apart in Python.
bool is_plain(const Torch& torch, PyObject* object) {
  return PyArray_CheckExact(object) || (!is_tensor(torch, object) && !PyArray_Check(object));
}

[[gnu::noinline]] PyObject* convert_or_delegate(const Torch& torch, const Call& call,
                                                Signature signature) {
  const bool is_asarray = signature == Signature::kAsarray;
  PyObject* general = is_asarray ? installed().asarray : installed().from_dlpack;
  Request request;
  if (!parse(torch, call, signature, request)) return call.delegate(general);
  if (is_asarray && is_plain_sequence(call.args[0])) {
    if (request.copy == CopyPolicy::kNever) return call.delegate(general);
    PyObject* made = tensor_of_sequence(torch, call.args[0], {request.dtype, request.on_cpu});
    return made != nullptr || PyErr_Occurred() != nullptr ? made : call.delegate(general);
  }
  return is_plain(torch, call.args[0]) ? convert(torch, call, request, general)
                                       : call.delegate(general);
}

// Most arrays have nothing about them that a policy would have to decide, and are shared in the
// shortest way. Null for anything else, and before the first call has found torch.
[[gnu::always_inline]] inline const dlpack::DataType* whole_type(const Torch* torch,
                                                                 PyObject* object) noexcept {
  if (torch == nullptr || torch->table == nullptr || !PyArray_CheckExact(object)) return nullptr;
  auto* array = reinterpret_cast<PyArrayObject*>(object);
  return PyArray_ISCARRAY(array) ? dlpack_type_of_number(PyArray_DESCR(array)->type_num) : nullptr;
}

// The other ways are functions of their own: the shortest one would save registers for their calls.
[[gnu::noinline]] PyObject* asarray_otherwise(PyObject* const* args, Py_ssize_t nargs,
                                              PyObject* keywords) {
  const Call call{args, nargs, keywords};
  const Torch* const torch = python::torch();
  if (torch == nullptr) return nullptr;
  if (call.is_bare() && is_tensor(*torch, call.args[0])) {
    Py_INCREF(call.args[0]);
    return call.args[0];
  }
  return convert_or_delegate(*torch, call, Signature::kAsarray);
}

[[gnu::hot, gnu::aligned(kHotAlignment)]] PyObject* asarray(PyObject*, PyObject* const* args,
                                                            Py_ssize_t nargs, PyObject* keywords) {
  if (nargs == 1 && keywords == nullptr) [[likely]] {
    const Torch* const torch = known_torch();
    if (const dlpack::DataType* type = whole_type(torch, args[0])) [[likely]]
      return share_whole(*torch, reinterpret_cast<PyArrayObject*>(args[0]), *type);
  }
  return asarray_otherwise(args, nargs, keywords);
}

// A new tensor on the memory of a plain one: what an export and an import through DLPack would
// give, in one step of torch's own, so that conj and neg bits stay true. Null without an error: not
// plain.
[[gnu::hot]] PyObject* alias(const Torch& torch, PyObject* tensor) {
  TensorView seen;
  if (torch.table == nullptr || !look(torch, tensor, seen)) {
    PyErr_Clear();
    return nullptr;
  }
  const Ref requires_grad = Ref::steal(PyObject_GetAttr(tensor, names().requires_grad));
  if (requires_grad.get() != Py_False) return nullptr;
  return torch.detach(tensor);
}

[[gnu::noinline]] PyObject* from_dlpack_otherwise(PyObject* const* args, Py_ssize_t nargs,
                                                  PyObject* keywords) {
  const Call call{args, nargs, keywords};
  const Torch* const torch = python::torch();
  if (torch == nullptr) return nullptr;
  if (call.is_bare() && Py_TYPE(call.args[0]) == torch->tensor) {
    PyObject* result = alias(*torch, call.args[0]);
    if (result != nullptr || PyErr_Occurred() != nullptr) return result;
  }
  return convert_or_delegate(*torch, call, Signature::kFromDlpack);
}

[[gnu::hot, gnu::aligned(kHotAlignment)]] PyObject* from_dlpack(PyObject*, PyObject* const* args,
                                                                Py_ssize_t nargs,
                                                                PyObject* keywords) {
  if (nargs == 1 && keywords == nullptr) [[likely]] {
    const Torch* const torch = known_torch();
    if (const dlpack::DataType* type = whole_type(torch, args[0])) [[likely]]
      return share_whole(*torch, reinterpret_cast<PyArrayObject*>(args[0]), *type);
  }
  return from_dlpack_otherwise(args, nargs, keywords);
}

bool bit_is_set(PyObject* tensor, const Method& method) {
  const Ref bit = Ref::steal(method(tensor));
  (void)clear_exception();
  return bit.get() != Py_False;
}

// Null, perhaps with an error: not a plain CPU tensor of one of NumPy's dtypes.
[[gnu::hot]] PyObject* array_of(const Torch& torch, PyObject* tensor) {
  Ref storage = Ref::steal(torch.untyped_storage(tensor));
  if (!storage) return nullptr;
  const Ref resizable = Ref::steal(torch.resizable(storage.get()));
  if (resizable.get() == Py_True) return first_array_on(torch, tensor, std::move(storage));
  TensorView seen;
  if (!resizable || !look(torch, tensor, seen)) return nullptr;
  const View& view = seen.view;
  if (view.device.device_type != dlpack::kCPU || numpy_descr(view.dtype) == nullptr) {
    return nullptr;
  }
  if (bit_is_set(tensor, torch.is_neg)) return nullptr;
  if (is_complex(view.dtype) && bit_is_set(tensor, torch.is_conj)) return nullptr;
  return array_on(view, std::move(storage));
}

[[gnu::hot]] PyObject* to_numpy(PyObject*, PyObject* const* args, Py_ssize_t nargs,
                                PyObject* keywords) {
  const Torch* const torch = python::torch();
  if (torch == nullptr) return nullptr;
  const Call call{args, nargs, keywords};
  if (call.is_bare() && Py_TYPE(args[0]) == torch->tensor && torch->table != nullptr) {
    PyObject* result = array_of(*torch, args[0]);
    if (result != nullptr) return result;
    if (!clear_exception()) return nullptr;
    // The general route says what there is to say.
  }
  return call.delegate(installed().to_numpy);
}

PyObject* stack(PyObject*, PyObject* const* args, Py_ssize_t nargs, PyObject* keywords) {
  const Call call{args, nargs, keywords};
  const Torch* const torch = python::torch();
  if (torch == nullptr) return nullptr;
  Request request;
  if (parse(*torch, call, Signature::kStack, request) &&
      (PyList_CheckExact(args[0]) || PyTuple_CheckExact(args[0]))) {
    PyObject* made =
        stack_of_sequence(*torch, args[0], {request.dtype, request.on_cpu}, request.out);
    if (made != nullptr || PyErr_Occurred() != nullptr) return made;
  }
  return call.delegate(installed().stack);
}

PyCFunction raw(PyObject* (*function)(PyObject*, PyObject* const*, Py_ssize_t, PyObject*)) {
  return reinterpret_cast<PyCFunction>(reinterpret_cast<void (*)()>(function));
}

}  // namespace

PyMethodDef* hot_functions() noexcept {
  constexpr int kFlags = METH_FASTCALL | METH_KEYWORDS;
  static PyMethodDef methods[] = {
      {"asarray", raw(&asarray), kFlags,
       "asarray($module, obj, /, *, dtype=None, device=None, copy=None, requires_grad=None, "
       "readonly='copy')\n--\n\n"},
      {"from_dlpack", raw(&from_dlpack), kFlags,
       "from_dlpack($module, x, /, *, device=None, copy=None, readonly='copy')\n--\n\n"},
      {"to_numpy", raw(&to_numpy), kFlags,
       "to_numpy($module, x, /, *, dtype=None, copy=None, out=None)\n--\n\n"},
      {"stack", raw(&stack), kFlags,
       "stack($module, arrays, /, *, dtype=None, device=None, out=None)\n--\n\n"},
      {nullptr, nullptr, 0, nullptr},
  };
  return methods;
}

void watch_copies(int change) noexcept { guards.fetch_add(change, std::memory_order_relaxed); }

bool document(const char* name, const char* text) {
  for (PyMethodDef* method = hot_functions(); method->ml_name != nullptr; ++method) {
    if (std::strcmp(method->ml_name, name) != 0) continue;
    // Leaked on purpose: the builtin reads it until the process ends.
    auto* documented = new std::string(std::string(method->ml_doc) + text);
    method->ml_doc = documented->c_str();
    return true;
  }
  return false;
}

}  // namespace dlferry::python
