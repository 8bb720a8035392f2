// Cheap pages for large new memory.
#pragma once

#include <cstddef>

namespace dlferry {

// Puts huge pages under a large destination that has just been allocated, is about to be
// overwritten, and that nobody has written to yet: some of its bytes are set to zero here. Without
// this, a copy into new memory spends most of its time on page faults. Small blocks, and whatever
// lies outside [data, data + bytes), stay as they are.
void prepare_pages(std::byte* data, std::size_t bytes) noexcept;

}  // namespace dlferry
