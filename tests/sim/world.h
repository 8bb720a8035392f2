// The simulated machine: all its state, under one lock.
#pragma once

#include <array>
#include <atomic>
#include <condition_variable>
#include <cstdint>
#include <map>
#include <mutex>
#include <vector>

#include "captures.h"
#include "contexts.h"
#include "device_memory.h"
#include "engines.h"
#include "events.h"
#include "faults.h"
#include "functions.h"
#include "host_memory.h"
#include "log.h"
#include "settings.h"
#include "streams.h"

namespace dlferry::sim {

// What is counted as it happens. What can be counted when it is asked for is not here.
struct Counts {
  std::array<std::int64_t, kFunctionCount> calls{};
  std::array<std::int64_t, 3> copies{};  // by direction
  std::array<std::int64_t, 3> bytes{};
  std::int64_t inline_copies = 0;
  std::int64_t captured_copies = 0;
  std::int64_t dropped_tasks = 0;
  std::int64_t pageable_copies = 0;
  std::int64_t pageable_bytes = 0;
  std::int64_t freed_in_use = 0;     // host memory freed while copies needed it
  std::int64_t invalid_handles = 0;  // given to the driver
  std::int64_t foreign_streams = 0;  // used while another device's context was current
};

struct World {
  World();

  std::mutex mutex;
  Settings settings;
  Log log;
  Faults faults;
  Counts counts;
  DeviceMemory device_memory;
  HostMemory host_memory;
  Contexts contexts;
  Streams streams;
  Events events;
  Captures captures;
  std::array<std::array<Engine, 2>, kMostDevices> engines;  // by device, by direction
  std::map<std::uint64_t, MarkPtr> gates;

  bool is_initialized = false;
  bool is_allocating = false;  // cuMemHostAlloc has the driver to itself
  std::condition_variable allocated;
  std::condition_variable copy_ended;  // of a block that is freed, or of a context that was lost
  std::uint64_t copies_submitted = 0;

  std::uint64_t new_handle() noexcept { return last_handle_ += 16; }
  // Takes settings over; what they say is in force at once.
  void apply(const Settings& changed);

 private:
  // Not a multiple of a page, and no address of a process.
  std::uint64_t last_handle_ = std::uint64_t{0xD1FE} << 48;
};

// The one there is. Never destroyed: threads are in it until the process ends.
World& world() noexcept;

// What DLFERRY_SIM said when the library was loaded, or else the defaults.
const Settings& settings_at_load() noexcept;

// Kept where a forked child and its parent both see it.
struct Shared {
  std::atomic<std::int64_t> calls_in_child{0};
};
Shared& shared() noexcept;

extern std::atomic<bool> in_child;    // of a process that had called cuInit
extern std::atomic<bool> is_exiting;  // the library is being unloaded, at exit
extern std::atomic<std::int64_t> calls_after_exit;

// Ends a context: its queued work is dropped, and all that touch it from now on get `code`.
void lose(World& world, Context& context, cu::Result code);

// Waits until no bytes move any more for a lost context, so that its memory may be freed.
void await_quiet(World& world, Lock& lock, const Context& context);

// Counts host memory that is freed while a copy needs it. In a lost context only those do whose
// bytes move: what still stands before its engine, or sleeps, will touch nothing.
void count_if_in_use(World& world, const Block& block);

// Host memory that is the driver's no longer. Copies that still need it will find that out.
void retire(World& world, Lock& lock, const BlockPtr& block);

// The counters by name, in order, for the control interface.
struct NamedCount {
  const char* name;
  std::int64_t value;
};
std::vector<NamedCount> counters(World& world);

}  // namespace dlferry::sim
