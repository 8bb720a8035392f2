// Fresh: a tensor that has just been allocated, for the core to write into.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <optional>

#include "python/doors.h"
#include "tensor/view.h"

namespace dlferry::python {

struct Shape {
  int ndim = 0;
  std::array<std::int64_t, kMaxDims> lengths;
};

// Whether a mode is active, which may make of each call of torch's what it likes.
[[nodiscard]] bool has_modes(const Torch& torch);

// Whether a tracer or a mode sees each operation of torch's: it does not see what the core writes.
[[nodiscard]] bool is_watched(const Torch& torch);

// Ordinary, uninitialised memory on the CPU, and just what was asked for.
struct Fresh {
  Ref tensor;
  std::byte* data = nullptr;
  DType dtype = DType::kBool;
  bool hidden = false;  // from those who watch, until it is `shown`
};

// The tensor, once it is filled. Those who watch see a copy of a constant, as of memory that they
// find shared. Empty with a Python error set where they allow none.
[[nodiscard]] Ref shown(Fresh fresh);

// A tensor of the shape of `like`, with strides in elements; of torch's default dtype where none is
// given, and on its default device unless `on_cpu`. Empty with a Python error set, BufferError
// where torch made something else: its default device is another one, or a mode is active that
// makes tensors without memory or of another dtype or shape. May run Python code.
[[nodiscard]] Fresh empty_strided(const Torch& torch, const View& like, const std::int64_t* strides,
                                  std::optional<DType> dtype, bool on_cpu);

// The same, contiguous and sooner. Empty without an error where that cannot be had.
[[nodiscard]] Fresh allocate(const Torch& torch, const Shape& shape, std::optional<DType> dtype,
                             bool on_cpu);

}  // namespace dlferry::python
