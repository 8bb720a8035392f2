// Copies on their way into a stream.
#pragma once

#include "call.h"

namespace dlferry::sim {

// What is at an address. INVALID_VALUE, as the driver answers, for device memory that is not
// allocated and for a range that is partly page-locked.
cu::Result find_operand(World& world, std::uintptr_t address, std::size_t bytes, Operand& operand);

// Whether work may be submitted to a stream, as far as captures go: null for "yes, do it now".
struct Admission {
  cu::Result result = cu::kSuccess;
  Capture* capture = nullptr;  // record it here instead
};
Admission admit(World& world, Stream& stream);

// A late copy with its delay. The operands' sides decide the direction.
CopyTask make_copy(World& world, const Operand& destination, const Operand& source,
                   std::size_t bytes);

// Submits a copy as the driver does: recorded into a capture, or queued; pageable memory makes the
// caller wait for the stream, and is counted.
cu::Result launch(Call& call, Stream& stream, CopyTask task,
                  cu::AccessOrder order = cu::kOrderStream);

}  // namespace dlferry::sim
