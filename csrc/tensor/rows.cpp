#include "tensor/rows.h"

#include <algorithm>

#include "tensor/gather.h"
#include "tensor/sink.h"

namespace dlferry {
namespace {

constexpr std::size_t kBufferBytes = 8192;  // stays in the first cache, beside the sink's
constexpr std::size_t kInPlaceBytes = 512;  // shorter rows are better gathered into longer ones

// Hands out the source's elements in the box's order, contiguous and in native byte order: where
// they are if they lie so, else from a buffer.
class Reader {
 public:
  Reader(const Box& box, const Conversion& conversion) noexcept
      : item_(conversion.from_size),
        src_(box.src),
        row_(groups(box, item_) ? box.inner().count : 1),
        axes_(row_ > 1 ? without_inner(box) : box),
        cursor_(axes_),
        gather_(item_, conversion.swap_size, row_, box.inner().src, cursor_.stride()),
        in_place_(row_ == 1 && conversion.swap_size == 1 &&
                  cursor_.stride() == static_cast<std::int64_t>(item_) &&
                  static_cast<std::size_t>(cursor_.run()) * item_ >= kInPlaceBytes) {}

  // The next `count` elements, or fewer: then `count` says how many. What has to be put together
  // is, where there is `room` for all of them.
  const std::byte* next(std::size_t& count, std::byte* room) noexcept {
    if (!in_place_) return gather(count, room != nullptr ? room : buffer_);
    count = std::min(count, static_cast<std::size_t>(cursor_.run()));
    const std::byte* here = src_ + cursor_.offset();
    cursor_.advance(static_cast<std::int64_t>(count));
    return here;
  }

 private:
  // Rows too short for a loop of their own are read as one group each.
  static bool groups(const Box& box, std::size_t item) noexcept {
    return box.ndim > 1 && Gather::fits(item, box.inner().count, box.inner().src);
  }

  const std::byte* gather(std::size_t& count, std::byte* to) noexcept {
    const auto most = static_cast<std::int64_t>(kBufferBytes) / gather_.bytes();
    const std::int64_t rows = std::min(static_cast<std::int64_t>(count) / row_, most);
    std::byte* end = to;
    for (std::int64_t left = rows; left > 0;) {
      const std::int64_t some = std::min(left, cursor_.run());
      gather_.run(end, src_ + cursor_.offset(), some);
      cursor_.advance(some);
      end += some * gather_.bytes();
      left -= some;
    }
    count = static_cast<std::size_t>(rows * row_);
    return to;
  }

  const std::size_t item_;
  const std::byte* const src_;
  const std::int64_t row_;  // elements in a group
  const Box axes_;          // of the groups
  Cursor<&Axis::src> cursor_;
  const Gather gather_;
  const bool in_place_;
  alignas(64) std::byte buffer_[kBufferBytes];
};

// Puts elements where the box's order has them in the destination.
class Writer {
 public:
  Writer(const Box& box, const Conversion& conversion) noexcept
      : item_(static_cast<std::int64_t>(conversion.to_size)),
        dense_(is_dense(box, item_)),
        dst_(box.dst),
        cursor_(box),
        from_size_(conversion.from_size),
        takes_native_(dense_ && !conversion.cast && !conversion.stream),
        sink_(conversion) {}

  // Where the next elements may be written by whoever has them, in native order; null when they
  // have to be put.
  [[nodiscard]] std::byte* room() const noexcept { return takes_native_ ? dst_ : nullptr; }

  void put(const std::byte* native, std::size_t count) noexcept {
    if (dense_) {
      if (native != dst_) sink_.put(dst_, item_, native, count);
      dst_ += static_cast<std::int64_t>(count) * item_;
      return;
    }
    while (count > 0) {
      const auto some = std::min(count, static_cast<std::size_t>(cursor_.run()));
      sink_.put(dst_ + cursor_.offset(), cursor_.stride(), native, some);
      cursor_.advance(static_cast<std::int64_t>(some));
      native += some * from_size_;
      count -= some;
    }
  }

 private:
  const std::int64_t item_;
  const bool dense_;
  std::byte* dst_;  // of the next element, when dense
  Cursor<&Axis::dst> cursor_;
  const std::size_t from_size_;
  const bool takes_native_;
  Sink sink_;
};

}  // namespace

void copy_rows(const Box& box, const Conversion& conversion) noexcept {
  Reader reader(box, conversion);
  Writer writer(box, conversion);
  for (auto left = static_cast<std::size_t>(element_count(box)); left > 0;) {
    std::size_t count = left;
    const std::byte* native = reader.next(count, writer.room());
    writer.put(native, count);
    left -= count;
  }
}

}  // namespace dlferry
