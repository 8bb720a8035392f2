#include "tensor/host_copy.h"

#include <algorithm>
#include <array>
#include <cstring>
#include <optional>

#include "tensor/box.h"
#include "tensor/conversion.h"
#include "tensor/machine.h"
#include "tensor/rows.h"
#include "tensor/tiles.h"
#include "tensor/workers.h"

// A copy goes through four stages:
//
//   box.h     both views become one list of axes, in the destination's order and as few as can be
//   here      a large box is cut into tasks, which the workers share
//   rows.h, tiles.h   a task reads its elements along the rows of the destination or, where those
//             lie across the source's, in small transposed tiles; either way into native order
//   sink.h    casts what was read and puts it in place
//
// Between two stages, elements are in the first cache or still where they came from.

namespace dlferry {
namespace {

// Waking a worker costs a few microseconds: below the first number of bytes one thread is faster.
constexpr std::int64_t kParallelBytes = std::int64_t{1} << 20;
constexpr std::int64_t kTaskBytes = std::int64_t{1} << 19;

// Of a destination: smaller parts of a large whole are mostly broken cache lines.
constexpr std::int64_t kSmallestStream = 4 << 10;

// Pieces that are not worth cutting further, in elements: rows stay long, and tiles read whole
// pages of the source.
constexpr std::int64_t kSmallestRow = 512;
constexpr std::int64_t kSmallestAcross = 1024;

// The box cut along its axes, outermost first, into as many pieces as wanted (roughly).
class Cut {
 public:
  Cut(const Box& box, std::optional<int> across, std::int64_t wanted) noexcept : box_(box) {
    for (int i = 0; i < box.ndim; ++i) {
      const auto at = static_cast<std::size_t>(i);
      const std::int64_t count = box.axes[at].count;
      const std::int64_t least = i == across         ? kSmallestAcross
                                 : i == box.ndim - 1 ? kSmallestRow
                                                     : 1;
      const std::int64_t missing = (wanted + pieces_ - 1) / pieces_;
      const std::int64_t step = (count + missing - 1) / missing;
      steps_[at] = std::min(count, (step + least - 1) / least * least);
      pieces_ *= (count + steps_[at] - 1) / steps_[at];
    }
  }

  [[nodiscard]] std::size_t pieces() const noexcept { return static_cast<std::size_t>(pieces_); }

  [[nodiscard]] Box piece(std::size_t index) const noexcept {
    Box part = box_;
    auto rest = static_cast<std::int64_t>(index);
    for (int i = box_.ndim - 1; i >= 0; --i) {
      const auto at = static_cast<std::size_t>(i);
      Axis& axis = part.axes[at];
      const std::int64_t along = (axis.count + steps_[at] - 1) / steps_[at];
      const std::int64_t first = rest % along * steps_[at];
      rest /= along;
      axis.count = std::min(steps_[at], axis.count - first);
      part.dst += first * axis.dst;
      part.src += first * axis.src;
    }
    return part;
  }

 private:
  const Box& box_;
  std::array<std::int64_t, kMaxDims> steps_;
  std::int64_t pieces_ = 1;
};

Conversion conversion_between(const View& dst, const View& src) noexcept {
  const DTypeInfo& from = info(src.dtype);
  Conversion conversion{item_size(src.dtype),
                        item_size(dst.dtype),
                        src.swapped ? from.swap_size : std::size_t{1},
                        {}};
  if (dst.dtype != src.dtype) conversion.cast.emplace(dst.dtype, src.dtype);
  return conversion;
}

// Whether to write to pages that Linux has just cleared as to other memory: they are in a cache,
// and writing past it is dearer. But tiles are written a few lines here and a few there, with
// others in between, and plain copies were measured to be no faster.
bool writes_into_cache(const Box& box, const Conversion& conversion) noexcept {
  const bool is_plain = !conversion.changes_bytes() &&
                        box.inner().src == static_cast<std::int64_t>(conversion.from_size);
  return !is_plain && !tile_axis(box);
}

// Of what a box writes.
const std::byte* end_of(const Box& box, std::size_t item) noexcept {
  const std::byte* end = box.dst + item;
  for (int i = 0; i < box.ndim; ++i) {
    const Axis& axis = box.axes[static_cast<std::size_t>(i)];
    end += (axis.count - 1) * axis.dst;
  }
  return end;
}

void copy_box(const Box& box, std::optional<int> across, const Conversion& conversion) noexcept {
  if (across) {
    copy_tiles(box, *across, conversion);
  } else {
    copy_rows(box, conversion);
  }
}

}  // namespace

bool can_copy(DType to, DType from) noexcept {
  return to == from || (to != DType::kComplex32 && from != DType::kComplex32);
}

void host_copy(const View& dst, const View& src, std::int64_t whole_bytes,
               NewPages* pages) noexcept {
  const std::int64_t count = element_count(dst);
  if (count == 0) return;
  Conversion conversion = conversion_between(dst, src);
  const auto to_bytes = count * static_cast<std::int64_t>(conversion.to_size);
  const auto from_bytes = count * static_cast<std::int64_t>(conversion.from_size);
  const std::int64_t bytes = std::max(to_bytes, from_bytes);
  conversion.stream =
      to_bytes >= kSmallestStream &&
      std::max(to_bytes, whole_bytes) >= static_cast<std::int64_t>(last_cache_bytes() / 2);
  if (bytes < kParallelBytes && !conversion.changes_bytes() && !conversion.stream &&
      is_contiguous(dst) && is_contiguous(src)) {
    if (pages != nullptr) pages->reach(dst.data + bytes);
    std::memcpy(dst.data, src.data, static_cast<std::size_t>(bytes));
    return;
  }

  const Box box = make_box(dst, src);
  const std::optional<int> across = tile_axis(box);
  if (pages != nullptr && pages->are_made_on_demand() && writes_into_cache(box, conversion)) {
    conversion.stream = false;
  }
  const auto copy = [&](const Box& piece) noexcept {
    if (pages != nullptr) pages->reach(end_of(piece, conversion.to_size));
    copy_box(piece, across, conversion);
  };
  if (bytes < kParallelBytes) return copy(box);
  const Cut cut(box, across, bytes / kTaskBytes);
  const auto copy_piece = [&](std::size_t index) noexcept { copy(cut.piece(index)); };
  parallel(cut.pieces(), copy_piece);
}

}  // namespace dlferry
