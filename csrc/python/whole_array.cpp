// share_whole: the shortest way from an ndarray to a tensor.
#include <array>
#include <cstdint>
#include <cstdlib>

#include "python/exchange.h"
#include "python/gil.h"

namespace dlferry::python {
namespace {

// What a tensor on a whole ndarray holds: the managed tensor that torch was given, and the array.
// What is not torch's in `asarray(ndarray)` is hardly more than to write the six fields that one
// array does not share with the next.
struct ArrayBlock {
  dlpack::ManagedTensorVersioned managed;
  bool* released;  // set by `import_managed`

  // Blocks are kept for the next, under the GIL: the allocator takes 10 ns a conversion. But the
  // address sanitizer is to see what is used after its end.
#ifdef __SANITIZE_ADDRESS__
  static constexpr std::size_t kMostSpare = 0;
#else
  static constexpr std::size_t kMostSpare = 32;
#endif

  // Null when there is none.
  [[nodiscard]] static ArrayBlock* take_spare() noexcept {
    return spare_count > 0 ? spare[--spare_count] : nullptr;
  }

  [[nodiscard]] static ArrayBlock* make() noexcept {
    auto* block = static_cast<ArrayBlock*>(std::malloc(sizeof(ArrayBlock)));
    if (block == nullptr) return nullptr;
    block->managed = {{dlpack::kMajorVersion, dlpack::kMinorWithoutStrides},
                      nullptr,
                      &ArrayBlock::release,
                      0,
                      {nullptr, {dlpack::kCPU, 0}, 0, {}, nullptr, nullptr, 0}};
    return block;
  }

  // The shape is the array's own, which torch has read when the import returns.
  void describe(PyArrayObject* array, const dlpack::DataType& type) noexcept {
    static_assert(sizeof(npy_intp) == sizeof(std::int64_t));
    managed.manager_ctx = Py_NewRef(reinterpret_cast<PyObject*>(array));
    managed.dl_tensor.data = PyArray_DATA(array);
    managed.dl_tensor.ndim = PyArray_NDIM(array);
    managed.dl_tensor.dtype = type;
    managed.dl_tensor.shape = reinterpret_cast<std::int64_t*>(PyArray_DIMS(array));
  }

 private:
  // Called by torch on whatever thread drops the last tensor, without the GIL.
  [[gnu::hot, gnu::aligned(kHotAlignment)]] static void release(
      dlpack::ManagedTensorVersioned* self) noexcept {
    if (interpreter_is_gone()) return;
    with_gil([self] { reinterpret_cast<ArrayBlock*>(self)->let_go(); });
  }

  // The array may run Python code when it dies, so the block is given back first.
  void let_go() noexcept {
    auto* array = static_cast<PyObject*>(managed.manager_ctx);
    if (released != nullptr) *released = true;
    if (spare_count < kMostSpare) {
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
  ArrayBlock* block = ArrayBlock::make();
  return block == nullptr ? PyErr_NoMemory() : share_in(block, torch, array, type);
}

}  // namespace

[[gnu::hot, gnu::aligned(kHotAlignment)]] PyObject* share_whole(const Torch& torch,
                                                                PyArrayObject* array,
                                                                const dlpack::DataType& type) {
  ArrayBlock* block = ArrayBlock::take_spare();
  return block == nullptr ? share_in_new_block(torch, array, type)
                          : share_in(block, torch, array, type);
}

}  // namespace dlferry::python
