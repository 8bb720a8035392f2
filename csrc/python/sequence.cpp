#include "python/sequence.h"

#include <algorithm>
#include <new>

#include "python/leaves.h"

namespace dlferry::python {
namespace {

enum class Outcome : std::uint8_t { kDone, kPromote, kLeaves, kGeneral };

// --- Python numbers, in one pass ---

struct Items {
  PyObject** first;
  Py_ssize_t count;
};

bool items_of(PyObject* object, Items& out) noexcept {
  if (!PyList_CheckExact(object) && !PyTuple_CheckExact(object)) return false;
  out = {PySequence_Fast_ITEMS(object), PySequence_Fast_GET_SIZE(object)};
  return true;
}

// The shape that the first items say, and the first leaf; null where a list is empty. False when it
// is nested too deeply.
bool descend(PyObject* object, Shape& shape, PyObject*& leaf) noexcept {
  Items items;
  for (; items_of(object, items); object = items.first[0]) {
    if (shape.ndim == kMaxDims) return false;
    shape.lengths[static_cast<std::size_t>(shape.ndim++)] = items.count;
    if (items.count == 0) {
      leaf = nullptr;
      return true;
    }
  }
  leaf = object;
  return true;
}

// Writes numbers nested as `shape` says. Trusts nothing that was seen before, and runs no Python
// code itself, so that the items can be borrowed.
class NumberFill {
 public:
  NumberFill(const Shape& shape, const NumberWriter& writer, std::byte* elements) noexcept
      : shape_(shape), writer_(writer), elements_(elements) {}

  // Null, or the object that stopped it; borrowed, and only to be looked at at once.
  [[nodiscard]] PyObject* fill(PyObject* object, int axis) noexcept {
    if (axis == shape_.ndim) return write(&object, 1);
    Items items;
    if (!items_of(object, items)) return object;
    if (items.count != shape_.lengths[static_cast<std::size_t>(axis)]) return object;
    if (axis == shape_.ndim - 1) return write(items.first, items.count);
    for (Py_ssize_t i = 0; i < items.count; ++i) {
      if (PyObject* stopped = fill(items.first[i], axis + 1)) return stopped;
    }
    return nullptr;
  }

 private:
  PyObject* write(PyObject* const* items, Py_ssize_t count) noexcept {
    const Py_ssize_t written = writer_.write(items, count, elements_);
    elements_ += static_cast<std::size_t>(count) * item_size(writer_.dtype);
    return written == count ? nullptr : items[written];
  }

