// Copies across the link, as the driver is asked for them.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>

#include "cuda/driver.h"

namespace dlferry::cuda {

enum class Direction : std::uint8_t { kToDevice, kToHost };

struct LinkCopy {
  std::byte* host;  // page-locked, unless whoever submits the copy says otherwise
  cu::DevicePtr device;
  std::size_t bytes;  // not 0
};

// Submits the copies to `stream`, in one call of the driver where it can take several. Memory that
// is not page-locked goes one copy at a time, and the driver may make the caller wait for the
// stream, which should have nothing but copies then. When this throws Error, some of them may have
// been submitted.
void submit_copies(Direction direction, std::span<const LinkCopy> copies, cu::Stream stream,
                   bool page_locked = true);

}  // namespace dlferry::cuda
