// The simulated driver moves bytes as a real one does: late, in order, by its engines, and to and
// from memory that the host cannot touch.
#include <sys/mman.h>
#include <sys/wait.h>
#include <unistd.h>

#include <atomic>
#include <csignal>
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

constexpr std::size_t kBytes = 100'000;

bool host_survives_touching(std::uint64_t pointer) {
  const pid_t child = fork();
  if (child == 0) {
    for (const int signal : {SIGSEGV, SIGBUS}) std::signal(signal, SIG_DFL);
    _exit(*reinterpret_cast<volatile unsigned char*>(pointer) != 0 ? 0 : 2);
  }
  int status = 0;
  CHECK(waitpid(child, &status, 0) == child);
  return WIFEXITED(status);
}

void device_memory_is_poisoned_and_out_of_reach() {
  Program program;
  const std::uint64_t data = program.device(kBytes);
  CHECK(data % 512 == 0 && is_filled(data, kBytes, 0xA5));
  CHECK(!host_survives_touching(data) && !host_survives_touching(data + kBytes - 1));
  CHECK(is_filled(data, 1, 0xA5));
  unsigned char host[4] = {1, 2, 3, 4};
  CHECK(dlferry_sim_poke(data + kBytes - 4, host, 4) == 0);
  CHECK(dlferry_sim_poke(data + kBytes - 3, host, 4) == -1);
  CHECK(dlferry_sim_peek(host, data - 1, 1) == -1);
  CHECK(dlferry_sim_device_free(data + 512) == -1);
  CHECK(dlferry_sim_device_alloc(0, std::size_t{5} << 30) == 0);
  CHECK(dlferry_sim_device_alloc(1, 1) == 0);
  const std::uint64_t other = dlferry_sim_device_alloc(0, 100);
  CHECK(other >= data + kBytes && dlferry_sim_device_free(other) == 0);
  CHECK(dlferry_sim_device_free(other) == -1);
}

void bytes_arrive_both_ways() {
  for (const char* settings : {"delay_us=0", "delay_us=0,inline_bytes=0", "delay_us=300,seed=7",
                               "delay_us=0,h2d_rate=100000000,d2h_rate=100000000,link_sleeps=1",
                               "delay_us=0,rate=200000000"}) {
    Program program(settings);
    const Stream stream = program.stream();
    unsigned char* const there = program.pinned(kBytes);
    unsigned char* const back = program.pinned(kBytes);
    for (std::size_t i = 0; i < kBytes; ++i) there[i] = static_cast<unsigned char>(i % 251);
    const std::uint64_t data = program.device(kBytes);
    CHECK(cuMemcpyHtoDAsync_v2(data + 1, there, kBytes - 1, stream) == kSuccess);
    CHECK(cuMemcpyDtoHAsync_v2(back, data + 1, kBytes - 1, stream) == kSuccess);
    CHECK(cuMemcpyHtoDAsync_v2(data, there, 0, stream) == kSuccess);
    CHECK(cuStreamSynchronize(stream) == kSuccess);
    CHECK(std::memcmp(there, back, kBytes - 1) == 0 && is_filled(data, 1, 0xA5));
    CHECK(dlferry_sim_counter("h2d_bytes") == kBytes - 1);
    CHECK(dlferry_sim_counter("d2h_copies") == 1);
    CHECK(dlferry_sim_counter("pageable_copies") == 0);
  }
}

