// Conversion: what happens to one element between source and destination.
#pragma once

#include <cstddef>
#include <optional>

#include "tensor/cast.h"

namespace dlferry {

struct Conversion {
  std::size_t from_size;
  std::size_t to_size;
  std::size_t swap_size;     // of the units whose bytes are reversed; 1 for none
  std::optional<Cast> cast;  // after swapping; none between equal dtypes
  bool stream = false;       // the destination is too large to be wanted in the caches

  [[nodiscard]] bool changes_bytes() const noexcept { return swap_size > 1 || cast; }
};

}  // namespace dlferry
