#include "tensor/kernels.h"

#include <atomic>

#include "tensor/machine.h"

namespace dlferry {
namespace {

const Kernels& best() noexcept {
#if defined(__x86_64__)
  switch (instruction_set()) {
    case InstructionSet::kAvx512:
      return avx512::kKernels;
    case InstructionSet::kAvx2:
      return avx2::kKernels;
    case InstructionSet::kPortable:
      break;
  }
#endif
  return portable::kKernels;
}

}  // namespace

const Kernels& kernels() noexcept {
  // Not a static made on first use: a child that is forked meanwhile would wait for its guard.
  static std::atomic<const Kernels*> chosen{nullptr};
  const Kernels* known = chosen.load(std::memory_order_relaxed);
  if (known == nullptr) chosen.store(known = &best(), std::memory_order_relaxed);
  return *known;
}

}  // namespace dlferry
