// Contiguous copies that leave the caches to others.
#pragma once

#include <cstddef>

namespace dlferry {

// memcpy with stores that bypass the caches, where the processor has them. Pays for destinations
// that would not stay in the last-level cache anyway. Ordered like ordinary stores only after
// `finish_streams`, which the writing thread calls before anyone else reads.
void stream_copy(std::byte* dst, const std::byte* src, std::size_t bytes) noexcept;
void finish_streams() noexcept;

}  // namespace dlferry
