// Batch: the small arrays among the leaves of a tree, which cross the link to a device as one.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <vector>

#include "cuda/parts.h"
#include "python/doors.h"
#include "tensor/kept_view.h"

namespace dlferry::python {

class Batch {
 public:
  // Where packed arrays begin, in bytes.
  static constexpr std::size_t kAlignment = 256;

  // Takes those leaves of a list that are nothing but elements in C order on the host, at most
  // `most_bytes` each and at least one: exact ndarrays and plain tensors. May run Python code.
  // False with a Python error set.
  [[nodiscard]] bool scan(const Torch& torch, PyObject* leaves, std::size_t most_bytes);

  struct Item {
    std::size_t leaf;  // its number in the list
    Ref object;
    KeptView view;
    bool is_tensor;
    std::size_t offset = 0;  // in the block
  };
  [[nodiscard]] const std::vector<Item>& items() const noexcept { return items_; }
  [[nodiscard]] bool has(DType dtype) const noexcept {
    return has_[static_cast<std::size_t>(dtype)];
  }

  // What crosses the link for each dtype that is in it.
  using Wires = std::array<DType, kDTypeCount>;

  // Gives each array its place in one block. Returns the size of that, in bytes.
  [[nodiscard]] std::size_t place(const Wires& wires) noexcept;

  // Arrays of one shape and dtype that lie in the block at equal distances.
  struct Run {
    const Item* first;
    std::size_t count;
    std::size_t distance;  // in bytes
    DType wire;
  };
  [[nodiscard]] std::vector<Run> runs() const;

  // The storages of the tensors: what they lie in now outlives their moving elsewhere. Looks at
  // them again, as other code may have moved them since. Empty with a Python error set.
  [[nodiscard]] Ref storages(const Torch& torch) const;

  [[nodiscard]] std::vector<cuda::Leaf> leaves(cu::DevicePtr block) const;

 private:
  [[nodiscard]] bool take(const Torch& torch, PyObject* object, std::size_t leaf,
                          std::size_t most_bytes);
  [[nodiscard]] DType wire_of(const Item& item) const noexcept {
    return wires_[static_cast<std::size_t>(item.view->dtype)];
  }

  std::vector<Item> items_;
  std::array<bool, kDTypeCount> has_{};
  Wires wires_{};
};

}  // namespace dlferry::python