// Reading late and writing late: a source that is changed too early is copied as it is then.
void copies_are_late() {
  Program program;
  const Stream stream = program.stream();
  unsigned char* const source = program.pinned(kBytes, 1);
  unsigned char* const result = program.pinned(kBytes, 9);
  const std::uint64_t data = program.device(kBytes);
  const std::uint64_t gate = dlferry_sim_gate(number(stream));
  CHECK(cuMemcpyHtoDAsync_v2(data, source, kBytes, stream) == kSuccess);
  CHECK(cuMemcpyDtoHAsync_v2(result, data, kBytes, stream) == kSuccess);
  std::memset(source, 2, kBytes);
  CHECK(is_filled(data, kBytes, 0xA5) && is_filled(result, kBytes, 9));
  CHECK(dlferry_sim_stream_is_idle(number(stream)) == 0);
  CHECK(dlferry_sim_open(gate) == 0 && dlferry_sim_open(gate) == -1);
  CHECK(cuStreamSynchronize(stream) == kSuccess);
  CHECK(dlferry_sim_stream_is_idle(number(stream)) == 1);
  CHECK(is_filled(data, kBytes, 2) && is_filled(result, kBytes, 2));
}

void small_copies_without_delay_are_done_by_the_caller() {
  Program program;
  const Stream stream = program.stream();
  unsigned char* const source = program.pinned(kBytes, 1);
  const std::uint64_t data = program.device(kBytes);
  const Event event = program.event();
  CHECK(cuMemcpyHtoDAsync_v2(data, source, 4096, stream) == kSuccess);
  CHECK(cuEventRecord(event, stream) == kSuccess && cuEventQuery(event) == kSuccess);
  CHECK(dlferry_sim_counter("inline_copies") == 1 && dlferry_sim_counter("threads") == 0);
  CHECK(cuMemcpyHtoDAsync_v2(data, source, kBytes, stream) == kSuccess);
  CHECK(dlferry_sim_counter("inline_copies") == 1 && dlferry_sim_counter("threads") == 1);
  CHECK(cuStreamSynchronize(stream) == kSuccess && dlferry_sim_configure("delay_us=1") == 0);
  for (int i = 0; i < 20; ++i) CHECK(cuMemcpyHtoDAsync_v2(data, source, 1, stream) == kSuccess);
  CHECK(cuStreamSynchronize(stream) == kSuccess);
  CHECK(dlferry_sim_counter("inline_copies") == 1);
}

void copies_outside_of_memory_are_refused() {
  Program program;
  const Stream stream = program.stream();
  unsigned char* const host = program.pinned(kBytes);
  const std::uint64_t data = program.device(kBytes);
  std::vector<unsigned char> page_locked_in_part(32768);
  unsigned char* const middle = page_locked_in_part.data() + 8192;
  CHECK(cuMemHostRegister_v2(middle, 8192, 0) == kSuccess);
  for (const std::uint64_t to : {data + 1, data - 1, data + kBytes, std::uint64_t{0},
                                 reinterpret_cast<std::uint64_t>(host)}) {
    CHECK(cuMemcpyHtoDAsync_v2(to, host, kBytes, stream) == kErrorInvalidValue);
  }
  for (const void* from : {static_cast<const void*>(host + 1), static_cast<const void*>(nullptr)}) {
    CHECK(cuMemcpyHtoDAsync_v2(data, from, kBytes, stream) == kErrorInvalidValue);
  }
  CHECK(cuMemcpyHtoDAsync_v2(data, middle - 1, 2, stream) == kErrorInvalidValue);
  CHECK(cuMemcpyDtoHAsync_v2(middle + 1, data, 8192, stream) == kErrorInvalidValue);
  CHECK(cuMemcpyHtoDAsync_v2(data, middle, 8192, stream) == kSuccess);
  CHECK(cuStreamSynchronize(stream) == kSuccess && cuMemHostUnregister(middle) == kSuccess);
  CHECK(is_filled(data, 8192, 0) && dlferry_sim_counter("pageable_copies") == 0);
}

void memory_that_is_freed_too_early_loses_the_context() {
  Program program;
  const Stream stream = program.stream();
  unsigned char* const host = program.pinned(kBytes);
  const std::uint64_t data = dlferry_sim_device_alloc(0, kBytes);
  const std::uint64_t gate = dlferry_sim_gate(number(stream));
  CHECK(cuMemcpyHtoDAsync_v2(data, host, kBytes, stream) == kSuccess);
  CHECK(dlferry_sim_device_free(data) == 0);
  CHECK(dlferry_sim_open(gate) == 0);
  CHECK(cuStreamSynchronize(stream) == kErrorIllegalAddress);
}

