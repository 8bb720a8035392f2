#include "python/exchange.h"

#include <algorithm>
#include <cstdlib>
#include <new>
#include <utility>

#include "python/fresh.h"
#include "python/gil.h"
#include "python/numpy_api.h"
#include "tensor/host_copy.h"
#include "tensor/pages.h"

namespace dlferry::python {
namespace {

// Below this many bytes a copy takes less time than giving the GIL away and getting it back.
constexpr std::int64_t kCopyUnderGil = 64 << 10;

// What a shared tensor holds: the managed tensor that torch was given, the owner behind it, and the
// shape and strides, all in one allocation. `Managed` is the versioned or the legacy record.
template <typename Managed>
struct Block {
  Managed managed;
  Owner owner;
  bool* released = nullptr;  // set by `import_managed`

  [[nodiscard]] std::int64_t* shape() noexcept { return reinterpret_cast<std::int64_t*>(this + 1); }

  // Called by torch on whatever thread drops the last tensor, without the GIL.
  static void release(Managed* self) noexcept {
    auto* block = static_cast<Block*>(self->manager_ctx);
    if (block->released != nullptr) *block->released = true;
    block->~Block();
    std::free(block);
  }

  // Null with MemoryError set. Strides of C-contiguous memory are left to torch, which works them
  // out for less than it checks ours: an older minor version of DLPack allows that.
  [[nodiscard]] static Block* make(const View& view, bool contiguous = false) {
    const auto ndim = static_cast<std::size_t>(view.ndim);
    void* memory = std::malloc(sizeof(Block) + (contiguous ? 1 : 2) * ndim * sizeof(std::int64_t));
    if (memory == nullptr) {
      PyErr_NoMemory();
      return nullptr;
    }
    auto* block = new (memory) Block;
    block->managed.manager_ctx = block;
    block->managed.deleter = &Block::release;
    std::int64_t* shape = block->shape();
    std::int64_t* strides = contiguous ? nullptr : shape + view.ndim;
    for (int axis = 0; axis < view.ndim; ++axis) shape[axis] = view.shape[axis];
    if (!contiguous) element_strides(view, /*keep=*/true, strides);
    dlpack::Tensor& tensor = block->managed.dl_tensor;
    // Pinned and managed memory is host memory to torch, which refuses its own device types.
    const bool cuda = view.device.device_type == dlpack::kCUDA;
    tensor = {view.data, cuda ? view.device : dlpack::Device{dlpack::kCPU, 0},
              view.ndim, info(view.dtype).dlpack,
              shape,     strides,
              0};
    return block;
  }
};

using VersionedBlock = Block<dlpack::ManagedTensorVersioned>;
using LegacyBlock = Block<dlpack::ManagedTensor>;

void destroy_legacy_capsule(PyObject* capsule) {
  if (PyCapsule_IsValid(capsule, dlpack::kCapsule) == 0) return;  // torch took it
  auto* managed =
      static_cast<dlpack::ManagedTensor*>(PyCapsule_GetPointer(capsule, dlpack::kCapsule));
  managed->deleter(managed);
}

// For memory of a device, because this importer starts torch's CUDA where nobody has yet, and for a
// torch without the table. `from_capsule` hands float8, which such a torch does not import, over as
// bytes and views them as `dtype`.
PyObject* share_by_capsule(const Torch& torch, Source& source) {
  LegacyBlock* block = LegacyBlock::make(source.view);
  if (block == nullptr) return nullptr;
  if (torch.table == nullptr && item_size(source.view.dtype) == 1) {
    block->managed.dl_tensor.dtype = {dlpack::kUInt, 8, 1};
  }
  block->owner = std::move(source.owner);
  const Ref capsule =
      Ref::steal(PyCapsule_New(&block->managed, dlpack::kCapsule, &destroy_legacy_capsule));
  if (!capsule) {
    LegacyBlock::release(&block->managed);
    return nullptr;
  }
  PyObject* dtype = torch.dtypes[static_cast<std::size_t>(source.view.dtype)];
  return PyObject_CallFunctionObjArgs(torch.from_capsule, capsule.get(), dtype, nullptr);
}

PyObject* share_by_table(const Torch& torch, Source& source) {
  VersionedBlock* block = VersionedBlock::make(source.view, source.contiguous);
  if (block == nullptr) return nullptr;
  block->managed.version = {dlpack::kMajorVersion, source.contiguous ? dlpack::kMinorWithoutStrides
                                                                     : dlpack::kMinorVersion};
  block->managed.flags = 0;
  block->owner = std::move(source.owner);
  return import_managed(torch, &block->managed, block->released);
}

}  // namespace

// When torch refuses, it has not touched `managed`; but when it has no memory for the Python
// object, it has made a tensor already, and drops that.
PyObject* share(const Torch& torch, Source& source) {
  if (!source.owner.claim()) return nullptr;
  const bool cuda = source.view.device.device_type == dlpack::kCUDA;
  if (torch.table == nullptr || cuda) return share_by_capsule(torch, source);
  return share_by_table(torch, source);
}

namespace {

// Copies into fresh memory of dense `strides` (in elements), without the GIL when it is much.
void copy_elements(std::byte* data, const std::int64_t* strides, DType dtype, const View& source) {
  std::array<std::int64_t, kMaxDims> bytes;
  for (std::size_t axis = 0; axis < static_cast<std::size_t>(source.ndim); ++axis) {
    bytes[axis] = strides[axis] << info(dtype).log2_size;
  }
  View destination{data, source.shape, bytes.data(), source.ndim, dtype, false, {}};
  const std::int64_t size = element_count(source) << info(dtype).log2_size;
  if (size < kCopyUnderGil) {
    host_copy(destination, source);
    return;
  }
  // Without the GIL another thread may give the source array a new shape, and free this one.
  std::array<std::int64_t, kMaxDims> shape;
  std::array<std::int64_t, kMaxDims> steps;
  std::copy_n(source.shape, source.ndim, shape.data());
  std::copy_n(source.strides, source.ndim, steps.data());
  View from = source;
  from.shape = destination.shape = shape.data();
  from.strides = steps.data();
  PyThreadState* state = PyEval_SaveThread();
  NewPages pages(data, static_cast<std::size_t>(size));
  host_copy(destination, from, size, &pages);
  take_gil_back(state);
}

}  // namespace

PyObject* copy(const Torch& torch, Source& source, DType dtype) {
  std::array<std::int64_t, kMaxDims> strides;
  element_strides(source.view, is_dense(source.view), strides.data());
  Fresh fresh = empty_strided(torch, source.view, strides.data(), dtype, /*on_cpu=*/true);
  if (!fresh.tensor || !source.owner.claim()) return nullptr;
  copy_elements(fresh.data, strides.data(), dtype, source.view);
  return shown(std::move(fresh)).release();
}

[[gnu::hot]] bool look(const Torch& torch, PyObject* tensor, TensorView& out) {
  dlpack::Tensor seen;
  if (torch.table->dltensor_from_py_object_no_sync(tensor, &seen) != 0) return false;
  const auto dtype = dtype_from_dlpack(seen.dtype);
  if (!dtype || seen.ndim > kMaxDims) {
    PyErr_SetString(PyExc_BufferError, "the tensor has more than 64 dimensions, or a packed dtype");
    return false;
  }
  const auto size = static_cast<std::int64_t>(item_size(*dtype));
  for (int axis = 0; axis < seen.ndim; ++axis) {
    out.strides[static_cast<std::size_t>(axis)] = seen.strides[axis] * size;
  }
  out.view = {static_cast<std::byte*>(seen.data) + seen.byte_offset,
              seen.shape,
              out.strides.data(),
              seen.ndim,
              *dtype,
              false,
              seen.device};
  return true;
}

namespace {

// Unless a question about the tensor is answered with False, it is not plain.
bool is_false(PyObject* answer) noexcept {
  const Ref held = Ref::steal(answer);
  if (answer == nullptr) (void)clear_exception();
  return answer == Py_False;
}

}  // namespace

bool look_plain(const Torch& torch, PyObject* tensor, TensorView& out) {
  if (torch.table == nullptr || Py_TYPE(tensor) != torch.tensor) return false;
  if (!look(torch, tensor, out)) {
    PyErr_Clear();
    return false;
  }
  return out.view.device.device_type == dlpack::kCPU && unreachable_reason(out.view) == nullptr &&
         is_false(PyObject_GetAttr(tensor, names().requires_grad)) &&
         is_false(torch.is_neg(tensor)) &&
         (!is_complex(out.view.dtype) || is_false(torch.is_conj(tensor)));
}

bool look_on_host(const Torch& torch, PyObject* array, TensorView& out) {
  if (!PyArray_CheckExact(array)) return look_plain(torch, array, out);
  const auto view = view_of_array(reinterpret_cast<PyArrayObject*>(array));
  if (!view || unreachable_reason(*view) != nullptr) return false;
  out.view = *view;
  return true;
}

}  // namespace dlferry::python
