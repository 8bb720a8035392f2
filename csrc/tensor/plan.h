// The one decision: share, copy or refuse. A pure function of a few bits.
//
// `asarray`, `from_dlpack`, `to_numpy` and whatever explains them ask it. `_policy.py` has the same
// table for the fallback; a test compares the two over every combination.
#pragma once

#include <cstdint>

namespace dlferry {

// Why memory cannot be shared as asked: facts of the source (the layout of its memory, who may
// write) and of the request (dtype, device).
using Facts = std::uint32_t;

enum Fact : Facts {
  kDTypeDiffers = 1U << 0U,
  kDeviceDiffers = 1U << 1U,
  kStrides = 1U << 2U,
  kByteOrder = 1U << 3U,
  kAlignment = 1U << 4U,
  kReadOnly = 1U << 5U,
  kConjugate = 1U << 6U,
  kNegative = 1U << 7U,
  kSubByte = 1U << 8U,
  kSequence = 1U << 9U,       // no array memory at all
  kProducerCopy = 1U << 10U,  // the memory is a copy that the producer made for this exchange
  kMappedFile = 1U << 11U,    // with kReadOnly: the pages of a file
  kChunks = 1U << 12U,        // several blocks of memory
};
inline constexpr Facts kAllFacts = (1U << 13U) - 1U;

enum class CopyPolicy : std::uint8_t { kNever, kIfNeeded, kAlways };
enum class ReadOnlyPolicy : std::uint8_t { kCopy, kShare, kError };
enum class Action : std::uint8_t { kShare, kCopy, kRefuse };

struct Plan {
  Action action;
  Facts reasons;  // what keeps the memory from being shared; all of it, when refused
  bool implicit;  // a copy that the caller did not ask for
};

[[nodiscard]] Plan decide(Facts facts, CopyPolicy copy, ReadOnlyPolicy readonly) noexcept;

}  // namespace dlferry
