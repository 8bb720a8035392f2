#include "world.h"

#include <pthread.h>
#include <sys/mman.h>

#include <cstdio>
#include <cstdlib>
#include <new>

namespace dlferry::sim {

std::atomic<bool> in_child{false};
std::atomic<bool> is_exiting{false};
std::atomic<std::int64_t> calls_after_exit{0};

namespace {

World* the_world = nullptr;
const Settings* the_settings = nullptr;  // at load
Shared* the_shared = nullptr;

const Settings* read_environment() {
  const char* const text = std::getenv("DLFERRY_SIM");
  auto* const settings = new Settings;
  if (text && !settings->read(text)) {
    std::fprintf(stderr, "DLFERRY_SIM is not understood: %s\n", text);
    std::abort();
  }
  return settings;
}

// A child gets the lock in a known state. CUDA survives a fork only where it was not in use yet.
void before_fork() { the_world->mutex.lock(); }
void in_parent() { the_world->mutex.unlock(); }
void in_forked_child() {
  if (the_world->is_initialized) in_child = true;
  the_world->mutex.unlock();
}

__attribute__((constructor)) void load() {
  void* const page =
      mmap(nullptr, sizeof(Shared), PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
  if (page == MAP_FAILED) std::abort();
  the_shared = new (page) Shared;
  the_settings = read_environment();
  the_world = new World;
  pthread_atfork(before_fork, in_parent, in_forked_child);
}

void write_report(World& world) {
  if (world.settings.report.empty()) return;
  std::FILE* const file = std::fopen(world.settings.report.c_str(), "we");
  if (!file) return;
  const char* separator = "{";
  for (const NamedCount& count : counters(world)) {
    std::fprintf(file, "%s\"%s\":%lld", separator, count.name, static_cast<long long>(count.value));
    separator = ",";
  }
  std::fputs("}\n", file);
  std::fclose(file);
}

// As the real library's at exit: the contexts end, and every call returns DEINITIALIZED.
__attribute__((destructor)) void unload() {
  if (in_child) return;
  World& w = world();
  Lock lock(w.mutex);
  write_report(w);
  is_exiting = true;
  for (Context& context : w.contexts.all()) {
    lose(w, context, cu::kErrorDeinitialized);
    await_quiet(w, lock, context);
  }
}

void drop_queue(World& world, Stream& stream) {
  for (const Task& task : stream.queue) {
    ++world.counts.dropped_tasks;
    if (const auto* const record = std::get_if<RecordTask>(&task)) record->mark->reach();
    if (const auto* const copy = std::get_if<CopyTask>(&task)) let_go(*copy);
  }
  stream.queue.clear();
  stream.wake.notify_all();
  if (stream.waiting_for) stream.waiting_for->reached.notify_all();
}

}  // namespace

World::World() { apply(*the_settings); }

void World::apply(const Settings& changed) {
  settings = changed;
  log.set_capacity(static_cast<std::size_t>(settings.log));
}

World& world() noexcept { return *the_world; }
const Settings& settings_at_load() noexcept { return *the_settings; }
Shared& shared() noexcept { return *the_shared; }

void lose(World& world, Context& context, cu::Result code) {
  if (context.sticky != cu::kSuccess) return;
  context.sticky = code;
  for (const auto& [handle, stream] : world.streams.all()) {
    if (stream->context == &context) drop_queue(world, *stream);
  }
  for (const StreamPtr& stream : world.streams.destroyed()) {
    if (stream->context == &context) drop_queue(world, *stream);
  }
  for (Engine& engine : world.engines[static_cast<std::size_t>(context.device)]) {
    engine.look_again();
  }
}

void await_quiet(World& world, Lock& lock, const Context& context) {
  while (context.copying > 0) world.copy_ended.wait(lock);
}

void count_if_in_use(World& world, const Block& block) {
  const Context& context = world.contexts.all()[static_cast<std::size_t>(block.device)];
  const bool is_lost = context.sticky != cu::kSuccess;
  if ((is_lost ? block.copying : block.pending) > 0) ++world.counts.freed_in_use;
}

void retire(World& world, Lock& lock, const BlockPtr& block) {
  block->alive = false;
  world.host_memory.remove(block);
  while (block->copying > 0) world.copy_ended.wait(lock);
}

std::vector<NamedCount> counters(World& world) {
  std::int64_t streams = 0, pending = 0, threads = 0, calls = 0, retains = 0;
  const auto look_at = [&](const Stream& stream) {
    pending += static_cast<std::int64_t>(stream.queue.size()) + (stream.running ? 1 : 0);
    threads += stream.has_thread ? 1 : 0;
  };
  for (const auto& [handle, stream] : world.streams.all()) {
    look_at(*stream);
    streams += stream->foreign ? 0 : 1;
  }
  for (const StreamPtr& stream : world.streams.destroyed()) look_at(*stream);
  for (const Context& context : world.contexts.all()) retains += context.retains;
  std::array<std::int64_t, 2> at_engine{};
  for (const auto& of_device : world.engines) {
    for (std::size_t i = 0; i < 2; ++i) at_engine[i] += of_device[i].load();
  }
  std::array<std::int64_t, 4> blocks{}, bytes{};  // by kind
  for (const Blocks* known : {&world.host_memory.blocks(), &world.device_memory.blocks()}) {
    for (const auto& [address, block] : known->all()) {
      ++blocks[static_cast<std::size_t>(block->kind)];
      bytes[static_cast<std::size_t>(block->kind)] += static_cast<std::int64_t>(block->bytes);
    }
  }
  const Counts& counts = world.counts;
  for (const std::int64_t count : counts.calls) calls += count;
  return {
      {"streams", streams},
      {"events", static_cast<std::int64_t>(world.events.count())},
      {"host_allocations", blocks[1]},
      {"host_bytes", bytes[1]},
      {"registrations", blocks[2]},
      {"registered_bytes", bytes[2]},
      {"device_allocations", blocks[0]},
      {"device_bytes", bytes[0]},
      {"context_retains", retains},
      {"pending", pending},
      {"threads", threads},
      {"h2d_at_engine", at_engine[0]},
      {"d2h_at_engine", at_engine[1]},
      {"h2d_copies", counts.copies[0]},
      {"h2d_bytes", counts.bytes[0]},
      {"d2h_copies", counts.copies[1]},
      {"d2h_bytes", counts.bytes[1]},
      {"d2d_copies", counts.copies[2]},
      {"inline_copies", counts.inline_copies},
      {"captured_copies", counts.captured_copies},
      {"dropped_tasks", counts.dropped_tasks},
      {"pageable_copies", counts.pageable_copies},
      {"pageable_bytes", counts.pageable_bytes},
      {"calls_in_child", shared().calls_in_child},
      {"calls_after_exit", calls_after_exit},
      {"freed_in_use", counts.freed_in_use},
      {"invalid_handles", counts.invalid_handles},
      {"foreign_streams", counts.foreign_streams},
      {"calls", calls},
      {"faults_fired", world.faults.fired()},
      {"log_dropped", world.log.dropped()},
  };
}

}  // namespace dlferry::sim
