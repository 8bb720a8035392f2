// The casts, in order of kPlainTypes and kSmallTypes. Part of kernels_all.h.

namespace dlferry::DLFERRY_TARGET {
namespace {

// Eight bits that are true when they are not 0.
struct Bool {
  std::uint8_t byte;
};

// Not std::complex, whose operators the compiler does not turn into vector code.
template <class T>
struct Complex {
  using Part = T;
  T real;
  T imaginary;
};

template <class T>
inline constexpr bool kIsComplex = false;
template <class T>
inline constexpr bool kIsComplex<Complex<T>> = true;

// `value` truncated as the x86 instructions do it: what does not fit, and NaN, becomes the lowest
// integer. In range first, so that the C++ conversion is defined.
template <class Int, class Float>
inline Int truncate(Float value) {
  constexpr Float kLowest = static_cast<Float>(std::numeric_limits<Int>::min());
  const bool fits = value >= kLowest && value < -kLowest;
  return static_cast<Int>(fits ? value : kLowest);
}

// Towards 8 and 16 bits by way of a wider integer, whose upper bits are dropped. Torch promises
// int64 for uint8; the others have the width its vector code has.
template <class To, class Float>
inline To float_to_integer(Float value) {
  if constexpr (std::is_same_v<To, std::int32_t> || std::is_same_v<To, std::int64_t>) {
    return truncate<To>(value);
  } else if constexpr (sizeof(To) >= 4) {  // unsigned: the upper half is moved down, and back
    using Signed = std::make_signed_t<To>;
    constexpr To kTop = To{1} << (8 * sizeof(To) - 1);
    const To lower = static_cast<To>(truncate<Signed>(value));
    const To upper = static_cast<To>(truncate<Signed>(value - static_cast<Float>(kTop))) ^ kTop;
    const To mask = To{0} - static_cast<To>(value >= static_cast<Float>(kTop));
    return (upper & mask) | (lower & ~mask);
  } else if constexpr (std::is_same_v<To, std::uint8_t> && std::is_same_v<Float, double>) {
    return static_cast<To>(truncate<std::int64_t>(value));
  } else {
    return static_cast<To>(truncate<std::int32_t>(value));
  }
}

template <class To, class From>
inline To convert(From value) {
  if constexpr (std::is_same_v<From, Bool>) {
    return convert<To>(std::min(value.byte, std::uint8_t{1}));
  } else if constexpr (std::is_same_v<To, Bool> && kIsComplex<From>) {
    return Bool{static_cast<std::uint8_t>((value.real != 0) | (value.imaginary != 0))};
  } else if constexpr (std::is_same_v<To, Bool>) {
    return Bool{static_cast<std::uint8_t>(value != From{})};
  } else if constexpr (kIsComplex<To> && kIsComplex<From>) {
    using Part = typename To::Part;
    return To{static_cast<Part>(value.real), static_cast<Part>(value.imaginary)};
  } else if constexpr (kIsComplex<To>) {
    return To{static_cast<typename To::Part>(value), 0};
  } else if constexpr (kIsComplex<From>) {
    return convert<To>(value.real);
  } else if constexpr (std::is_integral_v<To> && std::is_floating_point_v<From>) {
    return float_to_integer<To>(value);
  } else {
    return static_cast<To>(value);
  }
}

template <class T>
inline T load(const std::byte* from, std::size_t index) {
  T value;
  std::memcpy(&value, from + index * sizeof(T), sizeof(T));
  return value;
}

template <class T>
inline void store(std::byte* to, std::size_t index, T value) {
  std::memcpy(to + index * sizeof(T), &value, sizeof(T));
}

template <class To, class From>
void cast_run(std::byte* __restrict dst, const std::byte* __restrict src,
              std::size_t count) noexcept {
  for (std::size_t i = 0; i < count; ++i) store(dst, i, convert<To>(load<From>(src, i)));
}

template <auto kNarrow>
void narrow_run(std::byte* __restrict dst, const std::byte* __restrict src,
                std::size_t count) noexcept {
  for (std::size_t i = 0; i < count; ++i) store(dst, i, kNarrow(load<float>(src, i)));
}

template <const small_float::ByteTable& kTable>
void widen_byte_run(std::byte* __restrict dst, const std::byte* __restrict src,
                    std::size_t count) noexcept {
  for (std::size_t i = 0; i < count; ++i) store(dst, i, kTable[load<std::uint8_t>(src, i)]);
}

template <auto kWiden>
void widen_run(std::byte* __restrict dst, const std::byte* __restrict src,
               std::size_t count) noexcept {
  for (std::size_t i = 0; i < count; ++i) store(dst, i, kWiden(load<std::uint16_t>(src, i)));
}

#if defined(DLFERRY_AVX2)
void widen_half_run(std::byte* __restrict dst, const std::byte* __restrict src,
                    std::size_t count) noexcept {
  std::size_t i = 0;
  for (; i + 8 <= count; i += 8) {
    const __m128i codes = _mm_loadu_si128(reinterpret_cast<const __m128i*>(src + i * 2));
    _mm256_storeu_ps(reinterpret_cast<float*>(dst + i * 4), _mm256_cvtph_ps(codes));
  }
  widen_run<small_float::half_to_float>(dst + i * 4, src + i * 2, count - i);
}

void narrow_half_run(std::byte* __restrict dst, const std::byte* __restrict src,
                     std::size_t count) noexcept {
  std::size_t i = 0;
  for (; i + 8 <= count; i += 8) {
    const __m256 values = _mm256_loadu_ps(reinterpret_cast<const float*>(src + i * 4));
    const __m128i codes = _mm256_cvtps_ph(values, _MM_FROUND_TO_NEAREST_INT);
    _mm_storeu_si128(reinterpret_cast<__m128i*>(dst + i * 2), codes);
  }
  narrow_run<small_float::half_from_float>(dst + i * 2, src + i * 4, count - i);
}
#else
constexpr CastRun widen_half_run = widen_run<small_float::half_to_float>;
constexpr CastRun narrow_half_run = narrow_run<small_float::half_from_float>;
#endif

template <class To, class... From>
constexpr std::array<CastRun, sizeof...(From)> casts_to() {
  return {&cast_run<To, From>...};
}

template <class... Type>
constexpr auto all_casts() {
  return std::array{casts_to<Type, Type...>()...};
}

namespace sf = small_float;

constexpr auto kPlainCasts =
    all_casts<Bool, std::uint8_t, std::int8_t, std::uint16_t, std::int16_t, std::uint32_t,
              std::int32_t, std::uint64_t, std::int64_t, float, double, Complex<float>,
              Complex<double>>();

constexpr std::array<CastRun, kSmallTypes.size()> kWidenings = {
    widen_half_run,                widen_run<sf::bfloat16_to_float>, widen_byte_run<sf::kE4m3fn>,
    widen_byte_run<sf::kE4m3fnuz>, widen_byte_run<sf::kE5m2>,        widen_byte_run<sf::kE5m2fnuz>,
    widen_byte_run<sf::kE8m0fnu>};

constexpr std::array<CastRun, kSmallTypes.size()> kNarrowings = {
    narrow_half_run,
    narrow_run<sf::bfloat16_from_float>,
    narrow_run<sf::e4m3fn_from_float>,
    narrow_run<sf::fnuz_from_float<3, 8, 0x43800000u>>,
    narrow_run<sf::e5m2_from_float>,
    narrow_run<sf::fnuz_from_float<2, 16, 0x47800000u>>,
    narrow_run<sf::e8m0fnu_from_float>};

}  // namespace
}  // namespace dlferry::DLFERRY_TARGET
