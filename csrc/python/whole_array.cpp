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

  // Blocks of few axes are all of one size and kept for the next, under the GIL: the allocator
  // takes 10 ns a conversion. But the address sanitizer is to see what is used after its end.
  static constexpr int kFewDims = 4;
#ifdef __SANITIZE_ADDRESS__
  static constexpr std::size_t kMostSpare = 0;
#else
  static constexpr std::size_t kMostSpare = 32;
#endif

  // Null when there is none, or none of so many axes.
  [[nodiscard]] static ArrayBlock* spare_for(int ndim) noexcept {
    return ndim <= kFewDims && spare_count > 0 ? spare[--spare_count] : nullptr;
  }

  [[nodiscard]] static ArrayBlock* allocate(int ndim) noexcept {
    const auto dims = static_cast<std::size_t>(std::max(ndim, kFewDims));
    return static_cast<ArrayBlock*>(std::malloc(sizeof(ArrayBlock) + dims * sizeof(std::int64_t)));
  }

  void describe(PyArrayObject* array, const dlpack::DataType& type) noexcept {
    const int ndim = PyArray_NDIM(array);
    const npy_intp* const dims = PyArray_DIMS(array);
    auto* shape = reinterpret_cast<std::int64_t*>(this + 1);
    for (int axis = 0; axis < ndim; ++axis) shape[axis] = dims[axis];
    Py_INCREF(array);
    managed = {{dlpack::kMajorVersion, dlpack::kMinorWithoutStrides},
               array,
               &ArrayBlock::release,
               0,
               {PyArray_DATA(array), {dlpack::kCPU, 0}, ndim, type, shape, nullptr, 0}};
  }

 private:
  // Called by torch on whatever thread drops the last tensor, without the GIL.
  [[gnu::hot]] static void release(dlpack::ManagedTensorVersioned* self) noexcept {
    if (interpreter_is_gone()) return;
    with_gil([self] { reinterpret_cast<ArrayBlock*>(self)->let_go(); });
  }

  // The array may run Python code when it dies, so the block is given back first.
  void let_go() noexcept {
    auto* array = static_cast<PyObject*>(managed.manager_ctx);
    if (released != nullptr) *released = true;
    if (managed.dl_tensor.ndim <= kFewDims && spare_count < kMostSpare) {
      spare[spare_count++] = this;
    } else {
      std::free(this);
    }
    drop_keeping_error(array);
  }

  inline static std::array<ArrayBlock*, kMostSpare> spare{};
  inline static std::size_t spare_count = 0;
};

[[gnu::always_inline]] inline PyObject* share_in(ArrayBlock* block, const Torch& torch,
                                                 PyArrayObject* array,
                                                 const dlpack::DataType& type) {
  block->describe(array, type);
  return import_managed(torch, &block->managed, block->released);
}

// Apart from `share_whole`, which has nothing to keep across a call then.
[[gnu::noinline]] PyObject* share_in_new_block(const Torch& torch, PyArrayObject* array,
                                               const dlpack::DataType& type) {
  ArrayBlock* block = ArrayBlock::allocate(PyArray_NDIM(array));
  return block == nullptr ? PyErr_NoMemory() : share_in(block, torch, array, type);
}

}  // namespace

[[gnu::hot]] PyObject* share_whole(const Torch& torch, PyArrayObject* array,
                                   const dlpack::DataType& type) {
  ArrayBlock* block = ArrayBlock::spare_for(PyArray_NDIM(array));
  return block == nullptr ? share_in_new_block(torch, array, type)
                          : share_in(block, torch, array, type);
}

}  // namespace dlferry::python
