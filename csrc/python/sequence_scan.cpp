// Leaves: the scan.
#include <algorithm>

#include "python/leaves.h"
#include "python/numpy_api.h"

namespace dlferry::python {
namespace {

constexpr std::uint32_t bit(DType dtype) noexcept {
  return std::uint32_t{1} << static_cast<unsigned>(dtype);
}
static_assert(kDTypeCount <= 32);

// Whether iterating over it gives its items, whatever else a subclass overrides.
bool is_list_inside(PyObject* object) noexcept {
  const PyTypeObject* type = Py_TYPE(object);
  const auto same = [type](const PyTypeObject& base) {
    return type->tp_iter == base.tp_iter &&
           type->tp_as_sequence->sq_length == base.tp_as_sequence->sq_length;
  };
  return PyList_Check(object) ? same(PyList_Type) : same(PyTuple_Type);
}

bool is_list_or_tuple(PyObject* object) noexcept {
  return PyList_Check(object) || PyTuple_Check(object);
}

// Numbers and sequences of other types, and tensors: the general route knows what they are.
bool is_left_alone(const Torch& torch, PyObject* object) noexcept {
  return PyLong_Check(object) || PyFloat_Check(object) || PyComplex_Check(object) ||
         PyRange_Check(object) || PyUnicode_Check(object) || object == Py_None ||
         PyObject_TypeCheck(object, torch.tensor);
}

// Outside `torch.autograd.forward_ad.dual_level()`, no tensor has a tangent.
bool may_have_tangents(const Torch& torch) {
  const Ref level = Ref::steal(PyObject_GetAttr(torch.forward_ad, names().current_level));
  const long value = level ? PyLong_AsLong(level.get()) : 0;
  PyErr_Clear();
  return value != -1;
}

struct Promotion {
  std::uint32_t kinds;
  DType dtype;
};

// Asked of Python once for each set of dtypes. Empty with a Python error set.
std::optional<DType> promoted(const Torch& torch, std::uint32_t kinds) {
  static std::array<Promotion, 32> known;  // as many as a program may well need
  static std::size_t count = 0;
  for (std::size_t i = 0; i < count; ++i) {
    if (known[i].kinds == kinds) return known[i].dtype;
  }
  const Ref list = Ref::steal(PyList_New(0));
  for (std::size_t i = 0; list && i < kDTypeCount; ++i) {
    if ((kinds >> i & 1U) == 0) continue;
    if (PyList_Append(list.get(), torch.dtypes[i]) < 0) return std::nullopt;
  }
  const Ref answer =
      list ? Ref::steal(PyObject_CallOneArg(installed().promoted, list.get())) : Ref();
  const auto dtype = answer ? dtype_from_torch(torch, answer.get()) : std::nullopt;
  // Nothing at all has torch's default dtype, which changes.
  if (dtype && kinds != 0 && count < known.size()) known[count++] = {kinds, *dtype};
  return dtype;
}

}  // namespace

bool Leaves::scan(PyObject* object) { return scan_item(object, 0); }

bool Leaves::scan_item(PyObject* object, int axis) {
  const Number number = number_kind(object);
  if (number != Number::kNone) return add_number(object, number, axis);
  if (PyList_CheckExact(object) || PyTuple_CheckExact(object)) return scan_items(object, axis);
  if (PyArray_CheckExact(object)) {
    const auto view = view_of_array(reinterpret_cast<PyArrayObject*>(object));
    if (!view) return scan_other(object, axis);
    return unreachable_reason(*view) == nullptr && add_array(*view, axis);
  }
  if (Py_TYPE(object) == torch_.tensor) return add_tensor(object, axis);
  if (const auto dtype = dtype_from_scalar(object)) return add_scalar(object, *dtype, axis);
  if (is_list_or_tuple(object)) return is_list_inside(object) && scan_items(object, axis);
  return !is_left_alone(torch_, object) && scan_other(object, axis);
}

// From a tuple of its own: a leaf's code may change the list.
bool Leaves::scan_items(PyObject* sequence, int axis) {
  if (axis == kMaxDims) return false;
  Ref items = PyList_Check(sequence) ? Ref::steal(PyList_AsTuple(sequence)) : Ref::borrow(sequence);
  if (!items) return false;
  PyObject* tuple = items.get();
  held_.push_back(std::move(items));
  const Py_ssize_t count = PyTuple_GET_SIZE(tuple);
  std::int64_t& length = shape_.lengths[static_cast<std::size_t>(axis)];
  if (!has_shape_) {
    length = count;
    if (count == 0) return fits(nullptr, 0, axis + 1);
  } else if (axis >= shape_.ndim || length != count || (count == 0 && shape_.ndim != axis + 1)) {
    return false;
  }
  if (leaves_.empty()) leaves_.reserve(static_cast<std::size_t>(count));
  for (Py_ssize_t i = 0; i < count; ++i) {
    if (!scan_item(PyTuple_GET_ITEM(tuple, i), axis + 1)) return false;
  }
  return true;
}

// Whatever else describes an array is made a tensor in Python; not where tensors cannot be looked
// at, so that no one is asked twice.
bool Leaves::scan_other(PyObject* object, int axis) {
  if (torch_.table == nullptr) return false;
  ran_code_ = true;
  PyObject* args[] = {nullptr, object, asked_};
  Ref tensor = Ref::steal(
      PyObject_Vectorcall(installed().leaf, args + 1, 2 | PY_VECTORCALL_ARGUMENTS_OFFSET, nullptr));
  if (!tensor || tensor.get() == Py_None) return false;
  PyObject* made = tensor.get();
  held_.push_back(std::move(tensor));
  return add_tensor(made, axis);
}

bool Leaves::add_tensor(PyObject* tensor, int axis) {
  TensorView seen;
  if (!plain_tensors_) plain_tensors_ = !may_have_tangents(torch_) && !is_watched(torch_);
  if (!*plain_tensors_ || !look_plain(torch_, tensor, seen)) return false;
  if (!add_array(seen.view, axis)) return false;
  leaves_.back().tensor = tensor;
  return true;
}

bool Leaves::look_again() {
  if (!ran_code_ && purpose_ == For::kFill) return true;
  for (Leaf& leaf : leaves_) {
    if (leaf.kind != Leaf::Kind::kArray || leaf.tensor == nullptr) continue;
    TensorView seen;
    const std::int64_t* lengths = shape_.lengths.data() + leaf.axis;
    const int ndim = shape_.ndim - leaf.axis;
    if (!look_plain(torch_, leaf.tensor, seen) || seen.view.dtype != leaf.dtype ||
        seen.view.ndim != ndim || !std::equal(lengths, lengths + ndim, seen.view.shape)) {
      PyErr_SetString(PyExc_ValueError,
                      "an array of the sequence was changed while the others were converted; "
                      "convert them one by one first");
      return false;
    }
    leaf.data = seen.view.data;
    std::copy_n(seen.view.strides, ndim,
                strides_.begin() + static_cast<std::ptrdiff_t>(leaf.strides));
  }
  return true;
}

Ref Leaves::storages() const {
  Ref list = Ref::steal(PyList_New(0));
  for (const Leaf& leaf : leaves_) {
    if (!list) break;
    if (leaf.kind != Leaf::Kind::kArray || leaf.tensor == nullptr) continue;
    const Ref storage = Ref::steal(torch_.untyped_storage(leaf.tensor));
    if (!storage || PyList_Append(list.get(), storage.get()) < 0) return {};
  }
  return list;
}

bool Leaves::add_array(const View& view, int axis) {
  if (!fits(view.shape, view.ndim, axis)) return false;
  Leaf& leaf = add(Leaf::Kind::kArray, view.dtype, axis);
  leaf.swapped = view.swapped;
  leaf.data = view.data;
  leaf.strides = strides_.size();
  strides_.insert(strides_.end(), view.strides, view.strides + view.ndim);
  has_arrays_ = true;
  return true;
}

bool Leaves::add_scalar(PyObject* object, DType dtype, int axis) {
  if (purpose_ == For::kTransfer || !fits(nullptr, 0, axis)) return false;
  PyArray_ScalarAsCtype(object, add(Leaf::Kind::kScalar, dtype, axis).scalar);
  has_arrays_ = true;
  return true;
}

bool Leaves::add_number(PyObject* object, Number kind, int axis) {
  if (purpose_ == For::kTransfer || !fits(nullptr, 0, axis)) return false;
  std::optional<DType> dtype = DType::kBool;  // of no account where one is asked for
  if (asked_ == Py_None) dtype = number_dtype(kind);
  if (!dtype) return false;
  const std::uint32_t arrays = kinds_;
  add(Leaf::Kind::kNumber, *dtype, axis).number = object;
  if (asked_ != Py_None) kinds_ = arrays;
  has_numbers_ = true;
  return true;
}

Leaves::Leaf& Leaves::add(Leaf::Kind kind, DType dtype, int axis) {
  Leaf& leaf = leaves_.emplace_back();
  leaf.kind = kind;
  leaf.dtype = dtype;
  leaf.axis = static_cast<std::uint8_t>(axis);
  leaf.first = count_;
  count_ += size_from(axis);
  kinds_ |= bit(dtype);
  return leaf;
}

bool Leaves::fits(const std::int64_t* lengths, int ndim, int axis) noexcept {
  std::int64_t* own = shape_.lengths.data() + axis;
  if (has_shape_) return shape_.ndim == axis + ndim && std::equal(own, own + ndim, lengths);
  if (axis + ndim > kMaxDims) return false;
  std::copy_n(lengths, ndim, own);
  shape_.ndim = axis + ndim;
  return has_shape_ = true;
}

std::optional<DType> Leaves::number_dtype(Number kind) {
  if (kind == Number::kBool) return DType::kBool;
  if (kind == Number::kInt) return DType::kInt64;
  if (!default_dtype_) {
    const Ref dtype = Ref::steal(PyObject_CallNoArgs(torch_.get_default_dtype));
    if (dtype) default_dtype_ = dtype_from_torch(torch_, dtype.get());
  }
  if (!default_dtype_ || kind == Number::kFloat) return default_dtype_;
  return complex_partner(*default_dtype_);
}

std::optional<DType> Leaves::dtype() const {
  if (asked_ != Py_None) return dtype_from_torch(torch_, asked_);
  const bool is_one = (kinds_ & (kinds_ - 1)) == 0 && kinds_ != 0;
  if (!is_one) return promoted(torch_, kinds_);
  for (std::size_t i = 0;; ++i) {
    if ((kinds_ >> i & 1U) != 0) return static_cast<DType>(i);
  }
}

bool Leaves::has(DType dtype) const noexcept { return (kinds_ & bit(dtype)) != 0; }

bool Leaves::cast_to(DType dtype) const noexcept {
  const std::uint32_t half = bit(DType::kComplex32);
  return dtype == DType::kComplex32 ? (kinds_ & ~half) == 0 : (kinds_ & half) == 0;
}

}  // namespace dlferry::python
