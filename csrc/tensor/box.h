// Box: the index space that two views share, brought into the order in which it is copied.
#pragma once

#include <algorithm>
#include <array>
#include <cstddef>
#include <cstdint>

#include "tensor/view.h"

namespace dlferry {

struct Axis {
  std::int64_t count;
  std::int64_t dst;  // strides, in bytes
  std::int64_t src;
};

// Axes outermost first, by falling stride in the destination, whose strides are all positive.
// Axes of length one are gone, and neighbours that advance as one on both sides are one axis; at
// least one axis is always there.
struct Box {
  Box(std::byte* to, const std::byte* from) noexcept : dst(to), src(from) {}
  Box(const Box& other) noexcept : dst(other.dst), src(other.src), ndim(other.ndim) {
    std::copy_n(other.axes.begin(), ndim, axes.begin());
  }
  Box& operator=(const Box&) = delete;

  std::byte* dst;
  const std::byte* src;
  int ndim = 0;
  std::array<Axis, kMaxDims> axes;  // the first ndim of them; the others are never touched

  [[nodiscard]] const Axis& inner() const noexcept {
    return axes[static_cast<std::size_t>(ndim - 1)];
  }
  void append(const Axis& axis) noexcept { axes[static_cast<std::size_t>(ndim++)] = axis; }
};

// `dst` and `src` have one shape, without zeros.
[[nodiscard]] Box make_box(const View& dst, const View& src) noexcept;

// What remains when the innermost axis of several is taken away.
[[nodiscard]] Box without_inner(const Box& box) noexcept;

[[nodiscard]] std::int64_t element_count(const Box& box) noexcept;

// Whether the destination is one gapless run of elements of `item` bytes, in the box's order.
[[nodiscard]] bool is_dense(const Box& box, std::int64_t item) noexcept;

// Walks one side of a box (`kSide` is &Axis::dst or &Axis::src), run by run: a run is what is left
// of the innermost axis.
template <std::int64_t Axis::* kSide>
class Cursor {
 public:
  explicit Cursor(const Box& box) noexcept : box_(box) {
    for (int i = 0; i < box.ndim; ++i) index_[static_cast<std::size_t>(i)] = 0;
  }

  // Of the next element from the first, in bytes.
  [[nodiscard]] std::int64_t offset() const noexcept { return offset_; }
  [[nodiscard]] std::int64_t stride() const noexcept { return box_.inner().*kSide; }
  [[nodiscard]] std::int64_t run() const noexcept { return box_.inner().count - in_run_; }

  // Moves on by at most run() elements.
  void advance(std::int64_t count) noexcept {
    in_run_ += count;
    offset_ += count * stride();
    if (in_run_ < box_.inner().count) return;
    offset_ -= in_run_ * stride();
    in_run_ = 0;
    for (int i = box_.ndim - 2; i >= 0; --i) {
      const auto at = static_cast<std::size_t>(i);
      const Axis& axis = box_.axes[at];
      offset_ += axis.*kSide;
      if (++index_[at] < axis.count) return;
      offset_ -= axis.count * (axis.*kSide);
      index_[at] = 0;
    }
  }

 private:
  const Box& box_;
  std::int64_t offset_ = 0;
  std::int64_t in_run_ = 0;
  std::array<std::int64_t, kMaxDims> index_;  // the first ndim of them
};

}  // namespace dlferry
