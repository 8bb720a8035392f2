// array_on: torch.Tensor -> ndarray.
#include <utility>

#include "python/exchange.h"
#include "python/fresh.h"
#include "python/numpy_api.h"

namespace dlferry::python {
namespace {

// Gives `array` the owner of its memory: in place of the tensor, where it is fresh from
// `Tensor.numpy()`, for NumPy's own call refuses to replace a base. And for a fresh one that call
// takes 15 ns, to find out whether the base is an array.
void rebase(PyObject* array, Ref base) noexcept {
  auto* fields = reinterpret_cast<PyArrayObject_fields*>(array);
  const Ref previous = Ref::steal(fields->base);
  fields->base = base.release();
}

// Whether an array has the tensor's memory, if any.
bool is_on(const Torch& torch, PyArrayObject* array, PyObject* tensor) {
  if (PyArray_SIZE(array) == 0) return true;
  if (torch.table != nullptr) {
    TensorView seen;
    return look(torch, tensor, seen) && seen.view.data == PyArray_DATA(array);
  }
  const Ref pointer = Ref::steal(PyObject_CallMethodNoArgs(tensor, names().data_ptr));
  return pointer && PyLong_AsVoidPtr(pointer.get()) == PyArray_DATA(array);
}

}  // namespace

PyObject* first_array_on(const Torch& torch, PyObject* tensor) {
  Ref storage = Ref::steal(torch.untyped_storage(tensor));
  return storage ? first_array_on(torch, tensor, std::move(storage)) : nullptr;
}

PyObject* first_array_on(const Torch& torch, PyObject* tensor, Ref storage) {
  Ref array = Ref::steal(PyObject_CallOneArg(torch.numpy, tensor));
  if (!array) return nullptr;
  auto* made = reinterpret_cast<PyArrayObject*>(array.get());
  // A mode of torch's may give what it likes, and its array may be somebody's.
  const bool fresh = PyArray_CheckExact(array.get()) && Py_REFCNT(array.get()) == 1;
  if (fresh && PyArray_CHKFLAGS(made, NPY_ARRAY_OWNDATA) && PyArray_SIZE(made) > 0) {
    // Memory that NumPy made up: torch gave it a null pointer, as for a functional tensor.
    PyErr_SetString(PyExc_BufferError, "the tensor has no memory of its own");
    return nullptr;
  }
  if (!fresh || (has_modes(torch) && !is_on(torch, made, tensor))) {
    if (PyErr_Occurred() == nullptr) {
      PyErr_SetString(PyExc_BufferError,
                      "Tensor.numpy() gives something else than an array on the tensor's memory: a "
                      "mode of torch's is active; leave the mode first");
    }
    return nullptr;
  }
  rebase(array.get(), std::move(storage));
  return array.release();
}

[[gnu::hot]] PyObject* array_on(const View& view, Ref storage) {
  PyArray_Descr* descr = numpy_descr(view.dtype);
  Py_INCREF(descr);  // for the array
  auto* shape = const_cast<npy_intp*>(reinterpret_cast<const npy_intp*>(view.shape));
  auto* strides = const_cast<npy_intp*>(reinterpret_cast<const npy_intp*>(view.strides));
  Ref array = Ref::steal(PyArray_NewFromDescr(&PyArray_Type, descr, view.ndim, shape, strides,
                                              view.data, NPY_ARRAY_WRITEABLE, nullptr));
  if (array) rebase(array.get(), std::move(storage));
  return array.release();
}

}  // namespace dlferry::python
