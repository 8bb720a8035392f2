// Sink: the last step of a copy, from native elements at hand to their places.
#pragma once

#include <cstddef>
#include <cstdint>

#include "tensor/conversion.h"

namespace dlferry {

// For one thread, and one task: what it has written is ordered before whatever follows its end.
class Sink {
 public:
  explicit Sink(const Conversion& conversion) noexcept : conversion_(conversion) {}
  ~Sink();
  Sink(const Sink&) = delete;
  Sink& operator=(const Sink&) = delete;

  // Casts `count` consecutive elements in native byte order and puts them `stride` bytes apart.
  void put(std::byte* dst, std::int64_t stride, const std::byte* native,
           std::size_t count) noexcept;

  // The same for `rows` of `count` elements each, all consecutive.
  struct Strides {
    std::int64_t row;
    std::int64_t element;
  };
  void put_rows(std::byte* dst, Strides strides, const std::byte* native, std::size_t rows,
                std::size_t count) noexcept;

 private:
  void place(std::byte* dst, std::int64_t stride, const std::byte* cast,
             std::size_t count) noexcept;

  static constexpr std::size_t kBufferBytes = 8192;  // stays in the first cache

  const Conversion& conversion_;
  alignas(64) std::byte buffer_[kBufferBytes];
};

}  // namespace dlferry
