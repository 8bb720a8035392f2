#include "faults.h"

#include <string_view>

namespace dlferry::sim {

std::uint64_t bits_named(const char* name) noexcept {
  std::uint64_t bits = 0;
  const std::string_view wanted = name ? name : "";
  if (wanted == "H2D") return kHostToDeviceBit;
  if (wanted == "D2H") return kDeviceToHostBit;
  for (std::size_t i = 0; i < kFunctionCount; ++i) {
    if (wanted == kFunctions[i].name || wanted == kFunctions[i].symbol) {
      bits |= std::uint64_t{1} << i;
    }
  }
  return bits;
}

void Faults::plan(std::uint64_t bits, unsigned nth, Fault fault) {
  plans_.push_back({bits, nth, fault});
}

Fault Faults::next(std::uint64_t bit) {
  Fault result;
  for (Plan& plan : plans_) {
    if (!(plan.bits & bit)) continue;
    ++plan.seen;
    if (plan.nth != 0 && plan.seen != plan.nth) continue;
    result = plan.fault;
    ++fired_;
  }
  return result;
}

void Faults::clear() {
  plans_.clear();
  fired_ = 0;
}

}  // namespace dlferry::sim
