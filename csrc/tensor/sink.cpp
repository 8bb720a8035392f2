#include "tensor/sink.h"

#include <algorithm>
#include <cstring>

#include "tensor/kernels.h"
#include "tensor/stream_copy.h"

namespace dlferry {

Sink::~Sink() {
  if (conversion_.stream) finish_streams();
}

void Sink::put(std::byte* dst, std::int64_t stride, const std::byte* native,
               std::size_t count) noexcept {
  if (!conversion_.cast) return place(dst, stride, native, count);
  const std::size_t from = conversion_.from_size, to = conversion_.to_size;
  if (!conversion_.stream && stride == static_cast<std::int64_t>(to)) {
    return conversion_.cast->apply(dst, native, count);
  }
  const std::size_t block = kBufferBytes / to;
  for (std::size_t done = 0; done < count;) {
    const std::size_t some = std::min(block, count - done);
    conversion_.cast->apply(buffer_, native + done * from, some);
    place(dst + static_cast<std::int64_t>(done) * stride, stride, buffer_, some);
    done += some;
  }
}

void Sink::put_rows(std::byte* dst, Strides strides, const std::byte* native, std::size_t rows,
                    std::size_t count) noexcept {
  const auto bytes = static_cast<std::int64_t>(count * conversion_.to_size);
  const bool dense = strides.element == static_cast<std::int64_t>(conversion_.to_size);
  if (dense && strides.row == bytes) return put(dst, strides.element, native, rows * count);
  if (dense && conversion_.stream && !conversion_.cast) {
    return stream_rows(dst, strides.row, native, rows, static_cast<std::size_t>(bytes));
  }
  for (; rows > 0; --rows, dst += strides.row, native += count * conversion_.from_size) {
    put(dst, strides.element, native, count);
  }
}

void Sink::place(std::byte* dst, std::int64_t stride, const std::byte* cast,
                 std::size_t count) noexcept {
  const std::size_t size = conversion_.to_size;
  if (stride != static_cast<std::int64_t>(size)) {
    kernels().scatter[size_index(size)](dst, stride, cast, count);
  } else if (conversion_.stream) {
    stream_copy(dst, cast, count * size);
  } else {
    std::memcpy(dst, cast, count * size);
  }
}

}  // namespace dlferry
