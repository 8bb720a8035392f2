// The simulated driver when things go wrong: capture, planned faults, lost contexts, fork, reset.
#include <sys/wait.h>
#include <unistd.h>

#include <cstdlib>
#include <string>
#include <thread>

#include "sim_program.h"

namespace dlferry {
namespace {

using namespace dlferry::cu;
using test::await;
using test::is_filled;
using test::number;
using test::Program;

constexpr std::size_t kBytes = 4096;
constexpr auto kErrorStreamCaptureIsolation = static_cast<Result>(905);
constexpr auto kErrorCapturedEvent = static_cast<Result>(907);

void captures_prohibit_unsafe_calls() {
  Program program;
  const Stream captured = program.stream(), other = program.stream();
  const Event event = program.event();
  unsigned char* const host = program.pinned(kBytes, 1);
  const std::uint64_t data = program.device(kBytes);
  CaptureStatus status = kCaptureNone;
  int copies = 0;
  const auto begin = [&](int mode) {
    CHECK(dlferry_sim_capture_begin(number(captured), mode) == 0);
  };
  const auto end = [&] { return dlferry_sim_capture_end(number(captured), &copies); };
  const auto in_another_thread = [&](CaptureMode mode) {
    Result result = kSuccess;
    std::thread([&] {
      CHECK(cuThreadExchangeStreamCaptureMode(&mode) == kSuccess && mode == kCaptureGlobal);
      result = cuEventQuery(event);
    }).join();
    return result;
  };
  begin(kCaptureGlobal);
  CHECK(cuStreamIsCapturing(captured, &status) == kSuccess && status == kCaptureActive);
  CHECK(cuMemcpyHtoDAsync_v2(data, host, kBytes, captured) == kSuccess);
  CHECK(cuMemcpyHtoDAsync_v2(data + 1, host, 1, other) == kSuccess);
  CHECK(in_another_thread(kCaptureThread) == kSuccess);
  CHECK(in_another_thread(kCaptureRelaxed) == kSuccess);
  CHECK(end() == 0 && copies == 1 && is_filled(data, 1, 0xA5) && is_filled(data + 1, 1, 1));

  begin(kCaptureGlobal);
  CHECK(in_another_thread(kCaptureGlobal) == kErrorStreamCaptureUnsupported);
  CHECK(cuStreamIsCapturing(captured, &status) == kSuccess && status == kCaptureInvalid);
  CHECK(cuMemcpyHtoDAsync_v2(data, host, 1, captured) == kErrorStreamCaptureInvalidated);
  CHECK(end() == kErrorStreamCaptureInvalidated);

  begin(kCaptureThread);
  CHECK(in_another_thread(kCaptureGlobal) == kSuccess);
  CHECK(cuMemFreeHost(host) == kErrorStreamCaptureUnsupported);  // by the thread that captures
  CHECK(end() == kErrorStreamCaptureInvalidated && dlferry_sim_counter("host_allocations") == 1);

  begin(kCaptureRelaxed);
  void* pinned = nullptr;
  CHECK(cuMemHostAlloc(&pinned, 1, 0) == kSuccess && cuMemFreeHost(pinned) == kSuccess);
  CHECK(cuEventRecord(event, captured) == kSuccess);
  CHECK(cuStreamWaitEvent(other, event, 0) == kSuccess);  // joins
  CHECK(dlferry_sim_capture_status(number(other)) == kCaptureActive);
  CHECK(cuEventQuery(event) == kErrorCapturedEvent);
  CHECK(end() == kErrorStreamCaptureInvalidated);
  CHECK(dlferry_sim_capture_status(number(other)) == kCaptureNone);

  begin(kCaptureGlobal);  // by a thread that says it knows what it does
  CaptureMode mode = kCaptureRelaxed;
  CHECK(cuThreadExchangeStreamCaptureMode(&mode) == kSuccess);
  CHECK(cuMemHostAlloc(&pinned, 1, 0) == kSuccess && cuMemFreeHost(pinned) == kSuccess);
  CHECK(cuStreamSynchronize(captured) == kErrorStreamCaptureUnsupported);  // not even then
  CHECK(cuThreadExchangeStreamCaptureMode(&mode) == kSuccess && mode == kCaptureRelaxed);
  CHECK(end() == kErrorStreamCaptureInvalidated);

  begin(kCaptureRelaxed);
  CHECK(cuEventRecord(event, other) == kSuccess);
  CHECK(cuStreamWaitEvent(captured, event, 0) == kErrorStreamCaptureIsolation);
  CHECK(end() == kErrorStreamCaptureInvalidated);

  const Stream blocking = program.stream(0);
  CHECK(dlferry_sim_capture_begin(number(blocking), kCaptureRelaxed) == 0);
  CHECK(cuStreamIsCapturing(nullptr, &status) == kErrorStreamCaptureImplicit);
  CHECK(dlferry_sim_capture_status(number(blocking)) == kCaptureActive);
  CHECK(cuMemcpyHtoDAsync_v2(data, host, 1, nullptr) == kErrorStreamCaptureImplicit);
  CHECK(dlferry_sim_capture_end(number(blocking), nullptr) == kErrorStreamCaptureInvalidated);
}

void faults_are_planned_by_call() {
  Program program;
  const Stream stream = program.stream();
  Event event = nullptr;
  CHECK(dlferry_sim_fail("cuEventCreate", 2, kErrorOutOfMemory, 0) == 0);
  CHECK(dlferry_sim_fail("cuEventDestroy", 1, kErrorUnknown, 0) == 0);
  const std::int64_t before = dlferry_sim_calls("cuEventCreate");
  CHECK(cuEventCreate(&event, 0) == kSuccess);
  Event none = nullptr;
  CHECK(cuEventCreate(&none, 0) == kErrorOutOfMemory && none == nullptr);
  CHECK(cuEventDestroy_v2(event) == kErrorUnknown);  // and is destroyed all the same
  CHECK(dlferry_sim_counter("events") == 0 && dlferry_sim_counter("faults_fired") == 2);
  CHECK(dlferry_sim_calls("cuEventCreate") == before + 2);
  CHECK(dlferry_sim_calls("cuEventDestroy_v2") == dlferry_sim_calls("cuEventDestroy"));
  CHECK(dlferry_sim_fail("cuStreamSynchronize", 0, kErrorLaunchFailed, 0) == 0);
  for (int i = 0; i < 3; ++i) CHECK(cuStreamSynchronize(stream) == kErrorLaunchFailed);
}

void sticky_errors_end_the_context() {
  Program program;
  const Stream stream = program.stream();
  unsigned char* const host = program.pinned(kBytes, 1);
  const std::uint64_t data = program.device(kBytes);
  Event event = nullptr;
  CHECK(cuEventCreate(&event, 0) == kSuccess);
  const std::uint64_t gate = dlferry_sim_gate(number(stream));
  CHECK(cuMemcpyHtoDAsync_v2(data, host, kBytes, stream) == kSuccess);
  CHECK(cuEventRecord(event, stream) == kSuccess);
  std::thread waiting([&] {
    CHECK(cuCtxPushCurrent_v2(program.context) == kSuccess);
    CHECK(cuEventSynchronize(event) == kErrorIllegalAddress);
  });
  await([] { return dlferry_sim_calls("cuEventSynchronize") == 1; });
  CHECK(dlferry_sim_fail("cuStreamWaitEvent", 1, kErrorIllegalAddress, 1) == 0);
  CHECK(cuStreamWaitEvent(stream, event, 0) == kErrorIllegalAddress);
  waiting.join();
  CHECK(cuEventQuery(event) == kErrorIllegalAddress);
  CHECK(cuMemcpyHtoDAsync_v2(data, host, kBytes, stream) == kErrorIllegalAddress);
  CHECK(cuStreamSynchronize(stream) == kErrorIllegalAddress);
  CHECK(dlferry_sim_counter("dropped_tasks") >= 2 && is_filled(data, kBytes, 0xA5));
  CHECK(cuEventDestroy_v2(event) == kErrorIllegalAddress && dlferry_sim_counter("events") == 0);
  await([] { return dlferry_sim_counter("pending") == 0; });  // nothing waits any more
  CHECK(dlferry_sim_open(gate) == 0);
}

// An engine's own fault is reported by whoever asks next.
void a_failing_copy_ends_the_context() {
  for (const char* settings : {"delay_us=0", "delay_us=0,inline_bytes=0"}) {
    Program program(settings);
    const Stream stream = program.stream();
    unsigned char* const host = program.pinned(kBytes, 1);
    const std::uint64_t data = program.device(kBytes);
    CHECK(dlferry_sim_fail("H2D", 2, kErrorLaunchFailed, 1) == 0);
    CHECK(cuMemcpyHtoDAsync_v2(data, host, 10, stream) == kSuccess);
    CHECK(cuMemcpyHtoDAsync_v2(data, host, kBytes, stream) == kSuccess);
    CHECK(cuStreamSynchronize(stream) == kErrorLaunchFailed);
    CHECK(is_filled(data, 10, 1) && is_filled(data + 10, kBytes - 10, 0xA5));
  }
}

void calls_in_a_forked_child_fail_and_are_counted() {
  Program program;
  const Event event = program.event();
  const pid_t child = fork();
  if (child == 0) {
    const bool refused = cuEventQuery(event) == kErrorNotInitialized &&
                         cuInit(0) == kErrorNotInitialized && dlferry_sim_reset() == -1;
    _exit(refused && dlferry_sim_counter("calls_in_child") == 2 ? 0 : 1);
  }
  int status = 1;
  CHECK(waitpid(child, &status, 0) == child && status == 0);
  CHECK(dlferry_sim_counter("calls_in_child") == 2 && cuEventQuery(event) == kSuccess);
}

// A process may end with work in flight; the report says what was left. It is another process than
// this one, which does not use the driver any more: it may have been forked.
void exit_does_not_wait_for_copies() {
  dlferry_sim_abandon();
  char path[] = "/tmp/dlferry-sim-XXXXXX";
  const int file = mkstemp(path);
  const pid_t child = fork();
  if (child == 0) {
    alarm(60);
    const std::string settings = "delay_us=0,h2d_rate=1,link_sleeps=1,report=";
    auto* const program = new Program((settings + path).c_str());
    CHECK(cuMemcpyHtoDAsync_v2(program->device(kBytes), program->pinned(kBytes), kBytes,
                               program->stream()) == kSuccess);
    await([] { return dlferry_sim_counter("h2d_at_engine") == 1; });
    std::exit(test::finish());
  }
  int status = 1;
  CHECK(waitpid(child, &status, 0) == child && status == 0);
  char report[2048] = {};
  CHECK(read(file, report, sizeof(report) - 1) > 0);
  CHECK(std::string(report).find("\"h2d_at_engine\":1,") != std::string::npos);
  CHECK(close(file) == 0 && unlink(path) == 0);
}

void reset_keeps_what_is_held() {
  Program program("delay_us=0");
  const Stream stream = program.stream();
  unsigned char* const host = program.pinned(kBytes, 6);
  const std::uint64_t data = program.device(kBytes);
  dlferry_sim_gate(number(stream));  // which reset opens
  CHECK(cuMemcpyHtoDAsync_v2(data, host, kBytes, stream) == kSuccess);
  CHECK(dlferry_sim_reset() == 3 && dlferry_sim_counter("calls") == 0);
  CHECK(is_filled(data, kBytes, 6) && dlferry_sim_poke(data, "", 1) == 0);
  CHECK(dlferry_sim_stall(0, 0, 1) == 0);
  CHECK(cuMemcpyHtoDAsync_v2(data, host, kBytes, stream) == kSuccess);
  CHECK(dlferry_sim_poison(0, kErrorLaunchFailed) == 0);
  await([] { return dlferry_sim_counter("pending") == 0; });
  CHECK(dlferry_sim_reset() == 3 && is_filled(data, 1, 0));
  CHECK(cuMemcpyHtoDAsync_v2(data, host, kBytes, stream) == kSuccess);
  CHECK(cuStreamSynchronize(stream) == kSuccess && is_filled(data, kBytes, 6));
}

}  // namespace
}  // namespace dlferry

int main() {
  dlferry::captures_prohibit_unsafe_calls();
  dlferry::faults_are_planned_by_call();
  dlferry::sticky_errors_end_the_context();
  dlferry::a_failing_copy_ends_the_context();
  dlferry::calls_in_a_forked_child_fail_and_are_counted();
  dlferry::exit_does_not_wait_for_copies();
  dlferry::reset_keeps_what_is_held();
  return dlferry::test::finish();
}
