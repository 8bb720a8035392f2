#include "tensor/stream_copy.h"

#include <algorithm>
#include <cstdint>
#include <cstring>

#if defined(__SSE2__)
#include <emmintrin.h>
#endif

namespace dlferry {

#if defined(__SSE2__)

void stream_copy(std::byte* dst, const std::byte* src, std::size_t bytes) noexcept {
  constexpr std::size_t kLine = 64;
  // Only whole lines bypass the caches well. The line that a copy begins or ends in is written in
  // the ordinary way; the copy of its neighbour finds it cached.
  const std::size_t head = std::min(bytes, -reinterpret_cast<std::uintptr_t>(dst) % kLine);
  if (head > 0) std::memcpy(dst, src, head);
  std::size_t at = head;
  for (; at + kLine <= bytes; at += kLine) {
    for (std::size_t i = 0; i < kLine; i += sizeof(__m128i)) {
      const auto* from = reinterpret_cast<const __m128i*>(src + at + i);
      _mm_stream_si128(reinterpret_cast<__m128i*>(dst + at + i), _mm_loadu_si128(from));
    }
  }
  if (at < bytes) std::memcpy(dst + at, src + at, bytes - at);
}

void finish_streams() noexcept { _mm_sfence(); }

#else

void stream_copy(std::byte* dst, const std::byte* src, std::size_t bytes) noexcept {
  std::memcpy(dst, src, bytes);
}

void finish_streams() noexcept {}

#endif

}  // namespace dlferry
