// Cheap pages for large new memory.
#pragma once

#include <cstddef>

namespace dlferry {

// Asks for huge pages under a large destination that has just been allocated and that nobody has
// written to yet. Without them, a copy into new memory spends most of its time on page faults.
// Advice only: contents, and memory outside [data, data + bytes), stay as they are.
void prepare_pages(std::byte* data, std::size_t bytes) noexcept;

}  // namespace dlferry
