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

// Contiguous, ordinary and on the CPU.
struct Fresh {
  Ref tensor;
  std::byte* data = nullptr;
  DType dtype = DType::kBool;
};

// Of torch's default dtype where none is given, and on its default device unless `on_cpu`. Empty,
// without an error, where torch makes no such tensor: its default device is another one, a mode is
// active, or the shape is too large. May run Python code.
[[nodiscard]] Fresh allocate(const Torch& torch, const Shape& shape, std::optional<DType> dtype,
                             bool on_cpu);

}  // namespace dlferry::python
