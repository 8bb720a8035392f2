#include "cuda/handles.h"

#include <array>
#include <atomic>
#include <mutex>
#include <vector>

namespace dlferry::cuda {
namespace {

constexpr std::size_t kMostDevices = 64;

// Retained, by device. A forked child has no use for them, and never asks.
std::array<std::atomic<cu::Context>, kMostDevices> primary_contexts{};

// Events that nobody uses at the moment.
class EventPool {
 public:
  EventPool() { idle_.reserve(kMostIdle); }

  // Null when there is none.
  cu::Event take() noexcept {
    const std::lock_guard lock(mutex_);
    if (idle_.empty()) return nullptr;
    const cu::Event event = idle_.back();
    idle_.pop_back();
    return event;
  }

  // False when the pool is full.
  bool put(cu::Event event) noexcept {
    const std::lock_guard lock(mutex_);
    if (idle_.size() == kMostIdle) return false;
    idle_.push_back(event);
    return true;
  }

 private:
  static constexpr std::size_t kMostIdle = 256;
  std::mutex mutex_;
  std::vector<cu::Event> idle_;
};

// Made when first needed and leaked on purpose: events are returned until the process ends.
std::array<std::atomic<EventPool*>, kMostDevices> event_pools{};

void check_device(int device) {
  if (device < 0 || static_cast<std::size_t>(device) >= kMostDevices) {
    throw Error("cuDeviceGet", cu::kErrorInvalidDevice);
  }
}

EventPool& event_pool(int device) {
  std::atomic<EventPool*>& place = event_pools[static_cast<std::size_t>(device)];
  EventPool* existing = place.load(std::memory_order_acquire);
  if (existing) return *existing;
  auto* const made = new EventPool;
  if (place.compare_exchange_strong(existing, made, std::memory_order_acq_rel)) return *made;
  delete made;  // another thread was first
  return *existing;
}

void destroy(cu::Event event, int device) noexcept {
  const cu::Context context = primary_contexts[static_cast<std::size_t>(device)];
  const ContextGuard guard(context, std::nothrow);
  (void)try_call<&Driver::cuEventDestroy_v2>(event);
}

}  // namespace

cu::Context primary_context(int device) {
  const Driver& cuda = driver();  // throws in a forked child
  check_device(device);
  std::atomic<cu::Context>& place = primary_contexts[static_cast<std::size_t>(device)];
  cu::Context existing = place.load(std::memory_order_acquire);
  if (existing) return existing;
  cu::Device handle = 0;
  call<&Driver::cuDeviceGet>(&handle, device);
  cu::Context retained = nullptr;
  call<&Driver::cuDevicePrimaryCtxRetain>(&retained, handle);
  if (place.compare_exchange_strong(existing, retained, std::memory_order_acq_rel)) return retained;
  (void)cuda.cuDevicePrimaryCtxRelease_v2(handle);  // another thread was first
  return existing;
}

int device_of(cu::Context context) noexcept {
  if (!context) return -1;
  for (std::size_t device = 0; device < kMostDevices; ++device) {
    if (primary_contexts[device].load(std::memory_order_acquire) == context) {
      return static_cast<int>(device);
    }
  }
  return -1;
}

ContextGuard::ContextGuard(cu::Context context) {
  cu::Context current = nullptr;
  call<&Driver::cuCtxGetCurrent>(&current);
  if (current == context) return;
  call<&Driver::cuCtxPushCurrent_v2>(context);
  pushed_ = true;
}

ContextGuard::ContextGuard(cu::Context context, std::nothrow_t) noexcept {
  cu::Context current = nullptr;
  if (!context) return;
  if (try_call<&Driver::cuCtxGetCurrent>(&current) == cu::kSuccess && current == context) return;
  // Tried twice: what is not released now never will be.
  for (int i = 0; i < 2 && !pushed_; ++i) {
    pushed_ = try_call<&Driver::cuCtxPushCurrent_v2>(context) == cu::kSuccess;
  }
}

ContextGuard::~ContextGuard() {
  cu::Context popped = nullptr;
  if (pushed_) (void)try_call<&Driver::cuCtxPopCurrent_v2>(&popped);
}

Stream::Stream(Priority priority) {
  int least = 0, greatest = 0;
  call<&Driver::cuCtxGetCurrent>(&context_);
  call<&Driver::cuCtxGetStreamPriorityRange>(&least, &greatest);
  call<&Driver::cuStreamCreateWithPriority>(&stream_, cu::kStreamNonBlocking,
                                            priority == Priority::kHighest ? greatest : 0);
}

Stream::~Stream() {
  if (!stream_) return;
  const ContextGuard guard(context_, std::nothrow);
  (void)try_call<&Driver::cuStreamDestroy_v2>(stream_);
}

Event::Event(int device) : device_(device) {
  (void)driver();  // throws in a forked child
  check_device(device);
  event_ = event_pool(device).take();
  if (event_) return;
  call<&Driver::cuEventCreate>(&event_, cu::kEventBlockingSync | cu::kEventDisableTiming);
}

Event::~Event() {
  // It may be recorded again even while its last record is pending.
  if (!event_ || !loaded_driver()) return;
  EventPool* const pool = event_pools[static_cast<std::size_t>(device_)];
  if (!pool->put(event_)) destroy(event_, device_);
}

void Event::drop_idle() noexcept {
  if (!loaded_driver()) return;
  for (std::size_t device = 0; device < kMostDevices; ++device) {
    EventPool* const pool = event_pools[device];
    if (!pool) continue;
    while (const cu::Event event = pool->take()) destroy(event, static_cast<int>(device));
  }
}

void Event::record(cu::Stream stream) { call<&Driver::cuEventRecord>(event_, stream); }

void Event::make_wait(cu::Stream stream) const {
  call<&Driver::cuStreamWaitEvent>(stream, event_, 0U);
}

bool Event::is_done() const {
  const cu::Result result = driver().cuEventQuery(event_);
  if (result == cu::kErrorNotReady) return false;
  if (result != cu::kSuccess) throw Error("cuEventQuery", result);
  return true;
}

void Event::synchronize() const { call<&Driver::cuEventSynchronize>(event_); }

bool is_capturing(cu::Stream stream) {
  cu::CaptureStatus status = cu::kCaptureNone;
  const cu::Result result = driver().cuStreamIsCapturing(stream, &status);
  // The null stream, while another stream that waits for it is being captured.
  if (result == cu::kErrorStreamCaptureImplicit) return true;
  if (result != cu::kSuccess) throw Error("cuStreamIsCapturing", result);
  return status != cu::kCaptureNone;
}

RelaxedCapture::RelaxedCapture() { call<&Driver::cuThreadExchangeStreamCaptureMode>(&before_); }

RelaxedCapture::RelaxedCapture(std::nothrow_t) noexcept
    : changed_(try_call<&Driver::cuThreadExchangeStreamCaptureMode>(&before_) == cu::kSuccess) {}

RelaxedCapture::~RelaxedCapture() {
  if (changed_) (void)try_call<&Driver::cuThreadExchangeStreamCaptureMode>(&before_);
}

}  // namespace dlferry::cuda
