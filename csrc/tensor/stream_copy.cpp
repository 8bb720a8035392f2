#include "tensor/stream_copy.h"

#include <algorithm>
#include <cstdint>
#include <cstring>

#if defined(__SSE2__)
#include <emmintrin.h>
#endif

namespace dlferry {

#if defined(__SSE2__)

namespace {

constexpr std::size_t kLine = 64;

bool is_whole_lines(std::uint64_t place_or_size) noexcept { return place_or_size % kLine == 0; }

// Whole lines of the destination.
inline void stream_lines(std::byte* dst, const std::byte* src, std::size_t bytes) noexcept {
  for (std::size_t i = 0; i < bytes; i += sizeof(__m128i)) {
    const auto* from = reinterpret_cast<const __m128i*>(src + i);
    _mm_stream_si128(reinterpret_cast<__m128i*>(dst + i), _mm_loadu_si128(from));
  }
}

}  // namespace

void stream_copy(std::byte* dst, const std::byte* src, std::size_t bytes) noexcept {
  // Only whole lines bypass the caches well. The line that a copy begins or ends in is written in
  // the ordinary way; the copy of its neighbour finds it cached.
  const std::size_t head = std::min(bytes, -reinterpret_cast<std::uintptr_t>(dst) % kLine);
  if (head > 0) std::memcpy(dst, src, head);
  const std::size_t lines = (bytes - head) / kLine * kLine, at = head + lines;
  stream_lines(dst + head, src + head, lines);
  if (at < bytes) std::memcpy(dst + at, src + at, bytes - at);
}

void stream_rows(std::byte* dst, std::int64_t step, const std::byte* src, std::size_t rows,
                 std::size_t bytes) noexcept {
  const bool whole = is_whole_lines(reinterpret_cast<std::uintptr_t>(dst)) &&
                     is_whole_lines(static_cast<std::uint64_t>(step)) && is_whole_lines(bytes);
  for (; rows > 0; --rows, dst += step, src += bytes) {
    if (whole) {
      stream_lines(dst, src, bytes);
    } else {
      stream_copy(dst, src, bytes);
    }
  }
}

void finish_streams() noexcept { _mm_sfence(); }

#else

void stream_copy(std::byte* dst, const std::byte* src, std::size_t bytes) noexcept {
  std::memcpy(dst, src, bytes);
}

void stream_rows(std::byte* dst, std::int64_t step, const std::byte* src, std::size_t rows,
                 std::size_t bytes) noexcept {
  for (; rows > 0; --rows, dst += step, src += bytes) std::memcpy(dst, src, bytes);
}

void finish_streams() noexcept {}

#endif

}  // namespace dlferry
