// Copies whose source is laid out in another order than the destination: transpositions.
#pragma once

#include <optional>

#include "tensor/box.h"
#include "tensor/conversion.h"

namespace dlferry {

// The axis, other than the innermost, along which the source lies closer together than along the
// innermost. Where there is one, following the destination's order would read each of the source's
// cache lines many times.
[[nodiscard]] std::optional<int> tile_axis(const Box& box) noexcept;

// Copies small rectangles of `across` and the innermost axis, each read line by line, transposed
// in the first cache, and written row by row.
void copy_tiles(const Box& box, int across, const Conversion& conversion) noexcept;

}  // namespace dlferry
