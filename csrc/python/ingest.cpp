#include "python/ingest.h"

#include <algorithm>
#include <cstring>

#include "python/doors.h"

namespace dlferry::python {
namespace {

static_assert(sizeof(npy_intp) == sizeof(std::int64_t), "ndarray shapes are taken as they are");

Facts layout_facts(const View& view) noexcept {
  const Layout layout = layout_of(view);
  Facts facts = 0;
  if (layout.negative_stride || layout.odd_stride) facts |= kStrides;
  if (layout.misaligned) facts |= kAlignment;
  if (view.swapped) facts |= kByteOrder;
  return facts;
}

bool known_device(std::int32_t type) noexcept {
  return type == dlpack::kCPU || type == dlpack::kCUDA || type == dlpack::kCUDAHost ||
         type == dlpack::kCUDAManaged;
}

// Strides in elements -> bytes, or contiguous ones where there are none. False on overflow.
bool byte_strides(const dlpack::Tensor& tensor, std::int64_t size, std::int64_t* out) noexcept {
  std::int64_t contiguous = size;
  for (int axis = tensor.ndim - 1; axis >= 0; --axis) {
    if (tensor.strides == nullptr) {
      out[axis] = contiguous;
      // An overflow here is the shape's, which `unreachable_reason` has refused before.
      contiguous *= tensor.shape[axis] > 0 ? tensor.shape[axis] : 1;
    } else if (__builtin_mul_overflow(tensor.strides[axis], size, &out[axis])) {
      if (tensor.shape[axis] > 1) return false;
      out[axis] = 0;  // of an axis without a second element: never used
    }
  }
  return true;
}

// Fills the source from a DLPack tensor; otherwise says what is wrong with it.
const char* describe(const dlpack::Tensor& tensor, Source& source) noexcept {
  if (tensor.ndim < 0) return "a negative number of dimensions";
  if (tensor.ndim > kMaxDims) return "more than 64 dimensions";
  if (tensor.ndim > 0 && tensor.shape == nullptr) return "a null shape";
  if (!known_device(tensor.device.device_type)) return "an unknown device type";
  if (tensor.dtype.lanes != 1) return "a vector dtype (lanes other than 1)";
  const auto dtype = dtype_from_dlpack(tensor.dtype);
  if (!dtype) return "a dtype that torch does not have (or one of less than a byte)";

  View& view = source.view;
  view.dtype = *dtype;
  view.ndim = tensor.ndim;
  view.shape = tensor.shape;
  view.strides = nullptr;
  view.device = tensor.device;
  view.data = static_cast<std::byte*>(tensor.data);
  if (const char* reason = unreachable_reason(view)) return reason;
  const auto size = static_cast<std::int64_t>(item_size(*dtype));
  if (!byte_strides(tensor, size, source.strides.data())) return "strides that overflow 64 bits";
  view.strides = source.strides.data();
  if (tensor.byte_offset > std::uint64_t{INT64_MAX}) return "a byte offset beyond 63 bits";
  view.data = reinterpret_cast<std::byte*>(reinterpret_cast<std::uintptr_t>(tensor.data) +
                                           tensor.byte_offset);
  if (const char* reason = unreachable_reason(view)) return reason;
  source.has_dtype = true;
  source.facts = layout_facts(view);
  return nullptr;
}

Ingest malformed(const char* reason) {
  PyErr_Format(PyExc_BufferError, "the DLPack tensor has %s; ask its producer for a valid export",
               reason);
  return Ingest::kFailed;
}

Ingest validate(const dlpack::ManagedTensorVersioned& managed, Source& source) {
  if (managed.version.major != dlpack::kMajorVersion) {
    PyErr_Format(PyExc_BufferError,
                 "the DLPack tensor has major version %u, and only version 1 is understood; ask "
                 "its producer for max_version=(1, 3)",
                 managed.version.major);
    return Ingest::kFailed;
  }
  if (const char* reason = describe(managed.dl_tensor, source)) return malformed(reason);
  if ((managed.flags & dlpack::kFlagReadOnly) != 0) source.facts |= kReadOnly;
  if ((managed.flags & dlpack::kFlagIsCopied) != 0) source.facts |= kProducerCopy;
  return Ingest::kTaken;
}

// Lets the memory go while an error is set: deleters may run Python code.
Ingest release(Source& source) {
  PyObject *type, *value, *traceback;
  PyErr_Fetch(&type, &value, &traceback);
  if (!source.owner.claim()) PyErr_Clear();
  source.owner = Owner();
  PyErr_Restore(type, value, traceback);
  return Ingest::kFailed;
}

}  // namespace

void ingest_ndarray(PyArrayObject* array, Source& source) noexcept {
  View& view = source.view;
  view.data = reinterpret_cast<std::byte*>(PyArray_BYTES(array));
  view.ndim = PyArray_NDIM(array);
  // Copied, because a conversion lets other threads run before it is done, and those may assign
  // `array.shape`, which frees the old one.
  std::copy_n(PyArray_DIMS(array), view.ndim, source.shape.data());
  std::copy_n(PyArray_STRIDES(array), view.ndim, source.strides.data());
  view.shape = source.shape.data();
  view.strides = source.strides.data();
  source.owner = Owner::of(Ref::borrow(reinterpret_cast<PyObject*>(array)));
  const auto dtype = dtype_from_numpy(PyArray_DESCR(array));
  if (!dtype) return;
  source.has_dtype = true;
  view.dtype = *dtype;
  // Aligned, writable, C-contiguous, in native byte order; complex numbers may not be for torch.
  if (PyArray_ISCARRAY(array) && !is_complex(*dtype)) {
    source.contiguous = true;
    return;
  }
  view.swapped = !PyArray_ISNOTSWAPPED(array);
  source.facts = layout_facts(view);
  if (!PyArray_ISWRITEABLE(array)) source.facts |= kReadOnly;
}

Ingest ingest_capsule(PyObject* capsule, Source& source) {
  const char* name = PyCapsule_GetName(capsule);
  if (name == nullptr) name = "";
  PyErr_Clear();
  const bool versioned = std::strcmp(name, dlpack::kCapsuleVersioned) == 0;
  if (!versioned && std::strcmp(name, dlpack::kCapsule) != 0) {
    const bool used = std::strncmp(name, dlpack::kUsedCapsule, 13) == 0;
    PyErr_Format(PyExc_BufferError,
                 used ? "this DLPack capsule (\"%s\") has been consumed already; ask its producer "
                        "for a new one"
                      : "a capsule named \"%s\" is not a DLPack tensor",
                 name);
    return Ingest::kFailed;
  }
  source.owner = Owner::of_capsule(Ref::borrow(capsule));
  void* pointer = PyCapsule_GetPointer(capsule, name);
  if (pointer == nullptr) return Ingest::kFailed;
  Ingest result;
  if (versioned) {
    result = validate(*static_cast<dlpack::ManagedTensorVersioned*>(pointer), source);
  } else {
    const char* reason = describe(static_cast<dlpack::ManagedTensor*>(pointer)->dl_tensor, source);
    result = reason == nullptr ? Ingest::kTaken : malformed(reason);
  }
  return result == Ingest::kFailed ? release(source) : result;
}

Ingest ingest_managed(dlpack::ManagedTensorVersioned* managed, Source& source) {
  source.owner = Owner::of(managed);
  const Ingest result = validate(*managed, source);
  return result == Ingest::kFailed ? release(source) : result;
}

Ingest ingest(PyObject* object, bool never_copy, Source& source) {
  if (PyArray_Check(object)) {
    ingest_ndarray(reinterpret_cast<PyArrayObject*>(object), source);
    if (!source.has_dtype || source.contiguous) return Ingest::kTaken;
    // NumPy lets its users describe memory that cannot be; torch ends the process over some of it.
    const char* reason = unreachable_reason(source.view);
    if (reason == nullptr) return Ingest::kTaken;
    PyErr_Format(PyExc_BufferError, "the ndarray has %s; check what as_strided was given", reason);
    return Ingest::kFailed;
  }
  if (PyCapsule_CheckExact(object)) return ingest_capsule(object, source);
  return ingest_producer(object, never_copy, source);
}

}  // namespace dlferry::python
