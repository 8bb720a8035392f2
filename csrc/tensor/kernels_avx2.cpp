// The kernels for x86 processors with AVX2 and F16C.
#if defined(__x86_64__)
#include "tensor/kernels_base.h"  // before the target changes; see there

#if defined(__clang__)
#pragma clang attribute push(__attribute__((target("avx2,f16c"))), apply_to = function)
#else
#pragma GCC target("avx2,f16c")
#endif

#define DLFERRY_TARGET avx2
#define DLFERRY_AVX2
#include "tensor/kernels_all.inc"

#if defined(__clang__)
#pragma clang attribute pop
#endif
#endif
