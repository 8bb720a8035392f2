#include "tensor/kernels.h"

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
  static const Kernels& kChosen = best();
  return kChosen;
}

}  // namespace dlferry
