#include "tensor/tiles.h"

#include <algorithm>
#include <cstdint>
#include <cstdlib>
#include <memory>

#include "tensor/gather.h"
#include "tensor/kernels.h"
#include "tensor/sink.h"

namespace dlferry {
namespace {

constexpr std::size_t kLineBytes = 64;
constexpr std::size_t kRunBytes = 8 * kLineBytes;  // of a destination row: shorter ones cost more
constexpr std::size_t kFewRows = 8;                // that few are gathered one by one

// In the first cache; and in the second, for copies through main memory, whose source is then read
// in runs so long that the processor fetches them ahead.
constexpr std::size_t kTileBytes = 16 << 10;
constexpr std::size_t kLargeTileBytes = 256 << 10;

struct Free {
  void operator()(std::byte* memory) const noexcept { std::free(memory); }
};

// Each thread's own, kept from copy to copy: clearing new pages would take longer than the copy.
// Null when there is no memory.
std::byte* large_tile() noexcept {
  thread_local const std::unique_ptr<std::byte, Free> memory(
      static_cast<std::byte*>(std::aligned_alloc(kLineBytes, kLargeTileBytes)));
  return memory.get();
}

struct Shape {
  std::size_t rows;
  std::size_t columns;
};

// Tiles whose destination rows begin within a line have to be wider than what they overlap by.
// Where one side is short, the other one makes up for it.
Shape tile_shape(const Axis& row, const Axis& column, std::size_t item,
                 std::size_t bytes) noexcept {
  const auto rows = static_cast<std::size_t>(row.count);
  const auto columns = static_cast<std::size_t>(column.count);
  const bool shares = row.dst % static_cast<std::int64_t>(kLineBytes) != 0;
  const std::size_t wide = std::max(kRunBytes / item, (shares ? 2 : 1) * kLineBytes);
  const std::size_t most = bytes / item, high = most / wide;
  if (rows < high)
    return {rows, std::min({columns, most / rows, std::max(wide, kTileBytes / item / rows)})};
  return {std::min(rows, most / std::min(columns, wide)), std::min(columns, wide)};
}

// The source lines of the tile to come, asked for little by little while another one is written.
class Ahead {
 public:
  Ahead() noexcept = default;
  Ahead(const std::byte* src, std::int64_t stride, std::size_t columns, std::size_t bytes) noexcept
      : at_(src), stride_(stride), columns_(columns), bytes_(bytes) {}

  // `share` is what is done of the writing, out of `all`.
  void fetch(std::size_t share, std::size_t all) noexcept {
    for (; done_ * all < share * columns_; ++done_, at_ += stride_) {
      for (std::size_t i = 0; i < bytes_; i += kLineBytes) __builtin_prefetch(at_ + i);
    }
  }

 private:
  const std::byte* at_ = nullptr;
  std::int64_t stride_ = 0;
  std::size_t columns_ = 0;
  std::size_t bytes_ = 0;  // of each column
  std::size_t done_ = 0;
};

class Tiler {
 public:
  Tiler(const Axis& row, const Axis& column, const Conversion& conversion) noexcept
      : row_(row),
        column_(column),
        conversion_(conversion),
        large_(conversion.stream ? large_tile() : nullptr),
        tile_(large_ != nullptr ? large_ : small_),
        most_(tile_shape(row, column, conversion.from_size,
                         large_ != nullptr ? kLargeTileBytes : kTileBytes)),
        shared_(shares_lines() ? kLineBytes / conversion.to_size : 0),
        sink_(conversion) {}