// Pageable memory: the caller is held until the stream has come to the copy and done it.
void pageable_copies_hold_the_caller() {
  Program program;
  const Stream stream = program.stream();
  const std::uint64_t data = program.device(kBytes);
  std::vector<unsigned char> pageable(kBytes, 3);
  const std::uint64_t gate = dlferry_sim_gate(number(stream));
  std::atomic<bool> returned{false};
  std::thread caller([&] {
    CHECK(cuCtxPushCurrent_v2(program.context) == kSuccess);
    CHECK(cuMemcpyHtoDAsync_v2(data, pageable.data(), kBytes, stream) == kSuccess);
    returned = true;
  });
  await([] { return dlferry_sim_counter("pageable_copies") == 1; });
  CHECK(!returned && dlferry_sim_counter("pageable_bytes") == kBytes);
  CHECK(dlferry_sim_open(gate) == 0);
  caller.join();
  CHECK(is_filled(data, kBytes, 3));
  CHECK(dlferry_sim_fill(number(stream), data, 4, kBytes) == 0);
  CHECK(cuMemcpyDtoHAsync_v2(pageable.data(), data, kBytes, stream) == kSuccess);
  CHECK(is_filled(pageable.data(), kBytes, 4) && dlferry_sim_counter("pageable_copies") == 2);
}

// One engine for each direction, first come first served; the other direction is not in its way.
void engines_serve_in_order() {
  Program program("delay_us=0,inline_bytes=0");
  const Stream large = program.stream(), small = program.stream(), other = program.stream();
  unsigned char* const host = program.pinned(kBytes);
  const std::uint64_t data = program.device(2 * kBytes);
  const auto at_engine = [](int count) {
    await([&] { return dlferry_sim_counter("h2d_at_engine") == count; });
  };
  CHECK(dlferry_sim_stall(0, 0, 1) == 0 && dlferry_sim_stall(0, 2, 1) == -1);
  CHECK(cuMemcpyHtoDAsync_v2(data, host, kBytes, large) == kSuccess);
  at_engine(1);
  CHECK(cuMemcpyHtoDAsync_v2(data + kBytes, host, 100, small) == kSuccess);
  at_engine(2);
  CHECK(cuMemcpyDtoHAsync_v2(host + 100, data + kBytes, 100, other) == kSuccess);
  CHECK(cuStreamSynchronize(other) == kSuccess);
  CHECK(dlferry_sim_counter("h2d_copies") == 0 && is_filled(data, kBytes, 0xA5));
  CHECK(dlferry_sim_stall(0, 0, 0) == 0 && cuStreamSynchronize(small) == kSuccess);
  CHECK(dlferry_sim_counter("h2d_copies") == 2 && dlferry_sim_stream_is_idle(number(large)) == 1);
  std::vector<std::size_t> transfers;  // where in the log
  const std::string log = test::log_text();
  const std::string stream_field = ",\"result\":0,\"stream\":";
  for (const auto& [name, stream] : {std::pair("D2H", other), {"H2D", large}, {"H2D", small}}) {
    transfers.push_back(
        log.find(name + std::string("\"") + stream_field + std::to_string(number(stream))));
  }
  CHECK(transfers[0] < transfers[1] && transfers[1] < transfers[2]);
  CHECK(transfers[2] != std::string::npos);
  dlferry_sim_log_clear();
  CHECK(test::log_text().empty());
}

