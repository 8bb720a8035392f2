// Moving elements without looking at them: gather, scatter, byte order, transposition. Part of
// kernels_all.h.

namespace dlferry::DLFERRY_TARGET {
namespace {

template <std::size_t kSize>
struct UnitOf;
template <>
struct UnitOf<1> {
  using Type = std::uint8_t;
};
template <>
struct UnitOf<2> {
  using Type = std::uint16_t;
};
template <>
struct UnitOf<4> {
  using Type = std::uint32_t;
};
template <>
struct UnitOf<8> {
  using Type = std::uint64_t;
};
template <std::size_t kSize>
using Unit = typename UnitOf<kSize>::Type;

template <std::size_t kSize>
void gather_run(std::byte* __restrict dst, const std::byte* __restrict src, std::int64_t stride,
                std::size_t count) noexcept {
  if (stride == static_cast<std::int64_t>(kSize)) {
    std::memcpy(dst, src, count * kSize);
  } else if (stride == 0) {
    for (std::size_t i = 0; i < count; ++i) std::memcpy(dst + i * kSize, src, kSize);
  } else {
    for (std::size_t i = 0; i < count; ++i, src += stride) std::memcpy(dst + i * kSize, src, kSize);
  }
}

template <std::size_t kSize>
void scatter_run(std::byte* __restrict dst, std::int64_t stride, const std::byte* __restrict src,
                 std::size_t count) noexcept {
  if (stride == static_cast<std::int64_t>(kSize)) {
    std::memcpy(dst, src, count * kSize);
  } else {
    for (std::size_t i = 0; i < count; ++i, dst += stride) std::memcpy(dst, src + i * kSize, kSize);
  }
}

template <std::size_t kSize>
void swap_run(std::byte* data, std::size_t count) noexcept {
  for (std::size_t i = 0; i < count; ++i) {
    Unit<kSize> unit;
    std::memcpy(&unit, data + i * kSize, kSize);
    if constexpr (kSize == 2) unit = __builtin_bswap16(unit);
    if constexpr (kSize == 4) unit = __builtin_bswap32(unit);
    if constexpr (kSize == 8) unit = __builtin_bswap64(unit);
    std::memcpy(data + i * kSize, &unit, kSize);
  }
}

#if defined(DLFERRY_AVX2)
void shuffle_run(std::byte* dst, std::int64_t dst_step, const std::byte* src, std::int64_t src_step,
                 std::int64_t loads, const std::uint8_t* from) noexcept {
  const __m128i places = _mm_loadu_si128(reinterpret_cast<const __m128i*>(from));
  for (; loads > 0; --loads, dst += dst_step, src += src_step) {
    const __m128i bytes = _mm_loadu_si128(reinterpret_cast<const __m128i*>(src));
    _mm_storeu_si128(reinterpret_cast<__m128i*>(dst), _mm_shuffle_epi8(bytes, places));
  }
}
constexpr ShuffleRun kShuffle = shuffle_run;
#else
constexpr ShuffleRun kShuffle = nullptr;
#endif

// Blocks of kLanes by kLanes units are transposed in registers, a vector for each row.
template <std::size_t kSize>
struct Row {
  // Wider rows make more of them than there are registers, and were measured to be slower.
  static constexpr std::size_t kBytes = 16;
  static constexpr std::size_t kLanes = kBytes / kSize;
  Unit<kSize> units __attribute__((vector_size(kBytes)));
};

// The units of the lower (kHalf = 0) or upper (1) halves of `a` and `b`, in turns.
template <std::size_t kSize, std::size_t kHalf, std::size_t... kPlace>
inline Row<kSize> interleave(const Row<kSize>& a, const Row<kSize>& b,
                             std::index_sequence<kPlace...>) {
  constexpr std::size_t kLanes = Row<kSize>::kLanes;
  constexpr std::size_t kFirst = kHalf * kLanes / 2;
  return {__builtin_shufflevector(a.units, b.units,
                                  (kFirst + kPlace / 2 + (kPlace % 2) * kLanes)...)};
}

// Interleaving row i with row i + half, as many times as there are halvings, transposes.
template <std::size_t kSize>
inline void transpose_block(std::byte* dst, std::int64_t dst_stride, const std::byte* src,
                            std::int64_t src_stride) noexcept {
  constexpr std::size_t kLanes = Row<kSize>::kLanes;
  constexpr auto kPlaces = std::make_index_sequence<kLanes>();
  std::array<Row<kSize>, kLanes> rows, next;
  for (std::size_t i = 0; i < kLanes; ++i, src += src_stride) {
    std::memcpy(&rows[i], src, sizeof(rows[i]));
  }
#pragma GCC unroll 8
  for (std::size_t stage = 1; stage < kLanes; stage *= 2) {
#pragma GCC unroll 16
    for (std::size_t i = 0; i < kLanes / 2; ++i) {
      next[2 * i] = interleave<kSize, 0>(rows[i], rows[i + kLanes / 2], kPlaces);
      next[2 * i + 1] = interleave<kSize, 1>(rows[i], rows[i + kLanes / 2], kPlaces);
    }
    rows = next;
  }
  for (std::size_t i = 0; i < kLanes; ++i, dst += dst_stride) {
    std::memcpy(dst, &rows[i], sizeof(rows[i]));
  }
}

// Narrow and low tiles, and what is left at the edges of others.
template <std::size_t kSize>
void transpose_edge(std::byte* dst, std::int64_t dst_stride, const std::byte* src,
                    std::int64_t src_stride, std::size_t rows, std::size_t columns) noexcept {
  if (rows < columns) {
    for (std::size_t i = 0; i < rows; ++i, dst += dst_stride) {
      gather_run<kSize>(dst, src + i * kSize, src_stride, columns);
    }
  } else {
    for (std::size_t i = 0; i < columns; ++i, src += src_stride) {
      scatter_run<kSize>(dst + i * kSize, dst_stride, src, rows);
    }
  }
}

template <std::size_t kSize>
void transpose_tile(std::byte* dst, const std::byte* src, std::int64_t stride, std::size_t rows,
                    std::size_t columns) noexcept {
  const auto dst_stride = static_cast<std::int64_t>(columns * kSize);
  std::size_t whole_rows = 0, whole_columns = 0;
  if constexpr (kSize < 16) {
    constexpr std::size_t kLanes = Row<kSize>::kLanes;
    whole_rows = rows / kLanes * kLanes;
    whole_columns = columns / kLanes * kLanes;
    for (std::size_t column = 0; column < whole_columns; column += kLanes) {
      for (std::size_t row = 0; row < whole_rows; row += kLanes) {
        transpose_block<kSize>(dst + static_cast<std::int64_t>(row) * dst_stride + column * kSize,
                               dst_stride,
                               src + static_cast<std::int64_t>(column) * stride + row * kSize,
                               stride);
      }
    }
  }
  if (whole_rows == 0 || whole_columns == 0) whole_rows = whole_columns = 0;
  transpose_edge<kSize>(dst + whole_columns * kSize, dst_stride,
                        src + static_cast<std::int64_t>(whole_columns) * stride, stride, whole_rows,
                        columns - whole_columns);
  transpose_edge<kSize>(dst + static_cast<std::int64_t>(whole_rows) * dst_stride, dst_stride,
                        src + whole_rows * kSize, stride, rows - whole_rows, columns);
}

}  // namespace
}  // namespace dlferry::DLFERRY_TARGET
