// Handles: contexts, streams, events, captures, page-locked memory. What they leave behind is
// looked at after each scenario.
#include <sys/mman.h>

#include <barrier>
#include <fstream>
#include <optional>
#include <thread>
#include <vector>

#include "cuda/handles.h"
#include "simulated.h"

namespace dlferry::cuda {
namespace {

using test::Machine;
using test::on;
using test::status_of_child;
using test::Thrown;
using test::thrown_by;

constexpr Machine kPrompt{"delay_us=0"};

cu::Context context_here() {
  cu::Context context = nullptr;
  call<&Driver::cuCtxGetCurrent>(&context);
  return context;
}

void contexts_are_retained_once() {
  (void)driver();
  std::barrier together(8);
  std::vector<std::thread> threads;
  for (int i = 0; i < 8; ++i) {
    threads.emplace_back([&together] {
      together.arrive_and_wait();
      CHECK(primary_context(0) == primary_context(0));
    });
  }
  for (std::thread& thread : threads) thread.join();
  (void)primary_context(1);
  CHECK(SIM(counter)("context_retains") == 2);
  CHECK(primary_context(0) != primary_context(1));
  CHECK(device_of(primary_context(0)) == 0 && device_of(primary_context(1)) == 1);
  CHECK(device_of(nullptr) == -1 && device_of(reinterpret_cast<cu::Context>(8)) == -1);
  for (const int device : {-1, 2, 63, 64, 1 << 20}) {
    CHECK(thrown_by([=] { (void)primary_context(device); }).code == cu::kErrorInvalidDevice);
  }
  for (const int device : {-1, 64}) {
    CHECK(thrown_by([=] { Event event(device); }).code == cu::kErrorInvalidDevice);
  }
}

void guards_restore_what_was_current() {
  CHECK(context_here() == nullptr);
  {
    const ContextGuard outer(0);
    CHECK(context_here() == primary_context(0));
    {
      const ContextGuard same(0);
      const ContextGuard quiet(primary_context(0), std::nothrow);
      CHECK(SIM(calls)("cuCtxPushCurrent") == 1);  // it was current already
      const ContextGuard other(1);
      CHECK(context_here() == primary_context(1));
      const ContextGuard back(primary_context(0), std::nothrow);
      CHECK(context_here() == primary_context(0));
    }
    CHECK(context_here() == primary_context(0));
    const ContextGuard none(nullptr, std::nothrow);
    CHECK(context_here() == primary_context(0));
  }
  CHECK(context_here() == nullptr);
  CHECK(SIM(calls)("cuCtxPushCurrent") == SIM(calls)("cuCtxPopCurrent"));
}

void streams_go_without_a_context() {
  std::optional<ContextGuard> guard(std::in_place, 0);
  Stream normal(Stream::Priority::kNormal), urgent(Stream::Priority::kHighest), none;
  CHECK(normal.get() && urgent.get() && !none.get());
  CHECK(SIM(counter)("streams") == 2);
  Stream moved(std::move(normal));
  CHECK(moved.get() && !normal.get());
  urgent = std::move(moved);
  guard.reset();
  std::thread([stream = std::move(urgent)] { CHECK(context_here() == nullptr); }).join();
}

void events_are_pooled() {
  const ContextGuard guard(0);
  const Stream stream(Stream::Priority::kNormal);
  const auto gate = SIM(gate)(reinterpret_cast<std::uintptr_t>(stream.get()));
  cu::Event first = nullptr;
  {
    Event event(0);
    first = event.get();
    event.record(stream.get());
    CHECK(event && !event.is_done());
  }
  // The next one has the same event, whose first record is still pending.
  Event event(0);
  CHECK(event.get() == first && SIM(calls)("cuEventCreate") == 1);
  event.record(stream.get());
  const Stream waiting(Stream::Priority::kNormal);
  event.make_wait(waiting.get());
  Event after(0);
  after.record(waiting.get());
  CHECK(!event.is_done() && !after.is_done());
  CHECK(SIM(open)(gate) == 0);
  after.synchronize();
  CHECK(event.is_done() && after.is_done());
  Event moved(std::move(after));
  CHECK(moved && !after && moved.is_done());
  moved = Event();
}

void pools_are_bounded() {
  const ContextGuard guard(1);
  std::vector<Event> events;
  for (int i = 0; i < 400; ++i) events.emplace_back(1);
  std::thread([mine = std::move(events)]() mutable { mine.clear(); }).join();
  CHECK(SIM(counter)("events") == 256);
  Event::drop_idle();
  CHECK(SIM(counter)("events") == 0);
}

void captures_are_seen_and_left_alone() {
  const ContextGuard guard(0);
  const Stream stream(Stream::Priority::kNormal);
  const auto number = reinterpret_cast<std::uintptr_t>(stream.get());
  CHECK(!is_capturing(stream.get()) && !is_capturing(cu::kStreamLegacy));
  CHECK(SIM(capture_begin)(number, cu::kCaptureGlobal) == 0);
  CHECK(is_capturing(stream.get()));
  std::thread([] {
    const ContextGuard inner(0);
    {
      const RelaxedCapture relaxed;
      HostAllocation memory(4096);
    }
    HostAllocation relaxes_by_itself(4096);
  }).join();
  CHECK(SIM(capture_status)(number) == cu::kCaptureActive);
  std::thread([] {
    const ContextGuard inner(0);
    {
      const RelaxedCapture relaxed;
    }
    void* data = nullptr;  // what those above would have done without
    (void)try_call<&Driver::cuMemHostAlloc>(&data, std::size_t{4096}, 0U);
    if (data) (void)try_call<&Driver::cuMemFreeHost>(data);
  }).join();
  CHECK(SIM(capture_status)(number) == cu::kCaptureInvalid);
  CHECK(is_capturing(stream.get()));
  CHECK(SIM(capture_end)(number, nullptr) == 901);
  const auto blocking = SIM(stream_create)(0, 0);
  CHECK(SIM(capture_begin)(blocking, cu::kCaptureGlobal) == 0);
  CHECK(is_capturing(cu::kStreamLegacy));  // work there would break the other's capture
  (void)SIM(capture_end)(blocking, nullptr);
  CHECK(SIM(stream_destroy)(blocking) == 0);
}

void fill(const HostAllocation& memory) {
  CHECK(memory.data() != nullptr);
  for (std::size_t i = 0; i < memory.bytes(); ++i) memory.data()[i] = std::byte(i);
}

bool is_mapped(const std::byte* data) {
  unsigned char resident = 0;
  return mincore(const_cast<std::byte*>(data), 4096, &resident) == 0;
}

void memory_is_registered() {
  for (const std::size_t bytes : {std::size_t{1}, std::size_t{4096}, std::size_t{(5 << 20) + 7}}) {
    const ContextGuard guard(0);
    HostAllocation memory(bytes);
    CHECK(memory.bytes() == bytes);
    CHECK(bytes < (2 << 20) || reinterpret_cast<std::uintptr_t>(memory.data()) % (2 << 20) == 0);
    fill(memory);
    CHECK(is_pinned(memory.data(), bytes) && !is_pinned(memory.data(), bytes + 1));
    CHECK(SIM(counter)("registrations") == 1 && SIM(counter)("host_allocations") == 0);
    HostAllocation moved(std::move(memory));
    CHECK(moved.bytes() == bytes && memory.bytes() == 0 && !memory.data());
    const std::byte* const data = moved.data();
    moved = HostAllocation();
    CHECK(!is_mapped(data) && !is_pinned(data, bytes));
    HostAllocation another(bytes);
    std::thread([mine = std::move(another)] { CHECK(context_here() == nullptr); }).join();
    CHECK(SIM(counter)("registrations") == 0);
  }
}

long long mapped_pages() {
  long long pages = 0;
  std::ifstream("/proc/self/statm") >> pages;
  return pages;
}

void memory_is_the_drivers_where_registration_is_refused() {
  const ContextGuard guard(0);
  {
    const HostAllocation first(64 << 20);
  }
  const auto before = mapped_pages();
  for (int i = 0; i < 4; ++i) HostAllocation(64 << 20);
  CHECK(mapped_pages() - before < (64 << 20) / sysconf(_SC_PAGESIZE));
  const HostAllocation memory(3 << 20);
  fill(memory);
  CHECK(is_pinned(memory.data(), memory.bytes()));
  CHECK(SIM(counter)("registrations") == 0 && SIM(counter)("host_allocations") == 1);
}

void memory_runs_out() {
  const ContextGuard guard(0);
  CHECK(thrown_by([] { HostAllocation memory(1 << 20); }).code == cu::kErrorOutOfMemory);
  CHECK(thrown_by([] { HostAllocation memory(~std::size_t{0}); }).code != cu::kSuccess);
  CHECK(thrown_by([] { HostAllocation memory(0); }).code != cu::kSuccess);
}

void memory_that_the_driver_keeps_stays_mapped() {
  const ContextGuard guard(0);
  const std::byte* data = nullptr;
  {
    HostAllocation memory(4096);
    data = memory.data();
    SIM(fail)("cuMemHostUnregister", 1, 719, 0);
  }
  CHECK(is_mapped(data) && !is_pinned(data, 4096));
}

void children_leave_everything_alone() {
  const ContextGuard guard(0);
  HostAllocation memory(3 << 20);
  fill(memory);
  Stream stream(Stream::Priority::kNormal);
  Event event(0);
  CHECK(status_of_child([&] {
          CHECK(!is_mapped(memory.data()) && !is_pinned(memory.data(), 4096));
          // What is mapped there by now is the child's.
          void* const mine = mmap(memory.data(), 4096, PROT_READ | PROT_WRITE,
                                  MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED_NOREPLACE, -1, 0);
          CHECK(mine == memory.data());
          memory = HostAllocation();
          stream = Stream();
          event = Event();
          Event::drop_idle();
          CHECK(pinned_stats().allocations.freed == 0);
          CHECK(is_mapped(static_cast<std::byte*>(mine)));
          CHECK(thrown_by([] { (void)primary_context(0); }).is_unavailable);
          CHECK(thrown_by([] { Event another(0); }).is_unavailable);
          CHECK(thrown_by([] { HostAllocation another(4096); }).is_unavailable);
          const ContextGuard quiet(reinterpret_cast<cu::Context>(8), std::nothrow);
        }) == 0);
  for (std::size_t i = 0; i < memory.bytes(); ++i) CHECK(memory.data()[i] == std::byte(i));
  event.record(stream.get());
}

void a_lost_context_stops_nobody() {
  const ContextGuard guard(0);
  const HostAllocation memory(4096);
  const Stream stream(Stream::Priority::kNormal);
  Event event(0);
  event.record(stream.get());
  event.synchronize();
  CHECK(SIM(poison)(0, cu::kErrorIllegalAddress) == 0);
  CHECK(thrown_by([&] { (void)event.is_done(); }).code == cu::kErrorIllegalAddress);
  CHECK(thrown_by([&] { event.synchronize(); }).code == cu::kErrorIllegalAddress);
  CHECK(thrown_by([&] { event.record(stream.get()); }).code == cu::kErrorIllegalAddress);
  CHECK(thrown_by([&] { event.make_wait(stream.get()); }).code == cu::kErrorIllegalAddress);
  CHECK(thrown_by([] { HostAllocation more(4096); }).code == cu::kErrorIllegalAddress);
  CHECK(thrown_by([] { Stream more(Stream::Priority::kNormal); }).code == cu::kErrorIllegalAddress);
}

void all_handles() {
  const ContextGuard guard(0);
  const RelaxedCapture relaxed;
  const Stream stream(Stream::Priority::kHighest);
  if (is_capturing(stream.get())) return;
  const HostAllocation memory(4096);
  Event event(0), other(0);
  event.record(stream.get());
  event.make_wait(stream.get());
  event.synchronize();
  CHECK(event.is_done());
}

// Each call fails once, for each call that there is: an error at the caller, or nothing, and in
// either case nothing is left.
void every_call_fails_once() {
  int points_tried = 0;
  for (const int sticky : {0, 1}) {
#define DLFERRY_X(need, name, symbol, ...) #symbol,
    for (const char* function : {DLFERRY_CUDA_FUNCTIONS(DLFERRY_X)}) {
#undef DLFERRY_X
      for (unsigned nth = 1;; ++nth) {
        const int status = test::status_on(kPrompt, [&] {
          SIM(fail)(function, nth, cu::kErrorLaunchFailed, sticky);
          const Thrown thrown = thrown_by(all_handles);
          CHECK(thrown.text.empty() || thrown.is_unavailable ||
                thrown.code == cu::kErrorLaunchFailed);
          Event::drop_idle();
          if (SIM(counter)("faults_fired") == 0) _exit(test::failures == 0 ? 2 : 1);
        });
        if (WIFEXITED(status) && WEXITSTATUS(status) == 2) break;  // it is not called that often
        ++points_tried;
        if (status != 0)
          std::fprintf(stderr, "%s, call %u, %d: %d\n", function, nth, sticky, status);
        CHECK(status == 0);
        if (status != 0) break;
      }
    }
  }
  std::printf("%d calls failed in turn\n", points_tried);
  CHECK(points_tried > 40);
}

}  // namespace
}  // namespace dlferry::cuda

int main() {
  using namespace dlferry::cuda;
  constexpr Machine kPair{"devices=2,delay_us=0"};
  for (int round = 0; round < 10; ++round) ON(kPair, contexts_are_retained_once);
  ON(kPair, guards_restore_what_was_current);
  ON(kPrompt, streams_go_without_a_context);
  ON(kPrompt, events_are_pooled);
  ON(kPair, pools_are_bounded);
  ON(kPrompt, captures_are_seen_and_left_alone);
  ON(kPrompt, memory_is_registered);
  ON(Machine{"numa_node=-1"}, memory_is_registered);
  ON(Machine{"numa_node=1000000"}, memory_is_registered);
  ON(Machine{"register_result=801"}, memory_is_the_drivers_where_registration_is_refused);
  ON((Machine{"register_result=801,host_limit=4096"}), memory_runs_out);
  ON(kPrompt, memory_that_the_driver_keeps_stays_mapped);
  ON(kPrompt, children_leave_everything_alone);
  ON(kPrompt, a_lost_context_stops_nobody);
  every_call_fails_once();
  return dlferry::test::finish();
}
