// What of the machine decides how to copy.
#pragma once

#include <cstddef>

namespace dlferry {

// Bytes of the largest cache that the first processor sees; a cautious guess where the system does
// not tell. Read once.
[[nodiscard]] std::size_t last_cache_bytes() noexcept;

// What both the processor and the operating system support. Each includes those before it.
enum class InstructionSet {
  kPortable,
  kAvx2,    // with F16C
  kAvx512,  // F, BW, DQ and VL
};
[[nodiscard]] InstructionSet instruction_set() noexcept;

}  // namespace dlferry
