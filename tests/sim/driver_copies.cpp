// The driver's functions: copies, one at a time and in batches.
#include <utility>
#include <vector>

#include "copies.h"

namespace dlferry::cu {
namespace {

using sim::Call;
using sim::call;
using sim::CopyTask;
using sim::Direction;
using sim::Function;
using sim::Operand;
using sim::StreamPtr;

Result copy(Call& made, std::uint64_t destination, std::uint64_t source, std::size_t bytes,
            cu::Stream handle, Direction direction) {
  const StreamPtr stream = made.stream(handle);
  if (!stream) return made.error();
  if (bytes == 0) return kSuccess;
  Operand to, from;
  Result result = find_operand(made.world(), destination, bytes, to);
  if (result == kSuccess) result = find_operand(made.world(), source, bytes, from);
  if (result != kSuccess) return result;
  const bool to_device = direction == Direction::kHostToDevice;
  if (to.on_device() != to_device || from.on_device() == to_device) return kErrorInvalidValue;
  return launch(made, *stream, make_copy(made.world(), to, from, bytes));
}

struct Batch {
  const DevicePtr* destinations;
  const DevicePtr* sources;
  const std::size_t* sizes;
  std::size_t count;
  const CopyAttributes* attributes;
  const std::size_t* firsts;  // the copy from which on each of the attributes applies
  std::size_t attribute_count;
};

bool has_sound_attributes(const Batch& batch) {
  if (!batch.attributes || !batch.firsts) return false;
  if (batch.attribute_count == 0 || batch.attribute_count > batch.count) return false;
  for (std::size_t i = 0; i < batch.attribute_count; ++i) {
    const std::size_t lowest = i == 0 ? 0 : batch.firsts[i - 1] + 1;
    const bool in_order = i == 0 ? batch.firsts[0] == 0 : batch.firsts[i] >= lowest;
    if (!in_order || batch.firsts[i] >= batch.count) return false;
    const AccessOrder order = batch.attributes[i].order;
    if (order < kOrderStream || order > kOrderAny) return false;
  }
  return true;
}

// All entries are checked before the first is queued. `failed` is the index of the entry that is
// wrong, or SIZE_MAX.
Result check(sim::World& world, const Batch& batch, std::vector<CopyTask>& tasks,
             std::size_t& failed) {
  failed = SIZE_MAX;
  if (!batch.destinations || !batch.sources || !batch.sizes || batch.count == 0 ||
      !has_sound_attributes(batch)) {
    return kErrorInvalidValue;
  }
  for (std::size_t i = 0; i < batch.count; ++i) {
    failed = i;
    if (batch.sizes[i] == 0) return kErrorInvalidValue;
    Operand to, from;
    Result result = find_operand(world, batch.destinations[i], batch.sizes[i], to);
    if (result == kSuccess) result = find_operand(world, batch.sources[i], batch.sizes[i], from);
    if (result != kSuccess) return result;
    if (!to.on_device() && !from.on_device()) return kErrorInvalidValue;
    tasks.push_back(make_copy(world, to, from, batch.sizes[i]));
  }
  failed = SIZE_MAX;
  return kSuccess;
}

// The legacy null stream is refused, whichever way it is named.
Result copy_batch(Call& made, const Batch& batch, cu::Stream handle, std::size_t& failed) {
  failed = SIZE_MAX;
  if (sim::number_of(handle) <= 1) return kErrorInvalidValue;
  const StreamPtr stream = made.stream(handle);
  if (!stream) return made.error();
  std::vector<CopyTask> tasks;
  const Result result = check(made.world(), batch, tasks, failed);
  if (result != kSuccess) return result;
  std::size_t attribute = 0;
  for (std::size_t i = 0; i < tasks.size(); ++i) {
    while (attribute + 1 < batch.attribute_count && batch.firsts[attribute + 1] <= i) ++attribute;
    const Result launched =
        launch(made, *stream, std::move(tasks[i]), batch.attributes[attribute].order);
    if (launched != kSuccess) return launched;
  }
  return kSuccess;
}

// What the log says of a batch: its first entry, and the bytes of all.
sim::Arguments arguments_of(const Batch& batch, cu::Stream stream) {
  sim::Arguments result{.stream = sim::number_of(stream)};
  for (std::size_t i = 0; batch.sizes && i < batch.count; ++i) result.bytes += batch.sizes[i];
  if (batch.destinations && batch.count > 0) result.destination = batch.destinations[0];
  if (batch.sources && batch.count > 0) result.source = batch.sources[0];
  return result;
}

}  // namespace

Result cuMemcpyHtoDAsync_v2(DevicePtr destination, const void* source, std::size_t bytes,
                            cu::Stream stream) {
  const auto from = reinterpret_cast<std::uint64_t>(source);
  const sim::Arguments arguments{
      .stream = sim::number_of(stream), .destination = destination, .source = from, .bytes = bytes};
  return call(Function::cuMemcpyHtoDAsync_v2, sim::kNeedsContext, arguments, [&](Call& made) {
    return copy(made, destination, from, bytes, stream, Direction::kHostToDevice);
  });
}

Result cuMemcpyDtoHAsync_v2(void* destination, DevicePtr source, std::size_t bytes,
                            cu::Stream stream) {
  const auto to = reinterpret_cast<std::uint64_t>(destination);
  const sim::Arguments arguments{
      .stream = sim::number_of(stream), .destination = to, .source = source, .bytes = bytes};
  return call(Function::cuMemcpyDtoHAsync_v2, sim::kNeedsContext, arguments, [&](Call& made) {
    return copy(made, to, source, bytes, stream, Direction::kDeviceToHost);
  });
}

// CUDA 12.8: says which entry was wrong.
Result cuMemcpyBatchAsync(DevicePtr* destinations, DevicePtr* sources, std::size_t* sizes,
                          std::size_t count, CopyAttributes* attributes, std::size_t* firsts,
                          std::size_t attribute_count, std::size_t* failed, cu::Stream stream) {
  const Batch batch{destinations, sources, sizes, count, attributes, firsts, attribute_count};
  return call(Function::cuMemcpyBatchAsync, sim::kNeedsContext, arguments_of(batch, stream),
              [&](Call& made) {
                std::size_t index = SIZE_MAX;
                const Result result = copy_batch(made, batch, stream, index);
                if (failed && result != kSuccess) *failed = index;
                return result;
              });
}

// CUDA 13.0: does not.
Result cuMemcpyBatchAsync_v2(DevicePtr* destinations, DevicePtr* sources, std::size_t* sizes,
                             std::size_t count, CopyAttributes* attributes, std::size_t* firsts,
                             std::size_t attribute_count, cu::Stream stream) {
  const Batch batch{destinations, sources, sizes, count, attributes, firsts, attribute_count};
  return call(Function::cuMemcpyBatchAsync_v2, sim::kNeedsContext, arguments_of(batch, stream),
              [&](Call& made) {
                std::size_t index = SIZE_MAX;
                return copy_batch(made, batch, stream, index);
              });
}

}  // namespace dlferry::cu
