#include "tensor/host_copy.h"

#include <algorithm>
#include <cstring>
#include <optional>

#include "tensor/box.h"
#include "tensor/cast.h"
#include "tensor/kernels.h"

namespace dlferry {
namespace {

// Elements pass through two buffers that stay in the first cache.
constexpr std::size_t kBufferBytes = 8192;

// What happens to one element on its way.
struct Job {
  std::size_t from_size;
  std::size_t to_size;
  std::size_t swap_size;  // of the unit to reverse; 1 when the byte order is ours
  std::optional<Cast> cast;
};

// Hands out the source's elements in the box's order, contiguous and in native byte order: in place
// where they lie so, else gathered.
class Reader {
 public:
  Reader(const Box& box, const Job& job) noexcept : job_(job), src_(box.src), cursor_(box, 0) {}

  // Up to `count` elements, of which there must be that many; sets `count` to how many.
  const std::byte* next(std::size_t& count) noexcept {
    const auto item = static_cast<std::int64_t>(job_.from_size);
    const auto run = static_cast<std::size_t>(cursor_.run());
    if (job_.swap_size == 1 && cursor_.stride() == item && run * job_.from_size >= 256) {
      count = std::min(count, run);
      const std::byte* in_place = src_ + cursor_.offset();
      cursor_.advance(static_cast<std::int64_t>(count));
      return in_place;
    }
    for (std::size_t done = 0; done < count;) {
      const auto some = std::min(count - done, static_cast<std::size_t>(cursor_.run()));
      kernels().gather[size_index(job_.from_size)](buffer_ + done * job_.from_size, src_ + cursor_.offset(), cursor_.stride(), some);
      cursor_.advance(static_cast<std::int64_t>(some));
      done += some;
    }
    kernels().swap[size_index(job_.swap_size)](buffer_, count * job_.from_size / job_.swap_size);
    return buffer_;
  }

 private:
  const Job& job_;
  const std::byte* src_;
  Cursor<&Axis::src> cursor_;
  alignas(64) std::byte buffer_[kBufferBytes];
};

// Casts native elements and puts them where the box's order has them in the destination.
class Writer {
 public:
  Writer(const Box& box, const Job& job) noexcept
      : job_(job),
        dense_(is_dense(box, static_cast<std::int64_t>(job.to_size))),
        dst_(box.dst),
        cursor_(box, 0) {}

  void put(const std::byte* native, std::size_t count) noexcept {
    if (dense_) {
      convert(dst_, native, count);
      dst_ += count * job_.to_size;
      return;
    }
    if (job_.cast) {
      convert(buffer_, native, count);
      native = buffer_;
    }
    for (std::size_t done = 0; done < count;) {
      const auto some = std::min(count - done, static_cast<std::size_t>(cursor_.run()));
      kernels().scatter[size_index(job_.to_size)](dst_ + cursor_.offset(), cursor_.stride(), native + done * job_.to_size, some);
      cursor_.advance(static_cast<std::int64_t>(some));
      done += some;
    }
  }

 private:
  void convert(std::byte* dst, const std::byte* native, std::size_t count) const noexcept {
    if (job_.cast) {
      job_.cast->apply(dst, native, count);
    } else {
      std::memcpy(dst, native, count * job_.to_size);
    }
  }

  const Job& job_;
  bool dense_;
  std::byte* dst_;
  Cursor<&Axis::dst> cursor_;
  alignas(64) std::byte buffer_[kBufferBytes];
};

void copy_box(const Box& box, const Job& job) noexcept {
  Reader reader(box, job);
  Writer writer(box, job);
  const std::size_t block = kBufferBytes / std::max(job.from_size, job.to_size);
  auto left = static_cast<std::size_t>(element_count(box));
  while (left > 0) {
    std::size_t count = std::min(left, block);
    const std::byte* native = reader.next(count);
    writer.put(native, count);
    left -= count;
  }
}

}  // namespace

void host_copy(const View& dst, const View& src) noexcept {
  if (element_count(dst) == 0) return;
  const DTypeInfo& from = info(src.dtype);
  Job job{from.size, item_size(dst.dtype), src.swapped ? from.swap_size : std::size_t{1}, {}};
  if (dst.dtype != src.dtype) job.cast.emplace(dst.dtype, src.dtype);
  copy_box(make_box(dst, src), job);
}

}  // namespace dlferry
