// array_on: torch.Tensor -> ndarray.
#include "python/exchange.h"
#include "python/numpy_api.h"

namespace dlferry::python {
namespace {

// Gives `array`, fresh from `Tensor.numpy()`, another owner of the same memory. NumPy has no call
// for that: its own refuses to replace a base.
void rebase(PyObject* array, Ref base) noexcept {
  auto* fields = reinterpret_cast<PyArrayObject_fields*>(array);
  const Ref previous = Ref::steal(fields->base);
  fields->base = base.release();
}

PyObject* storage_of(PyObject* tensor) {
  return PyObject_CallMethodNoArgs(tensor, names().untyped_storage);
}

}  // namespace

PyObject* first_array_on(PyObject* tensor) {
  Ref storage = Ref::steal(storage_of(tensor));
  if (!storage) return nullptr;
  PyObject* array = PyObject_CallMethodNoArgs(tensor, names().numpy);
  if (array != nullptr) rebase(array, std::move(storage));
  return array;
}

PyObject* array_on(PyObject* tensor, const View& view) {
  Ref storage = Ref::steal(storage_of(tensor));
  if (!storage) return nullptr;
  const Ref resizable = Ref::steal(PyObject_CallMethodNoArgs(storage.get(), names().resizable));
  if (!resizable) return nullptr;
  if (resizable.get() != Py_False) return first_array_on(tensor);
  PyArray_Descr* descr = PyArray_DescrFromType(*numpy_type_number(view.dtype));
  auto* shape = const_cast<npy_intp*>(reinterpret_cast<const npy_intp*>(view.shape));
  auto* strides = const_cast<npy_intp*>(reinterpret_cast<const npy_intp*>(view.strides));
  Ref array = Ref::steal(PyArray_NewFromDescr(&PyArray_Type, descr, view.ndim, shape, strides,
                                              view.data, NPY_ARRAY_WRITEABLE, nullptr));
  if (!array) return nullptr;
  auto* made = reinterpret_cast<PyArrayObject*>(array.get());
  if (PyArray_SetBaseObject(made, storage.release()) < 0) return nullptr;
  return array.release();
}

}  // namespace dlferry::python