  const Shape& shape_;
  const NumberWriter& writer_;
  std::byte* elements_;
};

// A try with the dtype that numbers up to `kind` have.
Outcome write_numbers(const Torch& torch, PyObject* object, const Shape& shape,
                      const SequenceRequest& request, Number& kind, Ref& result) {
  std::optional<DType> dtype;  // torch's default for floats: not to ask for it takes less time
  if (request.dtype != Py_None) {
    dtype = dtype_from_torch(torch, request.dtype);
    if (!dtype) return Outcome::kGeneral;
    kind = widest_number(*dtype);
  } else if (kind == Number::kBool) {
    dtype = DType::kBool;
  } else if (kind == Number::kInt) {
    dtype = DType::kInt64;
  } else if (kind == Number::kComplex) {
    const Ref real = Ref::steal(PyObject_CallNoArgs(torch.get_default_dtype));
    const auto known = real ? dtype_from_torch(torch, real.get()) : std::nullopt;
    if (!known) return Outcome::kGeneral;
    dtype = complex_partner(*known);
  }
  Fresh fresh = allocate(torch, shape, dtype, request.on_cpu);
  if (!fresh.tensor) return Outcome::kGeneral;
  const auto writer = NumberWriter::make(torch, fresh.dtype, kind);
  if (!writer) return Outcome::kGeneral;
  PyObject* stopped = NumberFill(shape, *writer, fresh.data).fill(object, 0);
  if (stopped == nullptr) {
    result = shown(std::move(fresh));
    return result || !clear_exception() ? Outcome::kDone : Outcome::kGeneral;
  }
  const Number met = number_kind(stopped);
  if (met == Number::kNone) return Outcome::kLeaves;
  if (met <= kind || request.dtype != Py_None) return Outcome::kGeneral;
  kind = met;
  return Outcome::kPromote;
}

Outcome numbers(const Torch& torch, PyObject* object, const SequenceRequest& request, Ref& result) {
  Shape shape;
  PyObject* leaf;
  if (!descend(object, shape, leaf)) return Outcome::kGeneral;
  Number kind = leaf == nullptr ? Number::kFloat : number_kind(leaf);
  if (kind == Number::kNone) return Outcome::kLeaves;
  Outcome outcome;
  do {
    outcome = write_numbers(torch, object, shape, request, kind, result);
  } while (outcome == Outcome::kPromote);
  return outcome;
}

// --- anything else, in two steps ---

View contiguous(const Shape& shape, std::byte* data, DType dtype, std::int64_t* strides) noexcept {
  auto size = static_cast<std::int64_t>(item_size(dtype));
  for (int axis = shape.ndim - 1; axis >= 0; --axis) {
    strides[axis] = size;
    size *= std::max<std::int64_t>(shape.lengths[static_cast<std::size_t>(axis)], 1);
  }
  return {data, shape.lengths.data(), strides, shape.ndim, dtype, false, {}};
}

PyObject* fill_new(const Torch& torch, Leaves& leaves, bool on_cpu) {
  const auto dtype = leaves.dtype();
  if (!dtype || !leaves.cast_to(*dtype)) return nullptr;
  Fresh fresh = allocate(torch, leaves.shape(), dtype, on_cpu);
  if (!fresh.tensor || !leaves.look_again()) return nullptr;
  std::array<std::int64_t, kMaxDims> strides;
  const View out = contiguous(leaves.shape(), fresh.data, *dtype, strides.data());
  if (!leaves.fill(out, /*fresh=*/true)) return nullptr;
  Ref result = shown(std::move(fresh));
  if (!result) (void)clear_exception();
  return result.release();
}

// Whether elements of one dtype become elements of the other without an explicit `dtype=`.
bool can_cast(DType from, DType to) noexcept {
  const auto kind = [](DType dtype) {
    if (dtype == DType::kBool) return 0;
    return is_complex(dtype) ? 3 : is_floating(dtype) ? 2 : 1;
  };
  return kind(from) <= kind(to);
}

PyObject* fill_into(const Torch& torch, Leaves& leaves, const SequenceRequest& request,
                    PyObject* out) {
  TensorView seen;
  const auto dtype = leaves.dtype();
  if (!dtype || leaves.has_numbers() || is_watched(torch) || !leaves.look_again()) return nullptr;
  if (!look_plain(torch, out, seen)) return nullptr;
  // Such a tensor is written to in inference mode only: torch knows.
  if (Ref::steal(torch.is_inference(out)).get() != Py_False) return nullptr;
  const View& view = seen.view;
  const bool agrees =
      request.dtype == Py_None ? can_cast(*dtype, view.dtype) : *dtype == view.dtype;
  const Shape& shape = leaves.shape();
  if (!agrees || view.ndim != shape.ndim ||
      !std::equal(view.shape, view.shape + view.ndim, shape.lengths.data()) || !is_dense(view) ||
      !leaves.cast_to(view.dtype) || leaves.overlap(view)) {
    return nullptr;
  }
  View memory = view;
  memory.shape = shape.lengths.data();  // `out` may be given another shape while the GIL is away
  if (!leaves.fill(memory, /*fresh=*/false)) return nullptr;
  const Ref told = Ref::steal(PyObject_CallOneArg(torch.increment_version, out));
  if (!told) return nullptr;
  Py_INCREF(out);
  return out;
}

// Python calls this code, which knows no C++ exceptions.
template <class Body>
PyObject* guarded(const Body& body) noexcept {
  try {
    return body();
  } catch (const std::bad_alloc&) {
    return PyErr_NoMemory();
  }
}

}  // namespace

bool is_plain_sequence(PyObject* object) noexcept {
  return number_kind(object) != Number::kNone || PyList_CheckExact(object) ||
         PyTuple_CheckExact(object);
}

PyObject* tensor_of_sequence(const Torch& torch, PyObject* object, const SequenceRequest& request) {
  return guarded([&]() -> PyObject* {
    Ref result;
    const Outcome outcome = numbers(torch, object, request, result);
    if (outcome == Outcome::kDone) return result.release();
    if (outcome == Outcome::kGeneral) return nullptr;
    Leaves leaves(torch, request.dtype);
    return leaves.scan(object) ? fill_new(torch, leaves, request.on_cpu) : nullptr;
  });
}

PyObject* stack_of_sequence(const Torch& torch, PyObject* arrays, const SequenceRequest& request,
                            PyObject* out) {
  return guarded([&]() -> PyObject* {
    if (PySequence_Fast_GET_SIZE(arrays) == 0) return nullptr;
    Leaves leaves(torch, request.dtype);
    if (!leaves.scan(arrays)) return nullptr;
    if (out != Py_None) return fill_into(torch, leaves, request, out);
    return fill_new(torch, leaves, request.on_cpu || leaves.has_arrays());
  });
}

}  // namespace dlferry::python