// A link that sleeps has moved nothing before it has moved all.
void a_sleeping_link_moves_all_at_once() {
  Program program("delay_us=0,h2d_rate=1000,link_sleeps=1");  // 100 s
  const Stream stream = program.stream();
  unsigned char* const host = program.pinned(kBytes);
  const std::uint64_t data = program.device(kBytes);
  CHECK(cuMemcpyHtoDAsync_v2(data, host, kBytes, stream) == kSuccess);
  await([] { return dlferry_sim_counter("h2d_at_engine") == 1; });
  CHECK(is_filled(data, kBytes, 0xA5));
  CHECK(dlferry_sim_poison(0, kErrorLaunchFailed) == 0);  // which ends it
  CHECK(cuStreamSynchronize(stream) == kErrorLaunchFailed && is_filled(data, kBytes, 0xA5));
}

void transfers_follow_each_other_without_a_gap() {
  Program program("delay_us=0,inline_bytes=0,rate=100000000,link_sleeps=1");
  const Stream stream = program.stream();
  unsigned char* const host = program.pinned(kBytes);
  const std::uint64_t data = program.device(kBytes);
  dlferry_sim_log_clear();
  const std::uint64_t gate = dlferry_sim_gate(number(stream));
  for (int i = 0; i < 3; ++i) {
    CHECK(cuMemcpyHtoDAsync_v2(data, host, kBytes, stream) == kSuccess);  // 1 ms
  }
  CHECK(dlferry_sim_open(gate) == 0 && cuStreamSynchronize(stream) == kSuccess);
  std::vector<long long> begins, ends;
  const std::string log = test::log_text();
  for (std::size_t at = 0; (at = log.find("\"what\":\"transfer\"", at)) != std::string::npos;
       ++at) {
    begins.push_back(std::stoll(log.substr(log.find("\"begin\":", at) + 8)));
    ends.push_back(std::stoll(log.substr(log.find("\"end\":", at) + 6)));
  }
  CHECK(begins.size() == 3);
  for (std::size_t i = 0; i < begins.size(); ++i) {
    CHECK(ends[i] - begins[i] == 1'000'000 && (i == 0 || begins[i] == ends[i - 1]));
  }
}

template <class Submit>
void batches(const Submit& submit) {
  Program program;
  const Stream stream = program.stream();
  unsigned char* const pinned = program.pinned(kBytes, 1);
  std::vector<unsigned char> pageable(1000, 2);
  const std::uint64_t data = program.device(kBytes);
  const auto host = reinterpret_cast<DevicePtr>(pinned);
  std::vector<DevicePtr> to = {data, data + 1000, host + 9000};
  std::vector<DevicePtr> from = {host, reinterpret_cast<DevicePtr>(pageable.data()), data + 5000};
  std::vector<std::size_t> sizes = {1000, 1000, 1000};
  std::vector<CopyAttributes> attributes = {
      {kOrderStream, {}, {}, 0}, {kOrderDuringCall, {}, {}, 0}, {kOrderAny, {}, {}, 0}};
  std::vector<std::size_t> firsts = {0, 1, 2};
  const std::uint64_t gate = dlferry_sim_gate(number(stream));
  CHECK(dlferry_sim_fill(number(stream), data + 5000, 9, 1000) == 0);
  CHECK(submit(to, from, sizes, attributes, firsts, stream) == kSuccess);
  std::fill(pageable.begin(), pageable.end(), 7);  // has been read
  std::memset(pinned, 8, 1000);                    // has not
  CHECK(dlferry_sim_open(gate) == 0 && cuStreamSynchronize(stream) == kSuccess);
  CHECK(is_filled(data, 1000, 8) && is_filled(data + 1000, 1000, 2));
  // In any order: read before the kernel that comes first in the stream.
  CHECK(is_filled(data + 5000, 1000, 9) && is_filled(pinned + 9000, 1000, 0xA5));
  CHECK(dlferry_sim_counter("pageable_copies") == 1);

  for (const std::uint64_t null_stream : {0U, 1U}) {
    const auto legacy = reinterpret_cast<Stream>(null_stream);
    CHECK(submit(to, from, sizes, attributes, firsts, legacy) == kErrorInvalidValue);
  }
  const auto refused = [&] {
    return submit(to, from, sizes, attributes, firsts, stream) == kErrorInvalidValue;
  };
  sizes[1] = 0;
  CHECK(refused());
  sizes[1] = kBytes;
  CHECK(refused());
  sizes[1] = 1000;
  firsts = {0, 2, 2};
  CHECK(refused());
  firsts = {1, 2};
  CHECK(refused());
  firsts = {0, 3};
  CHECK(refused());
  firsts = {0};
  attributes[0].order = static_cast<AccessOrder>(4);
  CHECK(refused());
  attributes[0] = {kOrderStream, {}, {}, 0};
  to.clear();
  sizes.clear();
  CHECK(refused());
}

