// The driver's functions as the simulator exports them, from the one list.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>

#include "abi/cuda_functions.h"

namespace dlferry::cu {

#define DLFERRY_SIM_EXPORT __attribute__((visibility("default")))

// Declared from the list, so that a definition with other parameters does not compile; that each
// has one is seen to by the table in proc_address.cpp, which takes their addresses.
extern "C" {
#define DLFERRY_X(need, name, symbol, version, parameters) \
  DLFERRY_SIM_EXPORT Result symbol parameters;
DLFERRY_CUDA_FUNCTIONS(DLFERRY_X)
#undef DLFERRY_X
// CUDA 11.3, and 12.0 with the reason for a failed search.
DLFERRY_SIM_EXPORT Result cuGetProcAddress(const char*, void**, int, std::uint64_t);
DLFERRY_SIM_EXPORT Result cuGetProcAddress_v2(const char*, void**, int, std::uint64_t,
                                              std::uint32_t*);
}

}  // namespace dlferry::cu

namespace dlferry::sim {

enum class Function : unsigned {
#define DLFERRY_X(need, name, symbol, version, parameters) symbol,
  DLFERRY_CUDA_FUNCTIONS(DLFERRY_X)
#undef DLFERRY_X
      cuGetProcAddress,
  cuGetProcAddress_v2,
};
inline constexpr std::size_t kFunctionCount =
    static_cast<std::size_t>(Function::cuGetProcAddress_v2) + 1;

struct FunctionNames {
  const char* name;    // as cuGetProcAddress knows it
  const char* symbol;  // as the library exports it
};

inline constexpr std::array<FunctionNames, kFunctionCount> kFunctions = {{
#define DLFERRY_X(need, name, symbol, version, parameters) {#name, #symbol},
    DLFERRY_CUDA_FUNCTIONS(DLFERRY_X)
#undef DLFERRY_X
        {"cuGetProcAddress", "cuGetProcAddress"},
    {"cuGetProcAddress", "cuGetProcAddress_v2"},
}};

// Faults come to functions, and to the engines' copies: a bit for each.
inline constexpr std::uint64_t kHostToDeviceBit = std::uint64_t{1} << 62;
inline constexpr std::uint64_t kDeviceToHostBit = std::uint64_t{1} << 63;
static_assert(kFunctionCount <= 62);

// The bits that go by a name or symbol, or "H2D" or "D2H"; 0 where none does.
std::uint64_t bits_named(const char* name) noexcept;

inline constexpr std::uint64_t bit_of(Function fn) noexcept {
  return std::uint64_t{1} << static_cast<unsigned>(fn);
}

}  // namespace dlferry::sim
