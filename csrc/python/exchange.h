// Between memory and the arrays of Python: Source -> torch.Tensor, torch.Tensor -> View -> ndarray.
//
// The only user of torch's C exchange table, which checks nothing: whatever goes in was validated
// here. Functions return null or false with a Python error set.
#pragma once

#include <array>
#include <cstdint>

#include "python/doors.h"
#include "python/numpy_api.h"
#include "python/source.h"

namespace dlferry::python {

// Where what a conversion of an array runs begins: on a cache line, so that no build has luck of
// its own with where it falls.
inline constexpr int kHotAlignment = 64;

// A tensor on what `managed` describes, which torch takes over; let go if torch refuses. While
// torch is asked, `released` (a member beside `managed`) points to what its deleter has to set.
[[nodiscard]] inline PyObject* import_managed(const Torch& torch,
                                              dlpack::ManagedTensorVersioned* managed,
                                              bool*& released) {
  bool gone = false;  // and `released` with it
  released = &gone;
  void* tensor = nullptr;
  const bool failed = torch.table->managed_tensor_to_py_object_no_sync(managed, &tensor) != 0;
  if (!gone) released = nullptr;
  if (failed && !gone) managed->deleter(managed);
  return failed ? nullptr : static_cast<PyObject*>(tensor);
}

// A tensor on the source's memory. Takes the owner over; drops it if torch refuses.
// Wants: a dtype, strides that torch can represent, memory that exists.
[[nodiscard]] PyObject* share(const Torch& torch, Source& source);

// The same for an array that is aligned, writable, C-contiguous and in native byte order: nothing
// but the type of its elements has to be known. Needs the table.
[[nodiscard]] PyObject* share_whole(const Torch& torch, PyArrayObject* array,
                                    const dlpack::DataType& type);

// A fresh, ordinary CPU tensor with the source's elements cast to `dtype`. Keeps the strides of a
// dense source. Releases the GIL while copying much.
[[nodiscard]] PyObject* copy(const Torch& torch, Source& source, DType dtype);

// A borrowed look at a plain tensor; valid while the tensor is not touched. Needs the table.
struct TensorView {
  View view;
  std::array<std::int64_t, kMaxDims> strides;
};
[[nodiscard]] bool look(const Torch& torch, PyObject* tensor, TensorView& out);

// The same for a tensor that is nothing but its memory: exactly a torch.Tensor on the host, without
// grad, conj and neg bits. False for any other, and then without an error.
[[nodiscard]] bool look_plain(const Torch& torch, PyObject* tensor, TensorView& out);

// The same for that, or an exact ndarray in either byte order.
[[nodiscard]] bool look_on_host(const Torch& torch, PyObject* array, TensorView& out);

// An ndarray on the memory of a plain CPU tensor, which `view` describes, of a dtype that NumPy
// has. It owns the tensor's storage, which can no longer be resized, so that no later operation on
// the tensor (`resize_`, `set_`, `.data =`) can move the memory from under it.
[[nodiscard]] PyObject* array_on(const View& view, Ref storage);

// The same for a storage that may still be resized: only `Tensor.numpy()` can forbid that, so its
// array is used, with the storage in place of the tensor as its base. Fails as that does for
// tensors that are not plain.
[[nodiscard]] PyObject* first_array_on(const Torch& torch, PyObject* tensor, Ref storage);
[[nodiscard]] PyObject* first_array_on(const Torch& torch, PyObject* tensor);

}  // namespace dlferry::python
