// A program on the simulated driver, for the tests of the simulator itself: they call its exports.
#pragma once

#include <cstring>
#include <string>
#include <thread>
#include <vector>

#include "../sim/functions.h"
#include "../sim/sim.h"
#include "check.h"

namespace dlferry::test {

// A fresh machine with a context that is current, and what the program has of it.
class Program {
 public:
  explicit Program(const char* settings = "delay_us=0") {
    dlferry_sim_abandon();
    CHECK(dlferry_sim_configure(settings) == 0);
    CHECK(cu::cuInit(0) == cu::kSuccess);
    CHECK(cu::cuDevicePrimaryCtxRetain(&context, 0) == cu::kSuccess);
    CHECK(cu::cuCtxPushCurrent_v2(context) == cu::kSuccess);
  }
  Program(const Program&) = delete;
  ~Program() {
    dlferry_sim_reset();
    for (const cu::Event event : events_) CHECK(cu::cuEventDestroy_v2(event) == cu::kSuccess);
    for (const cu::Stream stream : streams_) CHECK(cu::cuStreamDestroy_v2(stream) == cu::kSuccess);
    for (void* const data : pinned_) CHECK(cu::cuMemFreeHost(data) == cu::kSuccess);
    for (const std::uint64_t data : device_) CHECK(dlferry_sim_device_free(data) == 0);
    CHECK(cu::cuCtxPopCurrent_v2(nullptr) == cu::kSuccess);
    CHECK(cu::cuDevicePrimaryCtxRelease_v2(0) == cu::kSuccess);
    CHECK(dlferry_sim_reset() == 0);
    for (const char* name : {"streams", "events", "host_bytes", "registered_bytes", "pending",
                             "device_bytes", "threads", "context_retains"}) {
      CHECK(dlferry_sim_counter(name) == 0);
    }
  }

  cu::Stream stream(unsigned flags = cu::kStreamNonBlocking) {
    cu::Stream stream = nullptr;
    CHECK(cu::cuStreamCreateWithPriority(&stream, flags, 0) == cu::kSuccess);
    return streams_.emplace_back(stream);
  }
  cu::Event event() {
    cu::Event event = nullptr;
    CHECK(cu::cuEventCreate(&event, cu::kEventDisableTiming) == cu::kSuccess);
    return events_.emplace_back(event);
  }
  unsigned char* pinned(std::size_t bytes, int value = 0) {
    void* data = nullptr;
    CHECK(cu::cuMemHostAlloc(&data, bytes, cu::kHostAllocPortable) == cu::kSuccess);
    pinned_.push_back(data);
    return static_cast<unsigned char*>(std::memset(data, value, bytes));
  }
  std::uint64_t device(std::size_t bytes, int device = 0) {
    return device_.emplace_back(dlferry_sim_device_alloc(device, bytes));
  }

  cu::Context context = nullptr;

 private:
  std::vector<cu::Event> events_;
  std::vector<cu::Stream> streams_;
  std::vector<void*> pinned_;
  std::vector<std::uint64_t> device_;
};

inline std::uint64_t number(cu::Stream stream) { return reinterpret_cast<std::uint64_t>(stream); }

inline std::string log_text() {
  std::string text(dlferry_sim_log(nullptr, 0) + 1, '\0');
  text.resize(dlferry_sim_log(text.data(), text.size()));
  return text;
}

// Whether all of the bytes have this value; of device memory, as it is now.
inline bool is_filled(const unsigned char* data, std::size_t bytes, int value) {
  for (std::size_t i = 0; i < bytes; ++i) {
    if (data[i] != value) return false;
  }
  return true;
}
inline bool is_filled(std::uint64_t device_data, std::size_t bytes, int value) {
  std::vector<unsigned char> host(bytes);
  return dlferry_sim_peek(host.data(), device_data, bytes) == 0 &&
         is_filled(host.data(), bytes, value);
}

// Gives other threads time until `holds`.
template <class Condition>
void await(const Condition& holds) {
  while (!holds()) std::this_thread::yield();
}

}  // namespace dlferry::test
