// Contiguous copies that leave the caches to others.
#pragma once

#include <cstddef>
#include <cstdint>

namespace dlferry {

// memcpy with stores that bypass the caches, where the processor has them. Pays for destinations
// that would not stay in the last-level cache anyway. Ordered like ordinary stores only after
// `finish_streams`, which the writing thread calls before anyone else reads.
void stream_copy(std::byte* dst, const std::byte* src, std::size_t bytes) noexcept;
void finish_streams() noexcept;

// The same for `rows` of so many bytes each, consecutive in `src` and `step` bytes apart in `dst`.
void stream_rows(std::byte* dst, std::int64_t step, const std::byte* src, std::size_t rows,
                 std::size_t bytes) noexcept;

}  // namespace dlferry
