// share_whole: the shortest way from an ndarray to a tensor.
#include <algorithm>
#include <array>
#include <cstdint>
#include <cstdlib>

#include "python/exchange.h"
#include "python/gil.h"

namespace dlferry::python {
namespace {

// What a tensor on a whole ndarray holds: the managed tensor that torch was given, the array, and
// the shape, in one block. What is not torch's in `asarray(ndarray)` is hardly more than to write
// it.
struct ArrayBlock {
  dlpack::ManagedTensorVersioned managed;
  bool* released;  // set by `import_managed`; followed by the shape

  [[nodiscard]] static ArrayBlock* make(PyArrayObject* array, const dlpack::DataType& type) {
    const int ndim = PyArray_NDIM(array);
    ArrayBlock* block = allocate(ndim);
    if (block == nullptr) {
      PyErr_NoMemory();
      return nullptr;
    }
    const npy_intp* const dims = PyArray_DIMS(array);
    auto* shape = reinterpret_cast<std::int64_t*>(block + 1);
    for (int axis = 0; axis < ndim; ++axis) shape[axis] = dims[axis];
    Py_INCREF(array);
    block->managed = {{dlpack::kMajorVersion, dlpack::kMinorWithoutStrides},
                      array,
                      &ArrayBlock::release,
                      0,
                      {PyArray_DATA(array), {dlpack::kCPU, 0}, ndim, type, shape, nullptr, 0}};
    return block;
  }

 private:
  // Called by torch on whatever thread drops the last tensor, without the GIL. The array may run
  // Python code when it dies, so the block is given back first.
  static void release(dlpack::ManagedTensorVersioned* self) noexcept {
    if (interpreter_is_gone()) return;
    const Gil gil;
    auto* array = static_cast<PyObject*>(self->manager_ctx);
    auto* block = reinterpret_cast<ArrayBlock*>(self);
    if (block->released != nullptr) *block->released = true;
    free(block);
    drop_keeping_error(array);
  }

  // Blocks of few axes are all of one size and kept for the next, under the GIL: the allocator
  // takes 10 ns a conversion. But the address sanitizer is to see what is used after its end.
  static constexpr int kFewDims = 4;
#ifdef __SANITIZE_ADDRESS__
  static constexpr std::size_t kMostSpare = 0;
#else
  static constexpr std::size_t kMostSpare = 32;
#endif
  inline static std::array<ArrayBlock*, kMostSpare> spare{};
  inline static std::size_t spare_count = 0;

  static ArrayBlock* allocate(int ndim) noexcept {
    if (ndim <= kFewDims && spare_count > 0) return spare[--spare_count];
    const auto dims = static_cast<std::size_t>(std::max(ndim, kFewDims));
    return static_cast<ArrayBlock*>(std::malloc(sizeof(ArrayBlock) + dims * sizeof(std::int64_t)));
  }

  static void free(ArrayBlock* block) noexcept {
    if (block->managed.dl_tensor.ndim <= kFewDims && spare_count < kMostSpare) {
      spare[spare_count++] = block;
    } else {
      std::free(block);
    }
  }
};

}  // namespace

PyObject* share_whole(const Torch& torch, PyArrayObject* array, const dlpack::DataType& type) {
  ArrayBlock* block = ArrayBlock::make(array, type);
  return block == nullptr ? nullptr : import_managed(torch, &block->managed, block->released);
}

}  // namespace dlferry::python
