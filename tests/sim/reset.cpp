// The control interface: back to the beginning.
#include <string_view>
#include <vector>

#include "sim.h"
#include "world.h"

namespace {

using namespace dlferry::sim;

constexpr std::string_view kHeld[] = {"streams", "events", "host_allocations", "registrations",
                                      "device_allocations"};

std::int64_t count_held(World& w) {
  std::int64_t held = 0;
  for (const NamedCount& count : counters(w)) {
    for (const std::string_view name : kHeld) held += name == count.name ? count.value : 0;
  }
  return held;
}

// All work done, all threads ended, no stream left that is not in use.
void come_to_rest(World& w, Lock& lock) {
  for (const auto& [number, gate] : w.gates) gate->reach();
  w.gates.clear();
  for (auto& of_device : w.engines) {
    for (Engine& engine : of_device) engine.stall(false);
  }
  std::vector<StreamPtr> streams = w.streams.destroyed();
  for (const auto& [handle, stream] : w.streams.all()) streams.push_back(stream);
  for (const StreamPtr& stream : streams) drain(w, lock, *stream);
  for (const StreamPtr& stream : streams) join(lock, *stream);
  w.streams.destroyed().clear();
}

void forget_events(World& w) {
  w.captures.end_all();
  for (Context& context : w.contexts.all()) context.sticky = dlferry::cu::kSuccess;
  w.faults.clear();
  w.counts = {};
  shared().calls_in_child = 0;
  w.copies_submitted = 0;
  for (auto& of_device : w.engines) {
    for (Engine& engine : of_device) engine.free_at = 0;
  }
  w.apply(settings_at_load());
  w.log.clear();
}

void destroy_all(World& w) {
  w.events.clear();
  while (!w.streams.all().empty()) w.streams.destroy(StreamPtr(w.streams.all().begin()->second));
  w.streams.destroyed().clear();  // their threads have ended
  while (!w.host_memory.blocks().all().empty()) {
    const BlockPtr block = w.host_memory.blocks().all().begin()->second;
    w.host_memory.remove(block);
    block->alive = false;
    if (block->kind != BlockKind::kRegistration) HostMemory::unmap(block->data, block->bytes);
  }
  while (!w.device_memory.blocks().all().empty()) {
    const BlockPtr block = w.device_memory.blocks().all().begin()->second;
    block->alive = false;
    w.device_memory.release(block);
  }
  for (Context& context : w.contexts.all()) {
    context.retains = 0;
    context.foreign_use = false;
  }
  w.is_initialized = false;
}

}  // namespace

extern "C" {

int64_t dlferry_sim_reset(void) {
  if (in_child) return -1;
  World& w = world();
  Lock lock(w.mutex);
  come_to_rest(w, lock);
  forget_events(w);
  return count_held(w);
}

void dlferry_sim_abandon(void) {
  if (in_child) return;
  World& w = world();
  Lock lock(w.mutex);
  come_to_rest(w, lock);
  forget_events(w);
  destroy_all(w);
  this_thread() = {};
}

}  // extern "C"
