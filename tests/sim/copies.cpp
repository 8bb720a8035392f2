#include "copies.h"

#include <utility>

namespace dlferry::sim {
namespace {

// The nth copy's delay depends on the seed and on n, not on the threads.
std::int64_t delay_of(World& world) {
  const std::uint64_t most = static_cast<std::uint64_t>(world.settings.delay_us) * 1000;
  if (most == 0) return 0;
  std::uint64_t x = static_cast<std::uint64_t>(world.settings.seed) * 0x9E3779B97F4A7C15U +
                    ++world.copies_submitted * 0xD1B54A32D192ED03U;
  x = (x ^ (x >> 30)) * 0xBF58476D1CE4E5B9U;
  x = (x ^ (x >> 27)) * 0x94D049BB133111EBU;
  return static_cast<std::int64_t>((x ^ (x >> 31)) % (most + 1));
}

cu::Result invalidate(Capture& capture, cu::Result result) {
  capture.valid = false;
  return result;
}

// The source's bytes are taken by the call, not in stream order.
void read_early(CopyTask& task) {
  const std::byte* const source = task.source.data();
  task.early.assign(source, source + task.bytes);
}

}  // namespace

cu::Result find_operand(World& world, std::uintptr_t address, std::size_t bytes, Operand& operand) {
  if (address == 0) return cu::kErrorInvalidValue;
  BlockPtr block = world.device_memory.at(address);
  if (!block && world.device_memory.device_of(address) >= 0) return cu::kErrorInvalidValue;
  if (!block) block = world.host_memory.at(address);
  const bool partly =
      block ? !block->holds(address, bytes) : world.host_memory.overlaps(address, bytes);
  if (partly) return cu::kErrorInvalidValue;
  operand = {address, std::move(block)};
  return cu::kSuccess;
}

Admission admit(World& world, Stream& stream) {
  if (stream.capture) {
    const bool valid = stream.capture->valid;
    return {valid ? cu::kSuccess : cu::kErrorStreamCaptureInvalidated, stream.capture.get()};
  }
  if (world.streams.legacy_of(*stream.context).get() != &stream) return {};
  // The null stream depends on every blocking stream, one that is capturing included.
  for (const auto& [handle, other] : world.streams.all()) {
    if (other->blocking && other->capture && other->context == stream.context) {
      return {invalidate(*other->capture, cu::kErrorStreamCaptureImplicit), other->capture.get()};
    }
  }
  return {};
}

CopyTask make_copy(World& world, const Operand& destination, const Operand& source,
                   std::size_t bytes) {
  CopyTask task;
  task.direction = !source.on_device()       ? Direction::kHostToDevice
                   : destination.on_device() ? Direction::kWithinDevice
                                             : Direction::kDeviceToHost;
  task.destination = destination;
  task.source = source;
  task.bytes = bytes;
  task.delay = delay_of(world);
  const bool is_timed =
      task.delay > 0 || world.settings.h2d_rate > 0 || world.settings.d2h_rate > 0;
  if (is_timed) task.submitted = now();
  return task;
}

cu::Result launch(Call& call, Stream& stream, CopyTask task, cu::AccessOrder order) {
  World& w = call.world();
  const bool is_pageable = task.destination.is_pageable() || task.source.is_pageable();
  const Admission admission = admit(w, stream);
  if (admission.result != cu::kSuccess) return admission.result;
  if (admission.capture) {
    if (is_pageable) return invalidate(*admission.capture, cu::kErrorStreamCaptureUnsupported);
    ++admission.capture->copies;
    ++w.counts.captured_copies;
    return cu::kSuccess;
  }
  if (is_pageable) {
    ++w.counts.pageable_copies;
    w.counts.pageable_bytes += static_cast<std::int64_t>(task.bytes);
  }
  const bool reads_in_call = order == cu::kOrderDuringCall;
  // "Any" order: the worst moment that it allows. Memory that earlier work is still to write may be
  // read now; memory of the host may be read as late as ever.
  if (reads_in_call || (order == cu::kOrderAny && task.source.on_device())) read_early(task);
  const bool waits =
      task.destination.is_pageable() || (task.source.is_pageable() && !reads_in_call);
  submit(w, call.lock(), stream, std::move(task));
  if (waits) drain(w, call.lock(), stream);
  return waits ? call.health(*stream.context) : cu::kSuccess;
}

}  // namespace dlferry::sim
