#include "python/fresh.h"

#include <algorithm>
#include <utility>

#include "python/exchange.h"

namespace dlferry::python {
namespace {

Ref tuple_of(const std::int64_t* values, int count) {
  Ref tuple = Ref::steal(PyTuple_New(count));
  for (int i = 0; tuple && i < count; ++i) {
    PyObject* value = PyLong_FromLongLong(values[i]);
    if (value == nullptr) return {};
    PyTuple_SET_ITEM(tuple.get(), i, value);
  }
  return tuple;
}

// --- whether torch made what it was asked for ---

struct Asked {
  const std::int64_t* shape;
  const std::int64_t* strides;  // in elements; of no account on axes of length 1
  int ndim;
  std::optional<DType> dtype;  // torch's default one, which is floating, where there is none

  [[nodiscard]] bool has(DType made) const noexcept {
    return dtype ? made == *dtype : is_floating(made);
  }

  [[nodiscard]] bool is_empty() const noexcept { return std::count(shape, shape + ndim, 0) > 0; }
};

bool agrees(const View& seen, const Asked& asked) noexcept {
  if (seen.device.device_type != dlpack::kCPU || !asked.has(seen.dtype) ||
      seen.ndim != asked.ndim || !std::equal(asked.shape, asked.shape + asked.ndim, seen.shape)) {
    return false;
  }
  if (asked.is_empty()) return true;
  for (int axis = 0; axis < asked.ndim; ++axis) {
    if (asked.shape[axis] > 1 &&
        seen.strides[axis] !=
            asked.strides[axis] * static_cast<std::int64_t>(item_size(seen.dtype))) {
      return false;
    }
  }
  return seen.data != nullptr;  // that of a functional tensor is null
}

// By the tensor's methods, where there is no table to look with.
bool agrees_when_asked(const Torch& torch, Fresh& fresh, const Asked& asked) {
  PyObject* tensor = fresh.tensor.get();
  const auto equal = [](const Ref& one, const Ref& other) {
    return one && other && PyObject_RichCompareBool(one.get(), other.get(), Py_EQ) == 1;
  };
  const Ref device = Ref::steal(PyObject_GetAttr(tensor, names().device));
  const Ref dtype = Ref::steal(PyObject_GetAttr(tensor, names().dtype));
  if (!equal(device, Ref::borrow(torch.cpu)) || !dtype) return false;
  const auto known = dtype_from_torch(torch, dtype.get());
  if (!known || !asked.has(*known)) return false;
  fresh.dtype = *known;
  const Ref shape = Ref::steal(PyObject_GetAttr(tensor, names().shape));
  if (!equal(shape, tuple_of(asked.shape, asked.ndim))) return false;
  if (asked.is_empty()) return true;
  const Ref strides = Ref::steal(PyObject_CallMethodNoArgs(tensor, names().stride));
  const Ref pointer = Ref::steal(PyObject_CallMethodNoArgs(tensor, names().data_ptr));
  if (!equal(strides, tuple_of(asked.strides, asked.ndim)) || !pointer) return false;
  fresh.data = static_cast<std::byte*>(PyLong_AsVoidPtr(pointer.get()));
  return fresh.data != nullptr;
}

// Finds the memory of a new tensor; false, perhaps with an error, when that is not what was asked
// for: the core writes to it by itself.
bool find_memory(const Torch& torch, Fresh& fresh, const Asked& asked) {
  if (Py_TYPE(fresh.tensor.get()) != torch.tensor) return false;
  if (torch.table == nullptr) return agrees_when_asked(torch, fresh, asked);
  TensorView seen;
  if (!look(torch, fresh.tensor.get(), seen)) return false;
  fresh.data = seen.view.data;
  fresh.dtype = seen.view.dtype;
  return agrees(seen.view, asked);
}

void set_not_ordinary() {
  PyErr_SetString(PyExc_BufferError,
                  "torch does not make ordinary tensors at present (a fake tensor, functional or "
                  "other mode is active), so nothing can be copied into one; leave the mode first");
}

// --- contiguous tensors ---

// No function mode is active, so that new tensors are not put elsewhere than on the CPU.
bool nobody_interferes(const Torch& torch) {
  return Ref::steal(torch.has_function_mode()).get() == Py_False;
}

bool has_dispatch_modes(const Torch& torch) {
  const Ref count = Ref::steal(torch.dispatch_mode_count());
  return !count || PyLong_AsLong(count.get()) != 0;
}

// A CPU tensor of the dtype with one element, made once; null where that cannot be now.
PyObject* example_of(const Torch& torch, DType dtype) {
  static std::array<PyObject*, kDTypeCount> examples{};
  PyObject*& example = examples[static_cast<std::size_t>(dtype)];
  if (example != nullptr) return example;
  const std::int64_t length = 1, stride = 1;
  const View like{nullptr, &length, nullptr, 1, dtype, false, {}};
  Fresh fresh = empty_strided(torch, like, &stride, dtype, /*on_cpu=*/true);
  (void)clear_exception();
  return fresh.hidden ? nullptr : example = fresh.tensor.release();
}

// A tenth quicker than `empty_strided` with a dtype, because there are no keywords to parse. Empty
// without an error where it does not serve.
Ref new_empty(const Torch& torch, const Shape& shape, DType dtype) {
  constexpr int kMostDims = 4;
  PyObject* example = shape.ndim <= kMostDims ? example_of(torch, dtype) : nullptr;
  if (example == nullptr) return {};
  std::array<Ref, kMostDims> lengths;
  std::array<PyObject*, kMostDims + 2> args{nullptr, example};
  for (std::size_t i = 0; i < static_cast<std::size_t>(shape.ndim); ++i) {
    lengths[i] = Ref::steal(PyLong_FromLongLong(shape.lengths[i]));
    args[i + 2] = lengths[i].get();
    if (!lengths[i]) return {};
  }
  return Ref::steal(PyObject_Vectorcall(
      torch.new_empty, args.data() + 1,
      static_cast<std::size_t>(shape.ndim + 1) | PY_VECTORCALL_ARGUMENTS_OFFSET, nullptr));
}

// False where they overflow.
bool contiguous_strides(const Shape& shape, std::int64_t* out) noexcept {
  std::int64_t size = 1;
  for (int axis = shape.ndim - 1; axis >= 0; --axis) {
    const std::int64_t length = shape.lengths[static_cast<std::size_t>(axis)];
    out[axis] = size;
    if (length > 1 && __builtin_mul_overflow(size, length, &size)) return false;
  }
  return true;
}

}  // namespace

bool has_modes(const Torch& torch) {
  return !nobody_interferes(torch) || has_dispatch_modes(torch);
}

bool is_watched(const Torch& torch) {
  return has_dispatch_modes(torch) || Ref::steal(torch.is_tracing()).get() != Py_False;
}

Ref shown(Fresh fresh) {
  if (!fresh.hidden) return std::move(fresh.tensor);
  Ref copy = Ref::steal(PyObject_CallMethodNoArgs(fresh.tensor.get(), names().clone));
  if (!copy && clear_exception()) set_not_ordinary();
  return copy;
}

Fresh empty_strided(const Torch& torch, const View& like, const std::int64_t* strides,
                    std::optional<DType> dtype, bool on_cpu) {
  const Ref shape = tuple_of(like.shape, like.ndim);
  const Ref steps = shape ? tuple_of(strides, like.ndim) : Ref();
  if (!steps) return {};
  const Asked asked{like.shape, strides, like.ndim, dtype};
  PyObject* const name = dtype ? torch.dtypes[static_cast<std::size_t>(*dtype)] : Py_None;
  Fresh fresh;
  if (!is_watched(torch)) {
    PyObject* args[] = {nullptr, shape.get(), steps.get(), nullptr, nullptr};
    PyObject** next = args + 3;
    if (dtype) *next++ = name;
    if (on_cpu) *next++ = torch.cpu;
    PyObject* const keywords = dtype && on_cpu ? names().for_dtype_and_device
                               : dtype         ? names().for_dtype
                               : on_cpu        ? names().for_device
                                               : nullptr;
    fresh.tensor = Ref::steal(PyObject_Vectorcall(torch.empty_strided, args + 1,
                                                  2 | PY_VECTORCALL_ARGUMENTS_OFFSET, keywords));
    if (!fresh.tensor) return {};
    if (find_memory(torch, fresh, asked)) return fresh;
  }
  if (!clear_exception()) return {};
  PyObject* args[] = {nullptr, shape.get(), steps.get(), name, on_cpu ? torch.cpu : Py_None};
  fresh.tensor = Ref::steal(PyObject_Vectorcall(installed().hidden_empty, args + 1,
                                                4 | PY_VECTORCALL_ARGUMENTS_OFFSET, nullptr));
  if (!fresh.tensor) return {};
  fresh.hidden = true;
  if (find_memory(torch, fresh, asked)) return fresh;
  if (clear_exception()) set_not_ordinary();
  return {};
}

Fresh allocate(const Torch& torch, const Shape& shape, std::optional<DType> dtype, bool on_cpu) {
  std::array<std::int64_t, kMaxDims> strides;
  if (!contiguous_strides(shape, strides.data())) return {};
  const std::int64_t* const lengths = shape.lengths.data();
  Fresh fresh;
  if (dtype && shape.ndim > 0 && nobody_interferes(torch) && !is_watched(torch)) {
    fresh.tensor = new_empty(torch, shape, *dtype);
  }
  if (fresh.tensor) {
    if (!find_memory(torch, fresh, {lengths, strides.data(), shape.ndim, dtype})) fresh = {};
  } else if (PyErr_Occurred() == nullptr) {
    const View like{nullptr, lengths, nullptr, shape.ndim, DType::kBool, false, {}};
    fresh = empty_strided(torch, like, strides.data(), dtype, on_cpu);
  }
  (void)clear_exception();
  return fresh;
}

}  // namespace dlferry::python
