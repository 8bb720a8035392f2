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

// Ordinary, uninitialised memory on the CPU, and just what was asked for.
struct Fresh {
  Ref tensor;
  std::byte* data = nullptr;
  DType dtype = DType::kBool;
};

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
