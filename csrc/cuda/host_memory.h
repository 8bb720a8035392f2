// New page-locked memory, as near to a GPU as the system can tell.
#pragma once

#include <cstddef>
#include <utility>

#include "cuda/driver.h"
#include "cuda/pinned.h"

namespace dlferry::cuda {

// Page-locked memory of our own. Every device may use it; it lies on the NUMA node of the one whose
// primary context is current, where the system knows of one. Forked children do not have it: they
// must not touch it. Making it takes milliseconds, and letting go waits for the driver.
class HostAllocation {
 public:
  HostAllocation() noexcept = default;
  explicit HostAllocation(std::size_t bytes);  // throws Error or Unavailable
  HostAllocation(HostAllocation&& other) noexcept { *this = std::move(other); }
  HostAllocation& operator=(HostAllocation&& other) noexcept {
    std::swap(data_, other.data_);
    std::swap(bytes_, other.bytes_);
    std::swap(mapped_, other.mapped_);
    std::swap(context_, other.context_);
    std::swap(known_, other.known_);
    return *this;
  }
  ~HostAllocation();

  [[nodiscard]] std::byte* data() const noexcept { return data_; }
  [[nodiscard]] std::size_t bytes() const noexcept { return bytes_; }

 private:
  [[nodiscard]] bool map_and_register(std::size_t bytes);
  void release() noexcept;

  std::byte* data_ = nullptr;
  std::size_t bytes_ = 0;
  std::size_t mapped_ = 0;  // bytes from `data_` that we mapped and registered; 0: the driver's own
  cu::Context context_ = nullptr;
  KnownRange known_;
};

}  // namespace dlferry::cuda
