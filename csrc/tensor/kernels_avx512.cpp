// The kernels for x86 processors with AVX-512.
#if defined(__x86_64__)
#include "tensor/kernels_base.h"  // before the target changes; see there

#if defined(__clang__)
#pragma clang attribute push( \
    __attribute__((target("avx2,f16c,avx512f,avx512bw,avx512dq,avx512vl"))), apply_to = function)
#else
#pragma GCC target("avx2,f16c,avx512f,avx512bw,avx512dq,avx512vl")
#endif

#define DLFERRY_TARGET avx512
#define DLFERRY_AVX2
#define DLFERRY_AVX512
#include "tensor/kernels_all.inc"

#if defined(__clang__)
#pragma clang attribute pop
#endif
#endif