void batches_of_both_versions() {
  batches([](auto& to, auto& from, auto& sizes, auto& attributes, auto& firsts, Stream stream) {
    return cuMemcpyBatchAsync_v2(to.data(), from.data(), sizes.data(), sizes.size(),
                                 attributes.data(), firsts.data(), firsts.size(), stream);
  });
  batches([](auto& to, auto& from, auto& sizes, auto& attributes, auto& firsts, Stream stream) {
    std::size_t failed = 77;
    const Result result =
        cuMemcpyBatchAsync(to.data(), from.data(), sizes.data(), sizes.size(), attributes.data(),
                           firsts.data(), firsts.size(), &failed, stream);
    const bool one_is_wrong = sizes.size() == 3 && sizes[1] != 1000 && number(stream) > 2;
    CHECK(failed == (result == kSuccess ? 77 : one_is_wrong ? 1 : SIZE_MAX));
    return result;
  });
}

// Many threads at once, for the thread sanitizer above all.
void streams_side_by_side() {
  Program program("delay_us=50,seed=3");
  constexpr int kThreads = 4;
  std::vector<std::thread> threads;
  for (int i = 1; i <= kThreads; ++i) {
    unsigned char* const host = program.pinned(kBytes, i);
    unsigned char* const back = program.pinned(kBytes);
    const std::uint64_t data = program.device(kBytes);
    const Stream in = program.stream(), out = program.stream();
    const Event event = program.event();
    threads.emplace_back([=, &program] {
      CHECK(cuCtxPushCurrent_v2(program.context) == kSuccess);
      for (std::size_t round = 0; round < 20; ++round) {
        const std::size_t bytes = kBytes / (round + 1);
        std::memset(back, 0, bytes);
        CHECK(cuMemcpyHtoDAsync_v2(data, host, bytes, in) == kSuccess);
        CHECK(cuEventRecord(event, in) == kSuccess);
        CHECK(cuStreamWaitEvent(out, event, 0) == kSuccess);
        CHECK(cuMemcpyDtoHAsync_v2(back, data, bytes, out) == kSuccess);
        CHECK(cuEventRecord(event, out) == kSuccess);
        CHECK(cuEventSynchronize(event) == kSuccess);
        CHECK(is_filled(back, bytes, i));
      }
    });
  }
  for (std::thread& thread : threads) thread.join();
}

}  // namespace
}  // namespace dlferry

int main() {
  dlferry::device_memory_is_poisoned_and_out_of_reach();
  dlferry::bytes_arrive_both_ways();
  dlferry::copies_are_late();
  dlferry::small_copies_without_delay_are_done_by_the_caller();
  dlferry::copies_outside_of_memory_are_refused();
  dlferry::memory_that_is_freed_too_early_loses_the_context();
  dlferry::pageable_copies_hold_the_caller();
  dlferry::engines_serve_in_order();
  dlferry::a_sleeping_link_moves_all_at_once();
  dlferry::transfers_follow_each_other_without_a_gap();
  dlferry::batches_of_both_versions();
  dlferry::streams_side_by_side();
  return dlferry::test::finish();
}
