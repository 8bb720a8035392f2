#include "tensor/stream_copy.h"

#include <algorithm>
#include <cstdint>
#include <cstring>

#include "tensor/kernels.h"

#if defined(__SSE2__)
#include <emmintrin.h>
#endif

namespace dlferry {
namespace {

constexpr std::size_t kLine = 64;

bool is_whole_lines(std::uint64_t place_or_size) noexcept { return place_or_size % kLine == 0; }

// Only whole lines bypass the caches well. The line that a copy begins or ends in is written in the
// ordinary way; the copy of its neighbour finds it cached.
void copy_with(StreamRun stream, std::byte* dst, const std::byte* src, std::size_t bytes) noexcept {
  const std::size_t head = std::min(bytes, -reinterpret_cast<std::uintptr_t>(dst) % kLine);
  if (head > 0) std::memcpy(dst, src, head);
  const std::size_t lines = (bytes - head) / kLine * kLine, at = head + lines;
  stream(dst + head, src + head, lines);
  if (at < bytes) std::memcpy(dst + at, src + at, bytes - at);
}

}  // namespace

void stream_copy(std::byte* dst, const std::byte* src, std::size_t bytes) noexcept {
  if (const StreamRun stream = kernels().stream) {
    copy_with(stream, dst, src, bytes);
  } else {
    std::memcpy(dst, src, bytes);
  }
}

void stream_rows(std::byte* dst, std::int64_t step, const std::byte* src, std::size_t rows,
                 std::size_t bytes) noexcept {
  const StreamRun stream = kernels().stream;
  const bool whole = is_whole_lines(reinterpret_cast<std::uintptr_t>(dst)) &&
                     is_whole_lines(static_cast<std::uint64_t>(step)) && is_whole_lines(bytes);
  for (; rows > 0; --rows, dst += step, src += bytes) {
    if (stream == nullptr) {
      std::memcpy(dst, src, bytes);
    } else if (whole) {
      stream(dst, src, bytes);
    } else {
      copy_with(stream, dst, src, bytes);
    }
  }
}

void finish_streams() noexcept {
#if defined(__SSE2__)
  _mm_sfence();
#endif
}

}  // namespace dlferry
