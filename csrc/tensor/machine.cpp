#include "tensor/machine.h"

#include <array>
#include <atomic>
#include <cstdint>
#include <cstdio>
#include <memory>

#if defined(__x86_64__)
#include <cpuid.h>
#endif

namespace dlferry {
namespace {

std::size_t read_cache_bytes() noexcept {
  constexpr std::array kFiles = {"/sys/devices/system/cpu/cpu0/cache/index3/size",
                                 "/sys/devices/system/cpu/cpu0/cache/index2/size"};
  for (const char* path : kFiles) {
    const std::unique_ptr<std::FILE, int (*)(std::FILE*)> file(std::fopen(path, "re"),
                                                               &std::fclose);
    std::size_t kibibytes = 0;
    if (file && std::fscanf(file.get(), "%zuK", &kibibytes) == 1 && kibibytes > 0) {
      return kibibytes << 10;
    }
  }
  return std::size_t{8} << 20;
}

#if defined(__x86_64__)

constexpr bool has_all(std::uint64_t flags, std::uint64_t bits) { return (flags & bits) == bits; }

constexpr std::uint64_t bit(int place) { return std::uint64_t{1} << place; }

// Which registers the operating system saves when it switches threads.
std::uint64_t saved_registers() noexcept {
  std::uint32_t low, high;
  __asm__("xgetbv" : "=a"(low), "=d"(high) : "c"(0));
  return std::uint64_t{high} << 32 | low;
}

#endif

}  // namespace

// Asked of the processor and not by __builtin_cpu_supports, because that always says no in programs
// that zig has linked.
InstructionSet instruction_set() noexcept {
#if defined(__x86_64__)
  std::uint32_t eax, ebx, ecx, edx;
  constexpr std::uint64_t kXsaveAvxF16c = bit(27) | bit(28) | bit(29);
  if (!__get_cpuid(1, &eax, &ebx, &ecx, &edx) || !has_all(ecx, kXsaveAvxF16c)) {
    return InstructionSet::kPortable;
  }
  constexpr std::uint64_t kAvx2 = bit(5);
  constexpr std::uint64_t kAvx512 = bit(16) | bit(17) | bit(30) | bit(31);
  constexpr std::uint64_t kYmm = bit(1) | bit(2), kZmm = kYmm | bit(5) | bit(6) | bit(7);
  const std::uint64_t saved = saved_registers();
  if (!__get_cpuid_count(7, 0, &eax, &ebx, &ecx, &edx) || !has_all(ebx, kAvx2) ||
      !has_all(saved, kYmm)) {
    return InstructionSet::kPortable;
  }
  const bool wide = has_all(ebx, kAvx512) && has_all(saved, kZmm);
  return wide ? InstructionSet::kAvx512 : InstructionSet::kAvx2;
#else
  return InstructionSet::kPortable;
#endif
}

std::size_t last_cache_bytes() noexcept {
  // Not a static made on first use: a child that is forked meanwhile would wait for its guard.
  static std::atomic<std::size_t> known{0};
  std::size_t bytes = known.load(std::memory_order_relaxed);
  if (bytes == 0) known.store(bytes = read_cache_bytes(), std::memory_order_relaxed);
  return bytes;
}

}  // namespace dlferry
