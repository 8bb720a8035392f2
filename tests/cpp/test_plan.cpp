// The decision, over every combination of facts and requests. `_policy.py` is compared with it
// elsewhere; here it is held against what the contract says in words.
#include "check.h"
#include "tensor/plan.h"

namespace dlferry {
namespace {

void every_combination(CopyPolicy copy, ReadOnlyPolicy readonly) {
  for (Facts facts = 0; facts <= kAllFacts; ++facts) {
    const Plan plan = decide(facts, copy, readonly);
    // Reasons are facts, and a refusal has some.
    CHECK((plan.reasons & ~facts) == 0);
    CHECK(plan.action != Action::kRefuse || plan.reasons != 0);
    CHECK(plan.action != Action::kShare || plan.reasons == 0);
    switch (copy) {
      case CopyPolicy::kAlways:
        CHECK(plan.action == Action::kCopy && !plan.implicit);
        break;
      case CopyPolicy::kNever:
        CHECK(plan.action != Action::kCopy);
        break;
      case CopyPolicy::kIfNeeded:
        CHECK(facts != 0 || plan.action == Action::kShare);
        CHECK(plan.action != Action::kRefuse || (plan.reasons & kReadOnly) != 0);
        break;
    }
    // One more fact never turns a refusal under copy=False into sharing.
    for (Facts more = 1; more <= kAllFacts && copy == CopyPolicy::kNever; more <<= 1U) {
      if (plan.action != Action::kRefuse) continue;
      CHECK(decide(facts | more, copy, readonly).action == Action::kRefuse);
    }
  }
}

}  // namespace
}  // namespace dlferry

int main() {
  using dlferry::CopyPolicy;
  using dlferry::ReadOnlyPolicy;
  for (auto copy : {CopyPolicy::kNever, CopyPolicy::kIfNeeded, CopyPolicy::kAlways}) {
    for (auto readonly : {ReadOnlyPolicy::kCopy, ReadOnlyPolicy::kShare, ReadOnlyPolicy::kError}) {
      dlferry::every_combination(copy, readonly);
    }
  }
  return dlferry::test::finish();
}
