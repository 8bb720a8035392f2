// Leaves: what the scan of a nested sequence finds, and how it becomes the elements of a tensor.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <optional>
#include <vector>

#include "python/exchange.h"
#include "python/fresh.h"
#include "python/numbers.h"
#include "tensor/pages.h"

namespace dlferry::python {

class Leaves {
 public:
  // A fill comes at once. A transfer is of arrays alone, and starts when other code has run.
  enum class For : std::uint8_t { kFill, kTransfer };

  // `dtype` is a torch.dtype or None: the one asked for. It is borrowed.
  Leaves(const Torch& torch, PyObject* dtype, For purpose = For::kFill) noexcept
      : torch_(torch), asked_(dtype), purpose_(purpose) {}

  // Looks at every leaf of a list or tuple. May run Python code, which may do to the list what it
  // likes: it is read once. False with a Python error set or, without one, for what is not plain
  // and is the general route's.
  [[nodiscard]] bool scan(PyObject* object);

  [[nodiscard]] const Shape& shape() const noexcept { return shape_; }
  [[nodiscard]] bool has_numbers() const noexcept { return has_numbers_; }
  [[nodiscard]] bool has_arrays() const noexcept { return has_arrays_; }
  [[nodiscard]] bool overlap(const View& memory) const noexcept;

  [[nodiscard]] bool has(DType dtype) const noexcept;  // a leaf of that dtype

  // Of the result: asked for, or promoted. Empty with a Python error set.
  [[nodiscard]] std::optional<DType> dtype() const;
  // Whether the core casts every leaf to it.
  [[nodiscard]] bool cast_to(DType dtype) const noexcept;

  // Looks at the tensors again, where other code may have moved their memory since. False with a
  // Python error set when one is no longer what it was. For the last moment before a fill.
  [[nodiscard]] bool look_again();

  // The storages of all tensors, in a list. What a tensor lies in now outlives its moving
  // elsewhere. Empty with a Python error set.
  [[nodiscard]] Ref storages() const;

  // Calls `visit(view, first)` for each array: `first` counts the elements that come before it in
  // the result. The views are valid as long as this.
  template <class Visit>
  void for_each_array(const Visit& visit) const {
    for (const Leaf& leaf : leaves_) {
      if (leaf.kind == Leaf::Kind::kArray) visit(view_of(leaf), leaf.first);
    }
  }

  // Writes all leaves to memory of their shape. `fresh` memory has just been allocated. Releases
  // the GIL while copying much. False without an error for a number outside the dtype, when some
  // leaves have been written; always true without numbers.
  [[nodiscard]] bool fill(const View& out, bool fresh) const;

 private:
  struct Leaf {
    enum class Kind : std::uint8_t { kNumber, kScalar, kArray };
    Kind kind;
    DType dtype = DType::kBool;
    bool swapped = false;
    std::uint8_t axis;  // of the first of its own axes in the whole shape
    union {
      PyObject* number;  // kept by `held_`
      std::byte* data;   // of an array, whose owner `held_` keeps
    };
    std::size_t first;        // of its elements in the result, counted in order
    std::size_t strides = 0;  // of an array: where they begin in `strides_`
    union {
      alignas(16) std::byte scalar[16];
      PyObject* tensor = nullptr;  // that an array's memory belongs to, kept by `held_`
    };
  };
  [[nodiscard]] bool scan_item(PyObject* object, int axis);
  [[nodiscard]] bool scan_items(PyObject* sequence, int axis);
  [[nodiscard]] bool scan_other(PyObject* object, int axis);
  [[nodiscard]] bool add_array(const View& view, int axis);
  [[nodiscard]] bool add_scalar(PyObject* object, DType dtype, int axis);
  [[nodiscard]] bool add_tensor(PyObject* tensor, int axis);
  [[nodiscard]] bool add_number(PyObject* object, Number kind, int axis);
  [[nodiscard]] bool fits(const std::int64_t* lengths, int ndim, int axis) noexcept;
  [[nodiscard]] Leaf& add(Leaf::Kind kind, DType dtype, int axis);
  [[nodiscard]] std::optional<DType> number_dtype(Number kind);
  // Of a leaf whose own axes begin there; wraps around for memory that cannot be.
  [[nodiscard]] std::size_t size_from(int axis) const noexcept;

  void fill_arrays(const View& out, NewPages& pages) const noexcept;
  [[nodiscard]] bool fill_numbers(const View& out) const;
  void copy_array(const View& out, const Leaf& leaf, NewPages& pages) const noexcept;
  [[nodiscard]] View view_of(const Leaf& leaf) const noexcept;
  [[nodiscard]] std::byte* place_of(const View& out, const Leaf& leaf) const noexcept;

  const Torch& torch_;
  PyObject* asked_;
  For purpose_;
  Shape shape_;
  bool has_shape_ = false;  // set by the first leaf, or the first empty list
  bool has_numbers_ = false;
  bool has_arrays_ = false;
  bool ran_code_ = false;    // of a leaf
  std::uint32_t kinds_ = 0;  // one bit for each DType
  std::size_t count_ = 0;    // of elements so far
  std::optional<DType> default_dtype_;
  std::optional<bool> plain_tensors_;  // no tensor has a tangent; asked when there is one
  std::vector<Leaf> leaves_;
  std::vector<std::int64_t> strides_;
  std::vector<Ref> held_;  // what was scanned, and the tensors that were made of leaves
};

}  // namespace dlferry::python