  // The whole plane of both axes, tile after tile along the runs of the source. Tiles that would
  // share destination lines overlap by as much as a line, so that every row can leave its last
  // line, if not whole, to the next tile.
  void copy(std::byte* dst, const std::byte* src) noexcept {
    const auto columns = static_cast<std::size_t>(column_.count);
    for (std::size_t first = 0;;) {
      const std::size_t wide = std::min(most_.columns, columns - first);
      const bool last = first + wide == columns;
      const auto x = static_cast<std::int64_t>(first);
      const std::byte* here = src + x * column_.src;
      const Ahead ahead = last ? Ahead() : after(here, wide - shared_, columns - first);
      copy_strip(dst + x * column_.dst, here, wide, {first > 0, !last}, ahead);
      if (last) return;
      first += wide - shared_;
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

  // Which ends of a row are left, up to a line's boundary, to the neighbouring tiles.
  struct Trim {
    bool front;
    bool back;
  };

  // What comes `step` columns later, where runs are too short for the processor to fetch ahead by
  // itself, and whole strips are read at once.
  [[nodiscard]] Ahead after(const std::byte* src, std::size_t step,
                            std::size_t left) const noexcept {
    const auto rows = static_cast<std::size_t>(row_.count);
    if (!conversion_.stream || !adjacent() || rows > most_.rows) return {};
    return {src + static_cast<std::int64_t>(step) * column_.src, column_.src,
            std::min(most_.columns, left - step), rows * conversion_.from_size};
  }

  // All rows of so many columns.
  void copy_strip(std::byte* dst, const std::byte* src, std::size_t columns, Trim trim,
                  Ahead ahead) noexcept {
    const auto rows = static_cast<std::size_t>(row_.count);
    for (std::size_t row = 0; row < rows; row += most_.rows) {
      const Shape shape{std::min(most_.rows, rows - row), columns};
      const auto y = static_cast<std::int64_t>(row);
      read(src + y * row_.src, shape);
      write(dst + y * row_.dst, shape, trim, ahead);
    }
  }

  void read(const std::byte* src, Shape shape) noexcept {
    const std::size_t row_bytes = shape.columns * conversion_.from_size;
    if (shape.rows < kFewRows) {
      for (std::size_t i = 0; i < shape.rows; ++i, src += row_.src) {
        along_row_.run(tile_ + i * row_bytes, src, static_cast<std::int64_t>(shape.columns));
      }
    } else if (adjacent()) {
      transpose_(tile_, src, column_.src, shape.rows, shape.columns);
      const std::size_t unit = conversion_.swap_size;
      if (unit > 1) kernels().swap[size_index(unit)](tile_, shape.rows * row_bytes / unit);
    } else {
      read_apart(src, shape);
    }
  }

  // Elements that lie apart are first put together, a few of each column.
  void read_apart(const std::byte* src, Shape shape) noexcept {
    const std::size_t item = conversion_.from_size, row_bytes = shape.columns * item;
    const std::size_t most = std::max<std::size_t>(kTileBytes / row_bytes, 1);
    for (std::size_t row = 0; row < shape.rows; row += most) {
      const std::size_t rows = std::min(most, shape.rows - row);
      const std::byte* column = src + static_cast<std::int64_t>(row) * row_.src;
      for (std::size_t i = 0; i < shape.columns; ++i, column += column_.src) {
        down_column_.run(together_ + i * rows * item, column, static_cast<std::int64_t>(rows));
      }
      transpose_(tile_ + row * row_bytes, together_, static_cast<std::int64_t>(rows * item), rows,
                 shape.columns);
    }
  }

  void write(std::byte* dst, Shape shape, Trim trim, Ahead ahead) noexcept {
    const std::size_t row_bytes = shape.columns * conversion_.from_size;
    for (std::size_t row = 0; row < shape.rows; row += kFewRows) {
      const std::size_t rows = std::min(kFewRows, shape.rows - row);
      const std::byte* const from = tile_ + row * row_bytes;
      std::byte* const to = dst + static_cast<std::int64_t>(row) * row_.dst;
      ahead.fetch(row + rows, shape.rows);
      if (shared_ == 0) {
        sink_.put_rows(to, {row_.dst, column_.dst}, from, rows, shape.columns);
      } else {
        write_trimmed(to, from, {rows, shape.columns}, trim);
      }
    }
  }

  void write_trimmed(std::byte* dst, const std::byte* tile, Shape shape, Trim trim) noexcept {
    const std::size_t from = conversion_.from_size, to = conversion_.to_size;
    for (std::size_t i = 0; i < shape.rows; ++i, dst += row_.dst) {
      const auto place = reinterpret_cast<std::uintptr_t>(dst);
      const std::size_t begin = trim.front ? -place % kLineBytes / to : 0;
      const std::size_t end =
          shape.columns - (trim.back ? (place + shape.columns * to) % kLineBytes / to : 0);
      sink_.put(dst + static_cast<std::int64_t>(begin) * column_.dst, column_.dst,
                tile + (i * shape.columns + begin) * from, end - begin);
    }
  }

  const Axis row_;
  const Axis column_;
  const Conversion& conversion_;
  std::byte* const large_;
  std::byte* const tile_;
  const Shape most_;
  const std::size_t shared_;  // columns by which tiles overlap
  const Gather along_row_{conversion_.from_size, conversion_.swap_size, column_.src};
  const Gather down_column_{conversion_.from_size, conversion_.swap_size, row_.src};
  const TransposeTile transpose_ = kernels().transpose[size_index(conversion_.from_size)];
  Sink sink_;
  alignas(64) std::byte small_[kTileBytes];
  alignas(64) std::byte together_[kTileBytes];
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
