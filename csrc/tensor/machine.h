// What of the machine decides how to copy.
#pragma once

#include <cstddef>

namespace dlferry {

// Bytes of the largest cache that the first processor sees; a cautious guess where the system does
// not tell. Read once.
[[nodiscard]] std::size_t last_cache_bytes() noexcept;

}  // namespace dlferry
