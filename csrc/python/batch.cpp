#include "python/batch.h"

#include <algorithm>

#include "python/exchange.h"
#include "python/numpy_api.h"

namespace dlferry::python {
namespace {

// Whether the strides are those that a new tensor of the shape has.
bool is_in_order(const View& view) noexcept {
  auto step = static_cast<std::int64_t>(item_size(view.dtype));
  for (int axis = view.ndim - 1; axis >= 0; --axis) {
    if (view.strides[axis] != step) return false;
    step *= view.shape[axis];
  }
  return true;
}

bool same_shape(const View& one, const View& other) noexcept {
  return one.ndim == other.ndim && std::equal(one.shape, one.shape + one.ndim, other.shape);
}

}  // namespace

bool Batch::scan(const Torch& torch, PyObject* leaves, std::size_t most_bytes) {
  const auto count = static_cast<std::size_t>(PyList_GET_SIZE(leaves));
  items_.reserve(count);
  for (std::size_t i = 0; i < count && i < static_cast<std::size_t>(PyList_GET_SIZE(leaves)); ++i) {
    const Ref object = Ref::borrow(PyList_GET_ITEM(leaves, static_cast<Py_ssize_t>(i)));
    if (!take(torch, object.get(), i, most_bytes) && PyErr_Occurred() != nullptr) return false;
  }
  return true;
}

bool Batch::take(const Torch& torch, PyObject* object, std::size_t leaf, std::size_t most_bytes) {
  TensorView seen;
  const View& view = seen.view;
  if (!look_on_host(torch, object, seen) ||
      torch.dtypes[static_cast<std::size_t>(view.dtype)] == nullptr || !is_in_order(view)) {
    return false;
  }
  const std::size_t bytes = static_cast<std::size_t>(element_count(view)) * item_size(view.dtype);
  if (bytes == 0 || bytes > most_bytes) return false;
  const bool is_tensor = Py_TYPE(object) == torch.tensor;
  items_.push_back({leaf, Ref::borrow(object), KeptView(view), is_tensor});
  has_[static_cast<std::size_t>(view.dtype)] = true;
  return true;
}

std::size_t Batch::place(const Wires& wires) noexcept {
  wires_ = wires;
  std::size_t end = 0;
  for (Item& item : items_) {
    item.offset = end;
    end += static_cast<std::size_t>(element_count(*item.view)) * item_size(wire_of(item));
    end = (end + kAlignment - 1) / kAlignment * kAlignment;
  }
  return end;
}

std::vector<Batch::Run> Batch::runs() const {
  std::vector<Run> runs;
  for (std::size_t i = 0; i < items_.size(); ++i) {
    const Item& item = items_[i];
    if (!runs.empty() && runs.back().first->view->dtype == item.view->dtype &&
        same_shape(*runs.back().first->view, *item.view)) {
      ++runs.back().count;
    } else {
      const std::size_t bytes =
          static_cast<std::size_t>(element_count(*item.view)) * item_size(wire_of(item));
      runs.push_back({&item, 1, (bytes + kAlignment - 1) / kAlignment * kAlignment, wire_of(item)});
    }
  }
  return runs;
}

Ref Batch::storages(const Torch& torch) const {
  Ref list = Ref::steal(PyList_New(0));
  for (const Item& item : items_) {
    if (!list) break;
    if (!item.is_tensor) continue;
    TensorView seen;
    if (!look_plain(torch, item.object.get(), seen) || seen.view.data != item.view->data ||
        seen.view.dtype != item.view->dtype || !same_shape(seen.view, *item.view)) {
      if (!clear_exception()) return {};
      PyErr_SetString(PyExc_ValueError,
                      "a tensor of the tree was changed while its transfer was started; start it "
                      "when others are done with the tree");
      return {};
    }
    const Ref storage = Ref::steal(torch.untyped_storage(item.object.get()));
    if (!storage || PyList_Append(list.get(), storage.get()) < 0) return {};
  }
  return list;
}

std::vector<cuda::Leaf> Batch::leaves(cu::DevicePtr block) const {
  std::vector<cuda::Leaf> leaves;
  leaves.reserve(items_.size());
  for (const Item& item : items_) {
    leaves.push_back({.host = KeptView(*item.view),
                      .wire = wire_of(item),
                      .device = block + static_cast<cu::DevicePtr>(item.offset)});
  }
  return leaves;
}

}  // namespace dlferry::python
