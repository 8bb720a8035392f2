// Casts of contiguous runs of elements.
#pragma once

#include <cstddef>

#include "tensor/kernels.h"

namespace dlferry {

// A cast between two different dtypes, resolved once and applied run by run. The floats below 32
// bits go by way of float32: such a cast has two steps, and float32 on the stack between them.
class Cast {
 public:
  // complex32 casts to and from nothing; then, and for equal dtypes, `apply` must not be called.
  Cast(DType to, DType from) noexcept;

  void apply(std::byte* dst, const std::byte* src, std::size_t count) const noexcept;

 private:
  CastRun first_ = nullptr;
  CastRun second_ = nullptr;  // from float32, where the first step leads there
  std::size_t from_size_;
  std::size_t to_size_;
};

}  // namespace dlferry
