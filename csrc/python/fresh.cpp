#include "python/fresh.h"

#include <algorithm>

#include "python/exchange.h"

namespace dlferry::python {
namespace {

// By the tensor's methods, where there is no table to look with.
bool ask(const Torch& torch, Fresh& fresh) {
  PyObject* tensor = fresh.tensor.get();
  const Ref device = Ref::steal(PyObject_GetAttr(tensor, names().device));
  const Ref dtype = Ref::steal(PyObject_GetAttr(tensor, names().dtype));
  if (!device || !dtype || PyObject_RichCompareBool(device.get(), torch.cpu, Py_EQ) != 1) {
    return false;
  }
  const auto known = dtype_from_torch(torch, dtype.get());
  const Ref pointer = Ref::steal(PyObject_CallMethodNoArgs(tensor, names().data_ptr));
  if (!known || !pointer) return false;
  fresh.dtype = *known;
  fresh.data = static_cast<std::byte*>(PyLong_AsVoidPtr(pointer.get()));
  return PyErr_Occurred() == nullptr;
}

bool look_or_ask(const Torch& torch, Fresh& fresh) {
  if (Py_TYPE(fresh.tensor.get()) != torch.tensor) return false;
  if (torch.table == nullptr) return ask(torch, fresh);
  TensorView seen;
  if (!look(torch, fresh.tensor.get(), seen)) return false;
  fresh.dtype = seen.view.dtype;
  fresh.data = seen.view.data;
  return seen.view.device.device_type == dlpack::kCPU;
}

// No function mode is active, so that new tensors are not put elsewhere than on the CPU.
bool nobody_interferes(const Torch& torch) {
  if (torch.mode_count == Py_None) return false;
  const Ref count = Ref::steal(PyObject_CallNoArgs(torch.mode_count));
  const bool none = count && PyLong_AsLong(count.get()) == 0;
  PyErr_Clear();
  return none;
}

// Whether there is memory, where there must be some: a functional tensor has none.
bool has_memory(const Fresh& fresh, const Shape& shape) noexcept {
  const std::int64_t* lengths = shape.lengths.data();
  return fresh.data != nullptr || std::count(lengths, lengths + shape.ndim, 0) > 0;
}

// A CPU tensor of the dtype with one element, made once; null where that cannot be now.
PyObject* example_of(const Torch& torch, DType dtype) {
  static std::array<PyObject*, kDTypeCount> examples{};
  PyObject*& example = examples[static_cast<std::size_t>(dtype)];
  if (example != nullptr) return example;
  const std::int64_t length = 1, stride = 1;
  const View like{nullptr, &length, nullptr, 1, dtype, false, {}};
  Fresh fresh;
  fresh.tensor = empty_strided(torch, like, &stride, dtype, /*on_cpu=*/true);
  const bool plain = fresh.tensor && look_or_ask(torch, fresh) && fresh.data != nullptr;
  if (plain) example = fresh.tensor.release();
  PyErr_Clear();
  return example;
}

// A tenth quicker than `empty_strided`, because there are no keywords to parse. Empty without an
// error where it does not serve.
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

Ref contiguous(const Torch& torch, const Shape& shape, std::optional<DType> dtype, bool on_cpu) {
  std::array<std::int64_t, kMaxDims> strides;
  std::int64_t size = 1;
  for (int axis = shape.ndim - 1; axis >= 0; --axis) {
    const std::int64_t length = shape.lengths[static_cast<std::size_t>(axis)];
    strides[static_cast<std::size_t>(axis)] = size;
    if (length > 1 && __builtin_mul_overflow(size, length, &size)) return {};
  }
  const View like{nullptr, shape.lengths.data(), nullptr, shape.ndim, DType::kBool, false, {}};
  return empty_strided(torch, like, strides.data(), dtype, on_cpu);
}

}  // namespace

Fresh allocate(const Torch& torch, const Shape& shape, std::optional<DType> dtype, bool on_cpu) {
  Fresh fresh;
  const bool plain = dtype && shape.ndim > 0 && nobody_interferes(torch);
  if (plain) fresh.tensor = new_empty(torch, shape, *dtype);
  if (!fresh.tensor && PyErr_Occurred() == nullptr) {
    fresh.tensor = contiguous(torch, shape, dtype, on_cpu);
  }
  if (fresh.tensor && look_or_ask(torch, fresh) && has_memory(fresh, shape)) return fresh;
  PyErr_Clear();
  return {};
}

}  // namespace dlferry::python
