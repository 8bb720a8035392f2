// The control interface: settings, counters, the log, faults and memory.
#include <algorithm>
#include <cstring>
#include <string>
#include <string_view>

#include "copies.h"
#include "sim.h"
#include "world.h"

namespace {

using dlferry::sim::BlockKind;
using dlferry::sim::BlockPtr;
using dlferry::sim::Context;
using dlferry::sim::in_child;
using dlferry::sim::Lock;
using dlferry::sim::NamedCount;
using dlferry::sim::World;
using dlferry::sim::world;

// As snprintf: what fits, and a final zero; the length of the whole.
std::size_t give(const std::string& text, char* buffer, std::size_t capacity) {
  if (buffer && capacity > 0) {
    const std::size_t length = std::min(text.size(), capacity - 1);
    std::memcpy(buffer, text.data(), length);
    buffer[length] = '\0';
  }
  return text.size();
}

// The bytes of device memory as the engines see them, or null.
std::byte* reach(World& w, std::uint64_t pointer, std::size_t bytes) {
  const BlockPtr block = w.device_memory.at(pointer);
  return block && block->holds(pointer, bytes) ? block->at(pointer) : nullptr;
}

}  // namespace

extern "C" {

int dlferry_sim_configure(const char* text) {
  if (in_child || !text) return -1;
  World& w = world();
  const Lock lock(w.mutex);
  dlferry::sim::Settings changed = w.settings;
  if (!changed.read(text)) return -1;
  w.apply(changed);
  return 0;
}

int64_t dlferry_sim_counter(const char* name) {
  const std::string_view wanted = name ? name : "";
  // The one that a child may ask for itself.
  if (in_child) {
    return wanted == "calls_in_child" ? dlferry::sim::shared().calls_in_child.load() : -1;
  }
  World& w = world();
  const Lock lock(w.mutex);
  for (const NamedCount& count : counters(w)) {
    if (wanted == count.name) return count.value;
  }
  return -1;
}

size_t dlferry_sim_counters(char* buffer, size_t capacity) {
  if (in_child) return give("{}", buffer, capacity);
  World& w = world();
  const Lock lock(w.mutex);
  std::string text;
  for (const NamedCount& count : counters(w)) {
    text += text.empty() ? "{\"" : ",\"";
    text += std::string(count.name) + "\":" + std::to_string(count.value);
  }
  return give(text + "}", buffer, capacity);
}

int64_t dlferry_sim_calls(const char* function) {
  const std::uint64_t functions = dlferry::sim::bits_named(function);
  if (in_child || functions == 0 || functions >= dlferry::sim::kHostToDeviceBit) return -1;
  World& w = world();
  const Lock lock(w.mutex);
  std::int64_t sum = 0;
  for (std::size_t i = 0; i < dlferry::sim::kFunctionCount; ++i) {
    if (functions >> i & 1U) sum += w.counts.calls[i];
  }
  return sum;
}

size_t dlferry_sim_log(char* buffer, size_t capacity) {
  if (in_child) return give("", buffer, capacity);
  World& w = world();
  const Lock lock(w.mutex);
  return give(w.log.text(), buffer, capacity);
}

void dlferry_sim_log_clear(void) {
  if (in_child) return;
  World& w = world();
  const Lock lock(w.mutex);
  w.log.clear();
}

int dlferry_sim_fail(const char* function, unsigned nth, int code, int sticky) {
  const std::uint64_t bits = dlferry::sim::bits_named(function);
  if (in_child || bits == 0 || code <= 0) return -1;
  World& w = world();
  const Lock lock(w.mutex);
  w.faults.plan(bits, nth, {static_cast<dlferry::cu::Result>(code), sticky != 0});
  return 0;
}

int dlferry_sim_poison(int device, int code) {
  if (in_child || code <= 0) return -1;
  World& w = world();
  Lock lock(w.mutex);
  Context* const context = w.contexts.of_device(device, w.settings.devices);
  if (!context) return -1;
  lose(w, *context, static_cast<dlferry::cu::Result>(code));
  await_quiet(w, lock, *context);
  return 0;
}

uint64_t dlferry_sim_device_alloc(int device, size_t bytes) {
  if (in_child) return 0;
  World& w = world();
  const Lock lock(w.mutex);
  if (!w.contexts.of_device(device, w.settings.devices)) return 0;
  const auto limit = static_cast<std::size_t>(w.settings.device_bytes);
  const BlockPtr block = w.device_memory.allocate(device, bytes, limit);
  return block ? block->begin : 0;
}

int dlferry_sim_device_free(uint64_t pointer) {
  if (in_child) return -1;
  World& w = world();
  Lock lock(w.mutex);
  const BlockPtr block = w.device_memory.at(pointer);
  if (!block || block->begin != pointer || !block->alive) return -1;
  block->alive = false;
  while (block->copying > 0) w.copy_ended.wait(lock);
  w.device_memory.release(block);
  return 0;
}

int dlferry_sim_peek(void* host, uint64_t device_pointer, size_t bytes) {
  if (in_child) return -1;
  World& w = world();
  const Lock lock(w.mutex);
  const std::byte* const data = reach(w, device_pointer, bytes);
  if (!data) return -1;
  std::memcpy(host, data, bytes);
  return 0;
}

int dlferry_sim_poke(uint64_t device_pointer, const void* host, size_t bytes) {
  if (in_child) return -1;
  World& w = world();
  const Lock lock(w.mutex);
  std::byte* const data = reach(w, device_pointer, bytes);
  if (!data) return -1;
  std::memcpy(data, host, bytes);
  return 0;
}

void* dlferry_sim_pinned_alloc(size_t bytes) {
  if (in_child || bytes == 0) return nullptr;
  World& w = world();
  const Lock lock(w.mutex);
  void* const data = dlferry::sim::HostMemory::map(bytes);
  if (data) w.host_memory.add(data, bytes, BlockKind::kForeignPinned, 0);
  return data;
}

int dlferry_sim_pinned_free(void* pointer) {
  if (in_child) return -1;
  World& w = world();
  Lock lock(w.mutex);
  const BlockPtr block = w.host_memory.starting_at(pointer, BlockKind::kForeignPinned);
  if (!block) return -1;
  count_if_in_use(w, *block);
  retire(w, lock, block);
  dlferry::sim::HostMemory::unmap(pointer, block->bytes);
  return 0;
}

}  // extern "C"
