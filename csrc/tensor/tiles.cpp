#include "tensor/tiles.h"

#include <algorithm>
#include <cstdint>
#include <cstdlib>

#include "tensor/gather.h"
#include "tensor/kernels.h"
#include "tensor/sink.h"

namespace dlferry {
namespace {

constexpr std::size_t kTileBytes = 32768;
constexpr std::size_t kLineBytes = 64;
constexpr std::size_t kFewRows = 8;  // that few are gathered one by one

struct Shape {
  std::size_t rows;
  std::size_t columns;
};

// A few source lines high and a few destination lines wide, as was measured to be best; where one
// side is short, the other one makes up for it. Destination rows that begin within a line want
// wider tiles, which share fewer lines with their neighbours.
Shape tile_shape(const Axis& row, const Axis& column, std::size_t item) noexcept {
  const auto rows = static_cast<std::size_t>(row.count);
  const auto columns = static_cast<std::size_t>(column.count);
  const std::size_t high = std::max<std::size_t>(4 * kLineBytes / item, 16);
  const std::size_t spread = row.dst % static_cast<std::int64_t>(kLineBytes) == 0 ? 1 : 2;
  const std::size_t wide = std::max(2 * kLineBytes / item, kLineBytes) * spread;
  const std::size_t most = kTileBytes / item * spread / 2;
  if (rows < high) return {rows, std::min(columns, most / rows)};
  if (columns < wide) return {std::min(rows, most / columns), columns};
  return {std::min(rows, most / wide), wide};
}

// The source lines of the tile to come, asked for little by little while another one is written.
class Ahead {
 public:
  // Columns that share lines follow each other as the processor expects by itself.
  Ahead(const std::byte* src, std::int64_t stride, std::size_t columns, std::size_t bytes) noexcept
      : at_(src),
        stride_(stride),
        columns_(std::abs(stride) > static_cast<std::int64_t>(kLineBytes) ? columns : 0),
        bytes_(bytes) {}

  // `share` is what is done of the writing, out of `all`.
  void fetch(std::size_t share, std::size_t all) noexcept {
    for (; done_ * all < share * columns_; ++done_, at_ += stride_) {
      for (std::size_t i = 0; i < bytes_; i += kLineBytes) __builtin_prefetch(at_ + i);
    }
  }

 private:
  const std::byte* at_;
  std::int64_t stride_;
  std::size_t columns_;
  std::size_t bytes_;  // of each column
  std::size_t done_ = 0;
};

class Tiler {
 public:
  Tiler(const Axis& row, const Axis& column, const Conversion& conversion) noexcept
      : row_(row),
        column_(column),
        conversion_(conversion),
        most_(tile_shape(row, column, conversion.from_size)),
        shared_(shares_lines() ? kLineBytes / conversion.to_size : 0),
        sink_(conversion) {}

  // The whole plane of both axes.
  void copy(std::byte* dst, const std::byte* src) noexcept {
    const auto rows = static_cast<std::size_t>(row_.count);
    const auto columns = static_cast<std::size_t>(column_.count);
    for (std::size_t row = 0; row < rows; row += most_.rows) {
      const Shape shape{std::min(most_.rows, rows - row), most_.columns};
      const auto y = static_cast<std::int64_t>(row);
      copy_band(dst + y * row_.dst, src + y * row_.src, shape, columns);
    }
  }

 private:
  // Whether a column of a tile is a run of the source.
  [[nodiscard]] bool adjacent() const noexcept {
    return row_.src == static_cast<std::int64_t>(conversion_.from_size);
  }

  // Whether the rows of neighbouring tiles meet within a line. Streamed in two parts, such a line
  // would cost as much as many whole ones.
  [[nodiscard]] bool shares_lines() const noexcept {
    return conversion_.stream && column_.dst == static_cast<std::int64_t>(conversion_.to_size) &&
           row_.dst % static_cast<std::int64_t>(kLineBytes) != 0;
  }

  // All columns of the rows in `shape`. Tiles that would share destination lines overlap by as much
  // as a line, so that every row can leave its last line, if not whole, to the next tile.
  void copy_band(std::byte* dst, const std::byte* src, Shape shape, std::size_t columns) noexcept {
    for (std::size_t first = 0;;) {
      shape.columns = std::min(most_.columns, columns - first);
      const bool last = first + shape.columns == columns;
      const std::size_t step = shape.columns - (last ? 0 : shared_);
      const auto x = static_cast<std::int64_t>(first),
                 next = static_cast<std::int64_t>(first + step);
      read(src + x * column_.src, shape);
      const std::size_t coming = adjacent() ? std::min(most_.columns, columns - first - step) : 0;
      const Ahead ahead(src + next * column_.src, column_.src, coming,
                        shape.rows * conversion_.from_size);
      write(dst + x * column_.dst, shape, {first > 0, !last}, ahead);
      if (last) return;
      first += step;
    }
  }

  void read(const std::byte* src, Shape shape) noexcept {
    const std::size_t item = conversion_.from_size, row_bytes = shape.columns * item;
    if (adjacent() && shape.rows >= kFewRows) {
      transpose_(tile_, src, column_.src, shape.rows, shape.columns);
      const std::size_t unit = conversion_.swap_size;
      if (unit > 1) kernels().swap[size_index(unit)](tile_, shape.rows * row_bytes / unit);
      return;
    }
    for (std::size_t i = 0; i < shape.rows; ++i, src += row_.src) {
      gather_.run(tile_ + i * row_bytes, src, static_cast<std::int64_t>(shape.columns));
    }
  }

  // Which ends of a row are left, up to a line's boundary, to the neighbouring tiles.
  struct Trim {
    bool front;
    bool back;
  };

  void write(std::byte* dst, Shape shape, Trim trim, Ahead ahead) noexcept {
    const std::size_t from = conversion_.from_size, to = conversion_.to_size;
    const auto row_bytes = static_cast<std::int64_t>(shape.columns * to);
    if (row_.dst == row_bytes && column_.dst == static_cast<std::int64_t>(to)) {
      return sink_.put(dst, column_.dst, tile_, shape.rows * shape.columns);
    }
    for (std::size_t i = 0; i < shape.rows; ++i, dst += row_.dst) {
      ahead.fetch(i + 1, shape.rows);
      std::size_t begin = 0, end = shape.columns;
      if (shared_ > 0) {
        const auto place = reinterpret_cast<std::uintptr_t>(dst);
        if (trim.front) begin = -place % kLineBytes / to;
        if (trim.back) end -= (place + end * to) % kLineBytes / to;
      }
      sink_.put(dst + static_cast<std::int64_t>(begin) * column_.dst, column_.dst,
                tile_ + (i * shape.columns + begin) * from, end - begin);
    }
  }

  const Axis row_;
  const Axis column_;
  const Conversion& conversion_;
  const Shape most_;
  const std::size_t shared_;  // columns by which tiles overlap
  const Gather gather_{conversion_.from_size, conversion_.swap_size, column_.src};
  const TransposeTile transpose_ = kernels().transpose[size_index(conversion_.from_size)];
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
  Box outer(box.dst, box.src);
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
