// Primary contexts, one for each device, and each thread's stack of current ones.
#pragma once

#include <array>

#include "abi/cuda_driver.h"
#include "device_memory.h"

namespace dlferry::sim {

struct Context {
  int device = 0;
  int retains = 0;                   // by the program
  bool foreign_use = false;          // retained by somebody else, such as torch
  cu::Result sticky = cu::kSuccess;  // the error that ended it
  int copying = 0;                   // copies whose bytes are moving now

  [[nodiscard]] bool exists() const noexcept { return retains > 0 || foreign_use; }
  [[nodiscard]] cu::Context handle() noexcept { return reinterpret_cast<cu::Context>(this); }
};

class Contexts {
 public:
  Contexts() noexcept;
  // Null for a device that is not one of `devices`.
  Context* of_device(int device, std::int64_t devices) noexcept;
  // Null for what is no handle of a context.
  Context* from_handle(cu::Context handle) noexcept;
  std::array<Context, kMostDevices>& all() noexcept { return contexts_; }

 private:
  std::array<Context, kMostDevices> contexts_;
};

// What the driver keeps of each thread. No destructor: threads may end late.
struct Thread {
  static constexpr int kDeepest = 32;
  Context* stack[kDeepest] = {};
  int depth = 0;
  cu::CaptureMode mode = cu::kCaptureGlobal;
  std::uint64_t per_thread_streams[kMostDevices] = {};

  [[nodiscard]] Context* current() const noexcept { return depth ? stack[depth - 1] : nullptr; }
};
Thread& this_thread() noexcept;

}  // namespace dlferry::sim
