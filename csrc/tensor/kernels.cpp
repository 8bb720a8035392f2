#include "tensor/kernels.h"

namespace dlferry {
namespace {

const Kernels& best() noexcept {
#if defined(__x86_64__)
  const bool avx2 = __builtin_cpu_supports("avx2") && __builtin_cpu_supports("f16c");
  const bool avx512 = __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
                      __builtin_cpu_supports("avx512dq") && __builtin_cpu_supports("avx512vl");
  if (avx2 && avx512) return avx512::kKernels;
  if (avx2) return avx2::kKernels;
#endif
  return portable::kKernels;
}

}  // namespace

const Kernels& kernels() noexcept {
  static const Kernels& chosen = best();
  return chosen;
}

}  // namespace dlferry
