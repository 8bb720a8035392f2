// Copies between host memory: gather, cast and byte-swap in one pass.
#pragma once

#include "tensor/pages.h"
#include "tensor/view.h"

namespace dlferry {

// Whether `host_copy` casts between these: not between complex32 and any other.
[[nodiscard]] bool can_copy(DType to, DType from) noexcept;

// Writes every element of `src` to the same index of `dst`, cast to `dst.dtype`.
//
// Casts follow torch: real part of complex numbers, != 0 for bool, C truncation towards integers,
// and the floats below 32 bits by way of float32 (round to nearest even). `src` may have any
// strides and byte order; `dst` has native byte order and no element twice. Both are host memory of
// one shape and do not overlap; complex32 casts to and from nothing but itself.
//
// Large copies are shared among the threads of workers.h. Where `dst` is one of many parts that are
// copied one after another, `whole_bytes` says how large they are together; where it lies in new
// memory, `pages` are that memory's. Knows no Python: the caller releases the GIL. Throws nothing.
void host_copy(const View& dst, const View& src, std::int64_t whole_bytes = 0,
               NewPages* pages = nullptr) noexcept;

}  // namespace dlferry
