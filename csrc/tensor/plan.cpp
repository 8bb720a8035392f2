#include "tensor/plan.h"

namespace dlferry {

Plan decide(Facts facts, CopyPolicy copy, ReadOnlyPolicy readonly) noexcept {
  constexpr Facts kSoft = kReadOnly | kMappedFile | kProducerCopy;
  const Facts hard = facts & ~kSoft;
  const bool unwritable = (facts & kReadOnly) != 0 && readonly != ReadOnlyPolicy::kShare;
  const Facts read_only = unwritable ? facts & (kReadOnly | kMappedFile) : 0;

  if (copy == CopyPolicy::kAlways) return {Action::kCopy, hard | read_only, false};
  if (copy == CopyPolicy::kNever) {
    const Facts reasons = hard | read_only | (facts & kProducerCopy);
    return {reasons != 0 ? Action::kRefuse : Action::kShare, reasons, false};
  }
  // A copy that happens anyway makes the permission to write irrelevant.
  if (hard != 0) return {Action::kCopy, hard, (hard & (kDeviceDiffers | kSequence)) == 0};
  if (!unwritable) return {Action::kShare, 0, false};
  // Nobody means to read a whole file by accident.
  const bool refuse = readonly == ReadOnlyPolicy::kError || (facts & kMappedFile) != 0;
  return {refuse ? Action::kRefuse : Action::kCopy, read_only, !refuse};
}

}  // namespace dlferry
