// The simulated driver's rules: versions, contexts, streams and events, page-locked memory.
#include <dlfcn.h>
#include <sys/mman.h>

#include <string>
#include <thread>
#include <vector>

#include "sim_program.h"

namespace dlferry {
namespace {

using namespace dlferry::cu;
using test::await;
using test::is_filled;
using test::number;
using test::Program;

constexpr std::size_t kBytes = 4096;

// What a driver of a version finds for a name and a version; null for nothing.
void* address_of(const char* name, int version, std::uint32_t* status = nullptr) {
  void* found = nullptr;
  return cuGetProcAddress_v2(name, &found, version, 0, status) == kSuccess ? found : nullptr;
}

void functions_are_found_by_version() {
  const auto batch = reinterpret_cast<void*>(&cuMemcpyBatchAsync);
  const auto batch_2 = reinterpret_cast<void*>(&cuMemcpyBatchAsync_v2);
  const char* const name = "cuMemcpyBatchAsync";
  dlferry_sim_abandon();
  int version = 0;
  CHECK(cuDriverGetVersion(&version) == kSuccess && version == 13000);
  std::uint32_t status = 9;
  CHECK(address_of(name, 13000, &status) == batch_2 && status == 0);
  CHECK(address_of(name, 12080) == batch && address_of(name, 12090) == batch);
  CHECK(address_of(name, 12040, &status) == nullptr && status == 2);
  CHECK(address_of("cuFoo", 13000, &status) == nullptr && status == 1);
  CHECK(address_of("cuStreamDestroy", 13000) == reinterpret_cast<void*>(&cuStreamDestroy_v2));
  CHECK(dlferry_sim_configure("version=12.8") == 0);
  CHECK(address_of(name, 13000) == nullptr && address_of(name, 12080) == batch);
  CHECK(dlferry_sim_configure("version=12.4") == 0);
  CHECK(address_of(name, 12040, &status) == nullptr && status == 1);
  CHECK(address_of("cuGetProcAddress", 12000) == reinterpret_cast<void*>(&cuGetProcAddress_v2));
  CHECK(address_of("cuGetProcAddress", 11080) == reinterpret_cast<void*>(&cuGetProcAddress));
  CHECK(dlferry_sim_configure("hidden=cuInit,missing_result=500") == 0);
  void* found = &version;
  CHECK(cuGetProcAddress("cuInit", &found, 12000, 0) == kErrorNotFound && found == nullptr);
  CHECK(dlferry_sim_configure("version=11.8") == 0);
  CHECK(cuGetProcAddress_v2("cuInit", &found, 11080, 0, nullptr) == kErrorNotFound);
  dlferry_sim_reset();
}

void an_old_driver_lacks_what_is_newer() {
  void* const library = dlopen(DLFERRY_SIM_OLD_LIBRARY, RTLD_NOW | RTLD_LOCAL);
  CHECK(library != nullptr);
  CHECK(dlsym(library, "cuGetProcAddress") != nullptr);
  CHECK(dlsym(library, "cuGetProcAddress") != reinterpret_cast<void*>(&cuGetProcAddress));
  CHECK(dlsym(library, "cuGetProcAddress_v2") == nullptr);
  CHECK(dlsym(library, "cuMemcpyBatchAsync") == nullptr);
  int version = 0;
  auto* const ask = reinterpret_cast<Fn::cuDriverGetVersion*>(dlsym(library, "cuDriverGetVersion"));
  CHECK(ask(&version) == kSuccess && version == 11080);
}

void settings_are_checked() {
  for (const char* wrong : {"delay_us", "delay_us=", "delay_us=x", "nonsense=1", "version=12.x"}) {
    CHECK(dlferry_sim_configure(wrong) == -1);
  }
  CHECK(dlferry_sim_counter("nonsense") == -1 && dlferry_sim_calls("cuNonsense") == -1);
  CHECK(dlferry_sim_fail("cuNonsense", 1, 1, 0) == -1);
}

void nothing_works_before_init_or_without_a_context() {
  dlferry_sim_abandon();
  int count = 0;
  Context context = nullptr;
  Event event = nullptr;
  CHECK(cuDeviceGetCount(&count) == kErrorNotInitialized);
  CHECK(cuEventCreate(&event, 0) == kErrorNotInitialized);
  for (const Result code : {kErrorNoDevice, kErrorSystemDriverMismatch, kErrorUnknown}) {
    const std::string setting = "init_result=" + std::to_string(code);
    CHECK(dlferry_sim_configure(setting.c_str()) == 0 && cuInit(0) == code);
  }
  CHECK(dlferry_sim_configure("init_result=0,devices=0") == 0 && cuInit(0) == kErrorNoDevice);
  CHECK(dlferry_sim_configure("devices=2") == 0 && cuInit(1) == kErrorInvalidValue);
  CHECK(cuInit(0) == kSuccess && cuDeviceGetCount(&count) == kSuccess && count == 2);
  CHECK(cuEventCreate(&event, 0) == kErrorInvalidContext);
  CHECK(cuCtxGetCurrent(&context) == kSuccess && context == nullptr);
  CHECK(cuCtxPopCurrent_v2(&context) == kErrorInvalidContext);
  CHECK(cuDevicePrimaryCtxRetain(&context, 2) == kErrorInvalidDevice);
  CHECK(cuDevicePrimaryCtxRetain(&context, 1) == kSuccess);
  CHECK(cuCtxPushCurrent_v2(context) == kSuccess);
  CHECK(cuEventCreate(&event, 0) == kSuccess && cuEventDestroy_v2(event) == kSuccess);
  CHECK(cuEventDestroy_v2(event) == kErrorInvalidHandle);
  CHECK(dlferry_sim_counter("invalid_handles") == 1);
  std::thread([&] { CHECK(cuEventCreate(&event, 0) == kErrorInvalidContext); }).join();
  CHECK(cuDevicePrimaryCtxRelease_v2(1) == kSuccess);
  CHECK(cuDevicePrimaryCtxRelease_v2(1) == kErrorInvalidContext);
  CHECK(cuEventCreate(&event, 0) == kErrorInvalidContext);  // current, but no longer there
  CHECK(cuCtxPopCurrent_v2(nullptr) == kSuccess);
  CHECK(cuCtxPushCurrent_v2(context) == kErrorInvalidContext);
}

void each_device_has_its_own_streams_and_events() {
  Program program("devices=2,delay_us=0");
  const Stream stream = program.stream();
  const Event event = program.event();
  Context second = nullptr;
  CHECK(cuDevicePrimaryCtxRetain(&second, 1) == kSuccess);
  CHECK(cuCtxPushCurrent_v2(second) == kSuccess);
  const Event foreign = program.event();
  const Stream there = program.stream();
  CHECK(cuEventRecord(foreign, stream) == kErrorInvalidHandle);
  CHECK(cuEventRecord(foreign, nullptr) == kSuccess);  // the current device's null stream
  CHECK(cuEventRecord(event, nullptr) == kErrorInvalidHandle);
  CHECK(cuStreamWaitEvent(there, event, 0) == kSuccess);  // across devices
  CHECK(dlferry_sim_counter("foreign_streams") == 1);
  char id[16] = {};
  CHECK(cuDeviceGetPCIBusId(id, 16, 1) == kSuccess && std::string(id) == "0000:D1:00.0");
  CHECK(cuCtxPopCurrent_v2(nullptr) == kSuccess);
  CHECK(cuDevicePrimaryCtxRelease_v2(1) == kSuccess);
}

void events_stand_for_what_was_recorded_last() {
  Program program;
  const Stream first = program.stream(), second = program.stream(), third = program.stream();
  const Event event = program.event();
  CHECK(cuEventQuery(event) == kSuccess && cuEventSynchronize(event) == kSuccess);
  const std::uint64_t gate = dlferry_sim_gate(number(first));
  const std::uint64_t gate_2 = dlferry_sim_gate(number(second));
  CHECK(cuEventRecord(event, first) == kSuccess && cuEventQuery(event) == kErrorNotReady);
  CHECK(cuStreamWaitEvent(third, event, 0) == kSuccess);  // for the first stream
  CHECK(cuEventRecord(event, second) == kSuccess);        // replaces what it stood for
  CHECK(dlferry_sim_stream_is_idle(number(third)) == 0);
  CHECK(dlferry_sim_open(gate) == 0);
  CHECK(cuStreamSynchronize(third) == kSuccess && cuEventQuery(event) == kErrorNotReady);
  CHECK(dlferry_sim_open(gate_2) == 0);
  CHECK(cuEventSynchronize(event) == kSuccess && cuEventQuery(event) == kSuccess);
}

void destroyed_streams_finish_their_work() {
  Program program;
  unsigned char* const host = program.pinned(kBytes, 5);
  const std::uint64_t data = program.device(kBytes);
  const Event event = program.event();
  Stream stream = nullptr;
  CHECK(cuStreamCreateWithPriority(&stream, kStreamNonBlocking, -5) == kSuccess);
  const std::uint64_t gate = dlferry_sim_gate(number(stream));
  CHECK(cuMemcpyHtoDAsync_v2(data, host, kBytes, stream) == kSuccess);
  CHECK(cuEventRecord(event, stream) == kSuccess && cuStreamDestroy_v2(stream) == kSuccess);
  CHECK(cuStreamSynchronize(stream) == kErrorInvalidHandle && dlferry_sim_counter("streams") == 0);
  CHECK(dlferry_sim_open(gate) == 0 && cuEventSynchronize(event) == kSuccess);
  CHECK(is_filled(data, kBytes, 5));
  CHECK(cuStreamDestroy_v2(nullptr) == kErrorInvalidHandle);
}

void the_null_stream_waits_for_blocking_streams_only() {
  Program program("delay_us=0,inline_bytes=0");
  const Stream blocking = program.stream(0), free = program.stream();
  unsigned char* const host = program.pinned(kBytes, 5);
  const std::uint64_t data = program.device(kBytes);
  const std::uint64_t gate = dlferry_sim_gate(number(blocking));
  const Event event = program.event();
  CHECK(cuMemcpyHtoDAsync_v2(data, host, kBytes, free) == kSuccess);
  CHECK(cuStreamSynchronize(free) == kSuccess);
  CHECK(cuEventRecord(event, nullptr) == kSuccess && cuEventQuery(event) == kErrorNotReady);
  CHECK(dlferry_sim_open(gate) == 0 && cuEventSynchronize(event) == kSuccess);
  const std::uint64_t null_gate = dlferry_sim_gate(1);  // its other name
  CHECK(cuEventRecord(event, blocking) == kSuccess && cuEventQuery(event) == kErrorNotReady);
  CHECK(cuEventRecord(event, free) == kSuccess && cuEventSynchronize(event) == kSuccess);
  const Stream per_thread = reinterpret_cast<Stream>(std::uint64_t{2});
  CHECK(cuEventRecord(event, per_thread) == kSuccess && cuEventQuery(event) == kErrorNotReady);
  CHECK(dlferry_sim_open(null_gate) == 0 && cuStreamSynchronize(nullptr) == kSuccess);
  CHECK(cuEventSynchronize(event) == kSuccess);
}

void page_locked_memory() {
  Program program("delay_us=0,host_limit=100000");
  std::vector<unsigned char> memory(40960);
  auto* const data = reinterpret_cast<unsigned char*>(
      (reinterpret_cast<std::uintptr_t>(memory.data()) + 4095) / 4096 * 4096);
  CHECK(cuMemHostRegister_v2(data + 100, 8192, kHostRegisterPortable) == kSuccess);
  CHECK(cuMemHostRegister_v2(data + 4096, 10, 0) == kErrorHostMemoryAlreadyRegistered);
  CHECK(cuMemHostRegister_v2(data + 8300, 10, 0) == kErrorHostMemoryAlreadyRegistered);  // its page
  CHECK(cuMemHostRegister_v2(data + 12288, 10, 0) == kSuccess);
  CHECK(cuMemHostUnregister(data) == kErrorHostMemoryNotRegistered);
  CHECK(dlferry_sim_counter("registered_bytes") == 8202);

  PointerAttribute names[] = {kMemoryType, kIsManaged, kDeviceOrdinal, kRangeStart, kRangeSize};
  unsigned type = 9, managed = 9, ordinal = 9;
  DevicePtr start = 9;
  std::size_t size = 9;
  void* values[] = {&type, &managed, &ordinal, &start, &size};
  const auto ask = [&](const void* pointer) {
    return cuPointerGetAttributes(5, names, values, reinterpret_cast<DevicePtr>(pointer));
  };
  CHECK(ask(data + 8291) == kSuccess && type == kMemoryHost && managed == 0 && ordinal == 0);
  CHECK(start == reinterpret_cast<DevicePtr>(data + 100) && size == 8192);
  CHECK(ask(data + 8292) == kSuccess && type == 0);  // unknown, which is no error
  CHECK(start == 0 && size == 0);
  const std::uint64_t device = program.device(100);
  CHECK(ask(reinterpret_cast<void*>(device + 99)) == kSuccess && type == kMemoryDevice);
  CHECK(cuMemHostUnregister(data + 100) == kSuccess && ask(data + 100) == kSuccess && type == 0);
  CHECK(cuMemHostUnregister(data + 12288) == kSuccess);

  void* const pages = mmap(nullptr, 8192, PROT_READ, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  CHECK(cuMemHostRegister_v2(pages, 8192, 0) == kErrorInvalidValue);
  CHECK(cuMemHostRegister_v2(pages, 8192, kHostRegisterReadOnly) == kSuccess);
  CHECK(cuMemHostUnregister(pages) == kSuccess && munmap(pages, 8192) == 0);
  CHECK(cuMemHostRegister_v2(pages, 8192, kHostRegisterReadOnly) == kErrorInvalidValue);
  CHECK(dlferry_sim_configure("read_only_register=0") == 0);
  CHECK(cuMemHostRegister_v2(data, 10, kHostRegisterReadOnly) == kErrorNotSupported);
  CHECK(dlferry_sim_configure("register_result=801") == 0);
  CHECK(cuMemHostRegister_v2(data, 10, 0) == kErrorNotSupported);

  void* pinned = nullptr;
  CHECK(cuMemHostAlloc(&pinned, 100'001, 0) == kErrorOutOfMemory);
  CHECK(program.pinned(60'000) != nullptr);
  CHECK(cuMemHostAlloc(&pinned, 40'001, 0) == kErrorOutOfMemory);
  CHECK(ask(data) == kSuccess && cuMemFreeHost(data) == kErrorInvalidValue);
  CHECK(dlferry_sim_counter("host_allocations") == 1);
}

// Freeing page-locked memory waits for the device; memory that a copy still needs is misuse.
void freeing_host_memory_waits() {
  Program program;
  const Stream stream = program.stream();
  const std::uint64_t data = program.device(kBytes);
  void* host = nullptr;
  CHECK(cuMemHostAlloc(&host, kBytes, 0) == kSuccess);
  std::memset(host, 3, kBytes);
  const std::uint64_t gate = dlferry_sim_gate(number(stream));
  CHECK(cuMemcpyHtoDAsync_v2(data, host, kBytes, stream) == kSuccess);
  std::thread other([&] {
    CHECK(cuCtxPushCurrent_v2(program.context) == kSuccess);
    CHECK(cuMemFreeHost(host) == kSuccess);
  });
  await([] { return dlferry_sim_counter("freed_in_use") == 1; });
  CHECK(dlferry_sim_counter("host_allocations") == 1);
  CHECK(dlferry_sim_open(gate) == 0);
  other.join();
  CHECK(is_filled(data, kBytes, 3));
}

}  // namespace
}  // namespace dlferry

int main() {
  dlferry::functions_are_found_by_version();
  dlferry::an_old_driver_lacks_what_is_newer();
  dlferry::settings_are_checked();
  dlferry::nothing_works_before_init_or_without_a_context();
  dlferry::each_device_has_its_own_streams_and_events();
  dlferry::events_stand_for_what_was_recorded_last();
  dlferry::destroyed_streams_finish_their_work();
  dlferry::the_null_stream_waits_for_blocking_streams_only();
  dlferry::page_locked_memory();
  dlferry::freeing_host_memory_waits();
  return dlferry::test::finish();
}
