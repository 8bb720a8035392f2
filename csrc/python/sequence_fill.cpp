// Leaves: the fill.
#include <algorithm>
#include <cstring>

#include "python/gil.h"
#include "python/leaves.h"
#include "tensor/cast.h"
#include "tensor/host_copy.h"
#include "tensor/pages.h"
#include "tensor/workers.h"

namespace dlferry::python {
namespace {

// Below this many bytes a copy takes less time than giving the GIL away and getting it back.
constexpr std::size_t kCopyUnderGil = 64 << 10;

// Waking a worker costs a few microseconds.
constexpr std::size_t kParallelBytes = 512 << 10;
constexpr std::size_t kTaskBytes = 128 << 10;

// A leaf of this size is shared among the workers by `host_copy` itself.
constexpr std::size_t kLargeLeaf = 1 << 20;

}  // namespace

bool Leaves::fill(const View& out, bool fresh) const {
  if (has_arrays_) {
    const std::size_t bytes = count_ * item_size(out.dtype);
    PyThreadState* state = bytes < kCopyUnderGil ? nullptr : PyEval_SaveThread();
    NewPages pages(out.data, fresh ? bytes : 0);
    fill_arrays(out, pages);
    if (state != nullptr) take_gil_back(state);
  }
  return fill_numbers(out);
}

// Nothing here touches a Python object: other threads run.
void Leaves::fill_arrays(const View& out, NewPages& pages) const noexcept {
  const std::size_t item = item_size(out.dtype);
  const auto bytes_of = [&](const Leaf& leaf) {
    return size_from(leaf.axis) * std::max(item, item_size(leaf.dtype));
  };
  const auto copy_small = [&](const Leaf& leaf) {
    if (leaf.kind == Leaf::Kind::kArray && bytes_of(leaf) < kLargeLeaf) {
      copy_array(out, leaf, pages);
    }
  };
  const std::size_t bytes = count_ * item;
  if (bytes < kParallelBytes) {
    for (const Leaf& leaf : leaves_) copy_small(leaf);
  } else {
    const std::size_t tasks = std::min(leaves_.size(), bytes / kTaskBytes);
    parallel(tasks, [&](std::size_t task) noexcept {
      const std::size_t end = (task + 1) * leaves_.size() / tasks;
      for (std::size_t i = task * leaves_.size() / tasks; i < end; ++i) copy_small(leaves_[i]);
    });
  }
  for (const Leaf& leaf : leaves_) {
    if (leaf.kind == Leaf::Kind::kArray && bytes_of(leaf) >= kLargeLeaf) {
      copy_array(out, leaf, pages);
    }
  }
}

void Leaves::copy_array(const View& out, const Leaf& leaf, NewPages& pages) const noexcept {
  const View source = view_of(leaf);
  View place = source;
  place.data = place_of(out, leaf);
  place.strides = out.strides + leaf.axis;
  place.dtype = out.dtype;
  place.swapped = false;
  host_copy(place, source, static_cast<std::int64_t>(count_ * item_size(out.dtype)), &pages);
}

bool Leaves::fill_numbers(const View& out) const {
  const std::size_t item = item_size(out.dtype);
  std::optional<NumberWriter> writer;
  if (has_numbers_) {
    writer = NumberWriter::make(torch_, out.dtype, widest_number(out.dtype));
    if (!writer) return false;
  }
  std::optional<Cast> cast;
  DType from = out.dtype;  // of `cast`
  for (const Leaf& leaf : leaves_) {
    if (leaf.kind == Leaf::Kind::kArray) continue;
    std::byte* place = place_of(out, leaf);
    if (leaf.kind == Leaf::Kind::kNumber) {
      if (writer->write(&leaf.number, 1, place) != 1) return false;
    } else if (leaf.dtype == out.dtype) {
      std::memcpy(place, leaf.scalar, item);
    } else {
      if (leaf.dtype != from) cast.emplace(out.dtype, from = leaf.dtype);
      cast->apply(place, leaf.scalar, 1);
    }
  }
  return true;
}

bool Leaves::overlap(const View& memory) const noexcept {
  return std::any_of(leaves_.begin(), leaves_.end(), [&](const Leaf& leaf) {
    return leaf.kind == Leaf::Kind::kArray && dlferry::overlap(view_of(leaf), memory);
  });
}

View Leaves::view_of(const Leaf& leaf) const noexcept {
  return {leaf.data,
          shape_.lengths.data() + leaf.axis,
          strides_.data() + leaf.strides,
          shape_.ndim - leaf.axis,
          leaf.dtype,
          leaf.swapped,
          {}};
}

std::byte* Leaves::place_of(const View& out, const Leaf& leaf) const noexcept {
  const std::size_t size = size_from(leaf.axis);
  if (size == 0) return out.data;
  auto index = static_cast<std::int64_t>(leaf.first / size);
  std::int64_t offset = 0;
  for (int axis = leaf.axis - 1; axis > 0; --axis) {
    offset += index % out.shape[axis] * out.strides[axis];
    index /= out.shape[axis];
  }
  return out.data + offset + (leaf.axis > 0 ? index * out.strides[0] : 0);
}

std::size_t Leaves::size_from(int axis) const noexcept {
  std::size_t size = 1;
  for (int i = axis; i < shape_.ndim; ++i) {
    size *= static_cast<std::size_t>(shape_.lengths[static_cast<std::size_t>(i)]);
  }
  return size;
}

}  // namespace dlferry::python
