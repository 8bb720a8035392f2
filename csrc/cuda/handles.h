// Handles: one CUDA object each. Move-only; they let go without throwing and without waiting. In a
// forked child they forget what they have: it is the parent's.
#pragma once

#include <cstddef>
#include <new>
#include <utility>

#include "cuda/driver.h"
#include "cuda/host_memory.h"  // HostAllocation is one too

namespace dlferry::cuda {

// The primary context of a device, which is the one torch uses. Retained once and never released:
// torch's streams and memory live in it until the process ends. Throws Error or Unavailable.
[[nodiscard]] cu::Context primary_context(int device);

// The device whose primary context, as returned above, this is; -1 where it is none of them.
[[nodiscard]] int device_of(cu::Context context) noexcept;

// Makes a context current on this thread for as long as it lives. Cheap when it is already.
class ContextGuard {
 public:
  explicit ContextGuard(cu::Context context);  // throws Error
  explicit ContextGuard(int device) : ContextGuard(primary_context(device)) {}
  // For those that let go: where it fails, what needs the context fails too.
  ContextGuard(cu::Context context, std::nothrow_t) noexcept;
  ContextGuard(const ContextGuard&) = delete;
  ~ContextGuard();

 private:
  bool pushed_ = false;
};

// A stream of our own, in the current context. It does not synchronise with the null stream.
class Stream {
 public:
  Stream() noexcept = default;
  enum class Priority { kNormal, kHighest };
  explicit Stream(Priority priority);  // throws Error
  Stream(Stream&& other) noexcept { *this = std::move(other); }
  Stream& operator=(Stream&& other) noexcept {
    std::swap(stream_, other.stream_);
    std::swap(context_, other.context_);
    return *this;
  }
  ~Stream();  // work in it goes on

  [[nodiscard]] cu::Stream get() const noexcept { return stream_; }

 private:
  cu::Stream stream_ = nullptr;
  cu::Context context_ = nullptr;
};

// An event without timing, taken from a pool of its device and returned to it. Waiting for it puts
// the thread to sleep. The current context is the device's wherever an event is made or used.
class Event {
 public:
  Event() noexcept = default;
  explicit Event(int device);  // throws Error
  Event(Event&& other) noexcept { *this = std::move(other); }
  Event& operator=(Event&& other) noexcept {
    std::swap(event_, other.event_);
    std::swap(device_, other.device_);
    return *this;
  }
  ~Event();  // what was recorded may still be pending

  [[nodiscard]] explicit operator bool() const noexcept { return event_ != nullptr; }
  [[nodiscard]] cu::Event get() const noexcept { return event_; }

  void record(cu::Stream stream);           // throws Error
  void make_wait(cu::Stream stream) const;  // `stream` waits for what was recorded; throws Error
  [[nodiscard]] bool is_done() const;       // throws Error
  void synchronize() const;                 // throws Error

  // Destroys the events that wait in the pools.
  static void drop_idle() noexcept;

 private:
  cu::Event event_ = nullptr;
  int device_ = 0;
};

// Whether work that is submitted to `stream` is captured into a graph, or would break a capture
// that is under way. Throws Error.
[[nodiscard]] bool is_capturing(cu::Stream stream);

// While it lives, this thread's calls do not invalidate the captures of others.
class RelaxedCapture {
 public:
  RelaxedCapture();  // throws Error
  explicit RelaxedCapture(std::nothrow_t) noexcept;
  RelaxedCapture(const RelaxedCapture&) = delete;
  ~RelaxedCapture();

 private:
  cu::CaptureMode before_ = cu::kCaptureRelaxed;
  bool changed_ = true;
};

// Both of the above: what a call of ours needs, on whatever thread.
class DriverScope {
 public:
  explicit DriverScope(int device) : context_(device) {}  // throws Error or Unavailable

 private:
  ContextGuard context_;
  RelaxedCapture relaxed_;
};

}  // namespace dlferry::cuda
