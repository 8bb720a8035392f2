// The driver's functions: page-locked memory, pointers and copies.
#include <unistd.h>

#include <vector>

#include "copies.h"

namespace dlferry::cu {
namespace {

using sim::BlockKind;
using sim::BlockPtr;
using sim::Call;
using sim::call;
using sim::Function;
using sim::Lock;
using sim::World;

constexpr unsigned kLocked = sim::kNeedsContext | sim::kUnsafe;

std::uint64_t address_of(const void* pointer) noexcept {
  return reinterpret_cast<std::uint64_t>(pointer);
}

std::size_t allocated_bytes(const World& world) {
  std::size_t sum = 0;
  for (const auto& [address, block] : world.host_memory.blocks().all()) {
    if (block->kind == BlockKind::kHostAllocation) sum += block->bytes;
  }
  return sum;
}

// Everything that was queued in a context so far.
void drain_context(World& world, Lock& lock, const sim::Context& context) {
  std::vector<sim::StreamPtr> streams = world.streams.destroyed();
  for (const auto& [handle, stream] : world.streams.all()) streams.push_back(stream);
  for (const sim::StreamPtr& stream : streams) {
    if (stream->context == &context && !stream->is_idle()) drain(world, lock, *stream);
  }
}

Result check_registration(const World& world, const void* data, std::size_t bytes, unsigned flags) {
  const sim::Settings& settings = world.settings;
  if (!data || bytes == 0 || flags > 15) return kErrorInvalidValue;
  if (settings.register_result != 0) return static_cast<Result>(settings.register_result);
  const bool read_only = flags & kHostRegisterReadOnly;
  if (read_only && settings.read_only_register == 0) return kErrorNotSupported;
  const auto page = static_cast<std::size_t>(settings.register_page);
  if (world.host_memory.shares_page(data, bytes, page)) return kErrorHostMemoryAlreadyRegistered;
  const sim::Mapped mapped = sim::how_mapped(data, bytes);
  if (mapped == sim::Mapped::kNot) return kErrorInvalidValue;
  return mapped == sim::Mapped::kReadOnly && !read_only ? kErrorInvalidValue : kSuccess;
}

}  // namespace

Result cuMemHostAlloc(void** data, std::size_t bytes, unsigned flags) {
  const sim::Arguments arguments{.bytes = bytes};
  return call(Function::cuMemHostAlloc, kLocked, arguments, [&](Call& made) {
    World& w = made.world();
    if (!data || bytes == 0 || flags > 7) return kErrorInvalidValue;
    const auto limit = static_cast<std::size_t>(w.settings.host_limit);  // -1: the largest
    if (bytes > limit || allocated_bytes(w) > limit - bytes) return kErrorOutOfMemory;
    const auto latency = static_cast<useconds_t>(w.settings.host_alloc_us);
    w.is_allocating = latency > 0;  // other calls wait for the driver; the engines do not
    made.lock().unlock();
    if (latency > 0) usleep(latency);
    void* const mapped = sim::HostMemory::map(bytes);
    made.lock().lock();
    w.is_allocating = false;
    w.allocated.notify_all();
    if (!mapped) return kErrorOutOfMemory;
    w.host_memory.add(mapped, bytes, BlockKind::kHostAllocation, made.current()->device);
    *data = mapped;
    return kSuccess;
  });
}

// Synchronises with the device, which the manual does not say but the driver does.
Result cuMemFreeHost(void* data) {
  const sim::Arguments arguments{.source = address_of(data)};
  return call(Function::cuMemFreeHost, kLocked | sim::kReleases, arguments, [&](Call& made) {
    World& w = made.world();
    const BlockPtr block = w.host_memory.starting_at(data, BlockKind::kHostAllocation);
    if (!block) return kErrorInvalidValue;
    count_if_in_use(w, *block);
    if (w.settings.host_free_syncs != 0) drain_context(w, made.lock(), *made.current());
    retire(w, made.lock(), block);
    sim::HostMemory::unmap(data, block->bytes);
    return kSuccess;
  });
}

Result cuMemHostRegister_v2(void* data, std::size_t bytes, unsigned flags) {
  const sim::Arguments arguments{.source = address_of(data), .bytes = bytes};
  return call(Function::cuMemHostRegister_v2, kLocked, arguments, [&](Call& made) {
    World& w = made.world();
    const Result result = check_registration(w, data, bytes, flags);
    if (result != kSuccess) return result;
    const bool read_only = flags & kHostRegisterReadOnly;
    w.host_memory.add(data, bytes, BlockKind::kRegistration, made.current()->device, read_only);
    return kSuccess;
  });
}

Result cuMemHostUnregister(void* data) {
  const sim::Arguments arguments{.source = address_of(data)};
  return call(Function::cuMemHostUnregister, kLocked | sim::kReleases, arguments, [&](Call& made) {
    World& w = made.world();
    const BlockPtr block = w.host_memory.starting_at(data, BlockKind::kRegistration);
    if (!block) return data ? kErrorHostMemoryNotRegistered : kErrorInvalidValue;
    count_if_in_use(w, *block);
    retire(w, made.lock(), block);
    return kSuccess;
  });
}

// Unknown pointers are no error: their attributes are zero.
Result cuPointerGetAttributes(unsigned count, PointerAttribute* attributes, void** data,
                              DevicePtr pointer) {
  const sim::Arguments arguments{.source = pointer};
  return call(Function::cuPointerGetAttributes, sim::kNeedsInit, arguments, [&](Call& made) {
    if (count == 0 || !attributes || !data) return kErrorInvalidValue;
    BlockPtr block = made.world().device_memory.at(pointer);
    if (!block) block = made.world().host_memory.at(pointer);
    for (unsigned i = 0; i < count; ++i) {
      unsigned value = 0;
      if (attributes[i] == kRangeStart || attributes[i] == kRangeSize) {
        std::uint64_t limit = 0;
        if (block) limit = attributes[i] == kRangeSize ? block->bytes : block->begin;
        *static_cast<std::uint64_t*>(data[i]) = limit;
        continue;
      }
      if (attributes[i] == kMemoryType) {
        value = !block ? 0U : block->kind == BlockKind::kDevice ? kMemoryDevice : kMemoryHost;
      } else if (attributes[i] == kDeviceOrdinal) {
        value = block ? static_cast<unsigned>(block->device) : 0U;
      } else if (attributes[i] != kIsManaged) {
        return kErrorInvalidValue;
      }
      *static_cast<unsigned*>(data[i]) = value;
    }
    return kSuccess;
  });
}

}  // namespace dlferry::cu
