// The fault plan: which call of which function fails, and how.
#pragma once

#include <cstdint>
#include <vector>

#include "functions.h"

namespace dlferry::sim {

struct Fault {
  cu::Result code = cu::kSuccess;
  bool sticky = false;
};

class Faults {
 public:
  // The nth call from now of any of these functions; 0: every call.
  void plan(std::uint64_t bits, unsigned nth, Fault fault);
  // What this call, which is counted, is to fail with; kSuccess for nothing.
  Fault next(std::uint64_t bit);
  void clear();
  [[nodiscard]] std::int64_t fired() const noexcept { return fired_; }

 private:
  struct Plan {
    std::uint64_t bits;
    unsigned nth;
    Fault fault;
    unsigned seen = 0;
  };
  std::vector<Plan> plans_;
  std::int64_t fired_ = 0;
};

}  // namespace dlferry::sim
