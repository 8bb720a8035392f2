#include "tensor/tiles.h"

#include <algorithm>
#include <cstdlib>

#include "tensor/gather.h"
#include "tensor/kernels.h"
#include "tensor/sink.h"

namespace dlferry {
namespace {

constexpr std::size_t kTileBytes = 16384;  // half of the smallest first cache
constexpr std::size_t kLineBytes = 64;
constexpr std::size_t kFewRows = 8;  // that few are gathered one by one

struct Shape {
  std::size_t rows;
  std::size_t columns;
};

std::size_t whole(std::size_t count, std::size_t unit) noexcept {
  return count > unit ? count / unit * unit : count;
}

// At least a source line high where there is that much, then as wide as the tile's bytes allow.
Shape tile_shape(std::size_t rows, std::size_t columns, std::size_t item) noexcept {
  const std::size_t line = kLineBytes / item;
  const std::size_t most = kTileBytes / item;
  const std::size_t wide = std::min(columns, whole(most / std::min(rows, line), line));
  return {std::min(rows, whole(most / wide, line)), wide};
}

class Tiler {
 public:
  Tiler(const Axis& row, const Axis& column, const Conversion& conversion) noexcept
      : row_(row), column_(column), conversion_(conversion), sink_(conversion) {}

  // The whole plane of both axes.
  void copy(std::byte* dst, const std::byte* src) noexcept {
    const auto rows = static_cast<std::size_t>(row_.count);
    const auto columns = static_cast<std::size_t>(column_.count);
    const Shape most = tile_shape(rows, columns, conversion_.from_size);
    for (std::size_t column = 0; column < columns; column += most.columns) {
      const auto x = static_cast<std::int64_t>(column);
      for (std::size_t row = 0; row < rows; row += most.rows) {
        const auto y = static_cast<std::int64_t>(row);
        read(src + x * column_.src + y * row_.src,
             {std::min(most.rows, rows - row), std::min(most.columns, columns - column)});
        write(dst + x * column_.dst + y * row_.dst);
      }
    }
  }

 private:
  void read(const std::byte* src, Shape shape) noexcept {
    shape_ = shape;
    const std::size_t item = conversion_.from_size, row_bytes = shape.columns * item;
    const bool adjacent = row_.src == static_cast<std::int64_t>(item);
    if (adjacent && shape.rows >= kFewRows) {
      transpose_(tile_, src, column_.src, shape.rows, shape.columns);
    } else {
      for (std::size_t i = 0; i < shape.rows; ++i, src += row_.src) {
        gather_.run(tile_ + i * row_bytes, src, static_cast<std::int64_t>(shape.columns));
      }
    }
    const std::size_t unit = conversion_.swap_size;
    if (unit > 1) swap_(tile_, shape.rows * row_bytes / unit);
  }

  void write(std::byte* dst) noexcept {
    const auto row_bytes = static_cast<std::int64_t>(shape_.columns * conversion_.to_size);
    const bool dense = column_.dst * static_cast<std::int64_t>(shape_.columns) == row_bytes &&
                       row_.dst == row_bytes;
    if (dense) return sink_.put(dst, column_.dst, tile_, shape_.rows * shape_.columns);
    for (std::size_t i = 0; i < shape_.rows; ++i, dst += row_.dst) {
      sink_.put(dst, column_.dst, tile_ + i * shape_.columns * conversion_.from_size,
                shape_.columns);
    }
  }

  const Axis row_;
  const Axis column_;
  const Conversion& conversion_;
  const Gather gather_{conversion_.from_size, column_.src};
  const SwapRun swap_ = kernels().swap[size_index(conversion_.swap_size)];
  const TransposeTile transpose_ = kernels().transpose[size_index(conversion_.from_size)];
  Shape shape_{};  // of what is in tile_
  Sink sink_;
  alignas(64) std::byte tile_[kTileBytes];
};

}  // namespace

std::optional<int> tile_axis(const Box& box) noexcept {
  std::optional<int> closest;
  std::int64_t least = std::abs(box.inner().src);
  for (int i = 0; i < box.ndim - 1; ++i) {
    const std::int64_t stride = std::abs(box.axes[static_cast<std::size_t>(i)].src);
    if (stride > 0 && stride < least) {
      least = stride;
      closest = i;
    }
  }
  return closest;
}

void copy_tiles(const Box& box, int across, const Conversion& conversion) noexcept {
  Box outer{box.dst, box.src, 0, {}};
  for (int i = 0; i < box.ndim - 1; ++i) {
    if (i != across) outer.append(box.axes[static_cast<std::size_t>(i)]);
  }
  if (outer.ndim == 0) outer.append({1, 0, 0});
  Tiler tiler(box.axes[static_cast<std::size_t>(across)], box.inner(), conversion);
  Cursor<&Axis::dst> dst(outer);
  Cursor<&Axis::src> src(outer);
  for (std::int64_t left = element_count(outer); left > 0; --left) {
    tiler.copy(outer.dst + dst.offset(), outer.src + src.offset());
    dst.advance(1);
    src.advance(1);
  }
}

}  // namespace dlferry
