// The loops that touch every element, compiled once for each instruction set.
//
// All of them take runs of elements in native byte order, need no alignment, and want source and
// destination apart. Sizes are those of elements: 1, 2, 4, 8 and 16 bytes.
#pragma once

#include <array>
#include <bit>
#include <cstddef>
#include <cstdint>

#include "tensor/dtype.h"

namespace dlferry {

// The dtypes with a kernel for each pair: what C++ calculates in, in DType's order.
inline constexpr std::array kPlainTypes = {
    DType::kBool,    DType::kUInt8,     DType::kInt8,      DType::kUInt16, DType::kInt16,
    DType::kUInt32,  DType::kInt32,     DType::kUInt64,    DType::kInt64,  DType::kFloat32,
    DType::kFloat64, DType::kComplex64, DType::kComplex128};

// The others, each with a kernel to and one from float32.
inline constexpr std::array kSmallTypes = {
    DType::kFloat16,     DType::kBFloat16,        DType::kFloat8_e4m3fn, DType::kFloat8_e4m3fnuz,
    DType::kFloat8_e5m2, DType::kFloat8_e5m2fnuz, DType::kFloat8_e8m0fnu};

// Converts `count` consecutive elements.
using CastRun = void (*)(std::byte* dst, const std::byte* src, std::size_t count) noexcept;

// Copies `count` elements that lie `stride` bytes apart on one side, and are consecutive on the
// other. The stride may be negative, odd, and for a source zero.
using GatherRun = void (*)(std::byte* dst, const std::byte* src, std::int64_t stride,
                           std::size_t count) noexcept;
using ScatterRun = void (*)(std::byte* dst, std::int64_t stride, const std::byte* src,
                            std::size_t count) noexcept;

// `loads` times: loads 16 bytes, puts byte from[i] of them at place i, and stores them; then moves
// on by `src_step` and `dst_step`. Both sides are all within bounds; stores may overlap.
using ShuffleRun = void (*)(std::byte* dst, std::int64_t dst_step, const std::byte* src,
                            std::int64_t src_step, std::int64_t loads,
                            const std::uint8_t* from) noexcept;

// Reverses the bytes of each of `count` units, in place.
using SwapRun = void (*)(std::byte* data, std::size_t count) noexcept;

// Writes a dense `rows` x `columns` tile whose columns are consecutive elements of the source,
// `stride` bytes from one column to the next.
using TransposeTile = void (*)(std::byte* dst, const std::byte* src, std::int64_t stride,
                               std::size_t rows, std::size_t columns) noexcept;

// Copies whole cache lines past the caches, to a line's boundary. Another thread sees them after
// `finish_streams`.
using StreamRun = void (*)(std::byte* dst, const std::byte* src, std::size_t bytes) noexcept;

inline constexpr std::size_t kSizes = 5;

[[nodiscard]] constexpr std::size_t size_index(std::size_t bytes) noexcept {
  return static_cast<std::size_t>(std::countr_zero(bytes));
}

struct Kernels {
  std::array<std::array<CastRun, kPlainTypes.size()>, kPlainTypes.size()> plain;  // [to][from]
  std::array<CastRun, kSmallTypes.size()> widen;                                  // to float32
  std::array<CastRun, kSmallTypes.size()> narrow;                                 // from float32
  std::array<GatherRun, kSizes> gather;  // these by size_index()
  std::array<ScatterRun, kSizes> scatter;
  std::array<SwapRun, kSizes - 1> swap;
  std::array<TransposeTile, kSizes> transpose;
  ShuffleRun shuffle;  // null where no instruction does it
  StreamRun stream;    // likewise
};

// The best of them for the processor at hand.
[[nodiscard]] const Kernels& kernels() noexcept;

namespace portable {
extern const Kernels kKernels;
}
#if defined(__x86_64__)
namespace avx2 {  // with F16C
extern const Kernels kKernels;
}
namespace avx512 {  // F, BW, DQ and VL, and all of the above
extern const Kernels kKernels;
}
#endif

}  // namespace dlferry
