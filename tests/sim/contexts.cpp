#include "contexts.h"

namespace dlferry::sim {

Contexts::Contexts() noexcept {
  for (int device = 0; device < kMostDevices; ++device) {
    contexts_[static_cast<std::size_t>(device)].device = device;
  }
}

Context* Contexts::of_device(int device, std::int64_t devices) noexcept {
  if (device < 0 || device >= devices || device >= kMostDevices) return nullptr;
  return &contexts_[static_cast<std::size_t>(device)];
}

Context* Contexts::from_handle(cu::Context handle) noexcept {
  for (Context& context : contexts_) {
    if (context.handle() == handle) return &context;
  }
  return nullptr;
}

Thread& this_thread() noexcept {
  thread_local Thread thread;
  return thread;
}

}  // namespace dlferry::sim
