// The control interface: other people's streams, kernels, and capture.
#include <utility>

#include "copies.h"
#include "sim.h"
#include "world.h"

namespace {

using namespace dlferry::sim;

// For the default streams: those of the thread's context, or else of device 0.
Context* context_here(World& w) {
  Context* const current = this_thread().current();
  return current ? current : w.contexts.of_device(0, w.settings.devices);
}

StreamPtr find(World& w, std::uint64_t handle) { return w.streams.find(handle, context_here(w)); }

// A block of device memory that holds the range, as an operand.
bool on_device(World& w, std::uint64_t pointer, std::size_t bytes, Operand& operand) {
  return find_operand(w, pointer, bytes, operand) == dlferry::cu::kSuccess && operand.on_device();
}

// Submits what `make` returns to a stream.
template <class Make>
int enqueue(std::uint64_t handle, const Make& make) {
  if (in_child) return -1;
  World& w = world();
  Lock lock(w.mutex);
  const StreamPtr stream = find(w, handle);
  Task task;
  if (!stream || !make(w, task)) return -1;
  submit(w, lock, *stream, std::move(task));
  return 0;
}

}  // namespace

extern "C" {

uint64_t dlferry_sim_stream_create(int device, int non_blocking) {
  if (in_child) return 0;
  World& w = world();
  const Lock lock(w.mutex);
  Context* const context = w.contexts.of_device(device, w.settings.devices);
  if (!context) return 0;
  context->foreign_use = true;
  return w.streams.create(*context, non_blocking == 0, true)->handle;
}

int dlferry_sim_stream_destroy(uint64_t handle) {
  if (in_child || handle <= 2) return -1;
  World& w = world();
  const Lock lock(w.mutex);
  const StreamPtr stream = find(w, handle);
  if (!stream) return -1;
  w.streams.destroy(stream);
  return 0;
}

int dlferry_sim_stream_wait(uint64_t handle) {
  if (in_child) return -1;
  World& w = world();
  Lock lock(w.mutex);
  const StreamPtr stream = find(w, handle);
  if (!stream) return -1;
  drain(w, lock, *stream);
  // Of a healthy one nobody says when its bytes have moved, and others may go on for ever.
  if (stream->context->sticky != dlferry::cu::kSuccess) await_quiet(w, lock, *stream->context);
  return static_cast<int>(stream->context->sticky);
}

int dlferry_sim_stream_is_idle(uint64_t handle) {
  if (in_child) return -1;
  World& w = world();
  const Lock lock(w.mutex);
  const StreamPtr stream = find(w, handle);
  if (!stream) return -1;
  return stream->is_idle() ? 1 : 0;
}

int dlferry_sim_kernel(uint64_t stream, uint64_t microseconds) {
  return enqueue(stream, [&](World&, Task& task) {
    task = KernelTask{static_cast<std::int64_t>(microseconds) * 1000};
    return true;
  });
}

uint64_t dlferry_sim_gate(uint64_t stream) {
  std::uint64_t gate = 0;
  enqueue(stream, [&](World& w, Task& task) {
    const auto mark = std::make_shared<Mark>();
    gate = w.new_handle();
    w.gates.emplace(gate, mark);
    task = WaitTask{mark};
    return true;
  });
  return gate;
}

int dlferry_sim_open(uint64_t gate) {
  if (in_child) return -1;
  World& w = world();
  const Lock lock(w.mutex);
  const auto found = w.gates.find(gate);
  if (found == w.gates.end()) return -1;
  found->second->reach();
  w.gates.erase(found);
  return 0;
}

int dlferry_sim_fill(uint64_t stream, uint64_t device_pointer, int value, size_t bytes) {
  return enqueue(stream, [&](World& w, Task& task) {
    Operand destination;
    if (!on_device(w, device_pointer, bytes, destination)) return false;
    task = FillTask{destination, bytes, value};
    return true;
  });
}

int dlferry_sim_copy(uint64_t stream, uint64_t destination, uint64_t source, size_t bytes) {
  return enqueue(stream, [&](World& w, Task& task) {
    Operand to, from;
    if (!on_device(w, destination, bytes, to) || !on_device(w, source, bytes, from)) return false;
    task = make_copy(w, to, from, bytes);
    return true;
  });
}

int dlferry_sim_stall(int device, int direction, int stalled) {
  if (in_child || direction < 0 || direction > 1) return -1;
  World& w = world();
  const Lock lock(w.mutex);
  if (!w.contexts.of_device(device, w.settings.devices)) return -1;
  w.engines[static_cast<std::size_t>(device)][static_cast<std::size_t>(direction)].stall(stalled !=
                                                                                         0);
  return 0;
}

int dlferry_sim_capture_begin(uint64_t handle, int mode) {
  if (in_child || mode < 0 || mode > 2) return -1;
  World& w = world();
  const Lock lock(w.mutex);
  const StreamPtr stream = find(w, handle);
  if (!stream || stream->capture) return -1;
  w.captures.begin(*stream, static_cast<dlferry::cu::CaptureMode>(mode), this_thread());
  return 0;
}

int dlferry_sim_capture_end(uint64_t handle, int* copies) {
  if (in_child) return -1;
  World& w = world();
  const Lock lock(w.mutex);
  const StreamPtr stream = find(w, handle);
  if (!stream || !stream->capture) return -1;
  const CapturePtr capture = stream->capture;
  w.captures.end(*capture);
  if (copies) *copies = capture->copies;
  return capture->valid ? 0 : static_cast<int>(dlferry::cu::kErrorStreamCaptureInvalidated);
}

int dlferry_sim_capture_status(uint64_t handle) {
  if (in_child) return -1;
  World& w = world();
  const Lock lock(w.mutex);
  const StreamPtr stream = find(w, handle);
  if (!stream) return -1;
  return stream->capture ? static_cast<int>(stream->capture->status()) : 0;
}

}  // extern "C"
