// Ranges: consecutive elements of a view, in C order, copied to or from packed memory. So that a
// large view can cross a small buffer in pieces.
#pragma once

#include <cstdint>

#include "tensor/view.h"

namespace dlferry {

// Writes elements [first, first + count) of `src` one after another to `packed`, cast to `dtype`;
// otherwise as host_copy. `packed` need not be aligned.
void pack_range(std::byte* packed, DType dtype, const View& src, std::int64_t first,
                std::int64_t count) noexcept;

// The way back: reads elements of `dtype` from `packed` and writes them to elements
// [first, first + count) of `dst`, cast to its dtype. `dst` has native byte order unless it is of
// `dtype`.
void unpack_range(const View& dst, const std::byte* packed, DType dtype, std::int64_t first,
                  std::int64_t count) noexcept;

}  // namespace dlferry
