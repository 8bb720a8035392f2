// Copies that follow the destination's order.
#pragma once

#include "tensor/box.h"
#include "tensor/conversion.h"

namespace dlferry {

// Good wherever the source can be read in the same order without wasting cache lines, and right
// everywhere.
void copy_rows(const Box& box, const Conversion& conversion) noexcept;

}  // namespace dlferry
