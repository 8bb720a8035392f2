// All that the kernels include. It comes before a target pragma: the linker keeps one copy of each
// inline function for the whole program, and it must not be one that only some processors can run.
// (Templates among them follow the pragma all the same. Optimised builds inline every one; one
// that is not optimised is for the machine it was built on.)
#pragma once

#include <algorithm>
#include <array>
#include <bit>
#include <cstdint>
#include <cstring>
#include <limits>
#include <type_traits>
#include <utility>

#if defined(__x86_64__)
#include <immintrin.h>
#endif

#include "tensor/float8.h"
#include "tensor/kernels.h"
#include "tensor/small_float.h"
