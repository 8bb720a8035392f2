// Page-locked memory: what is known, when the driver is asked, page-locking in place, the figures.
#include <sys/mman.h>

#include <array>
#include <thread>
#include <vector>

#include "cuda/pinned.h"
#include "simulated.h"

namespace dlferry::cuda {
namespace {

using test::Machine;
using test::on;
using test::status_of_child;
using test::Thrown;
using test::thrown_by;

constexpr std::size_t kPage = 4096;

// Memory of the test's own, at a page's border.
class Pages {
 public:
  explicit Pages(std::size_t bytes, int access = PROT_READ | PROT_WRITE)
      : bytes_(bytes),
        data_(static_cast<std::byte*>(
            mmap(nullptr, bytes, access, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0))) {
    CHECK(data_ != MAP_FAILED);
  }
  Pages(const Pages&) = delete;
  ~Pages() { munmap(data_, bytes_); }
  [[nodiscard]] std::byte* operator+(std::size_t offset) const noexcept { return data_ + offset; }

 private:
  std::size_t bytes_;
  std::byte* data_;
};

// As somebody else would: sixteen pages.
cu::Result call_register(std::byte* data) {
  return driver().cuMemHostRegister_v2(data, 16 * kPage, cu::kHostRegisterPortable);
}

long long questions() { return SIM(calls)("cuPointerGetAttributes"); }

void ranges_that_are_known() {
  const Pages pages(64 * kPage);
  CHECK(!is_pinned(pages + 0, 100));
  {
    const KnownRange long_one(pages + 1000, 8000);
    CHECK(is_pinned(pages + 1000, 8000) && is_pinned(pages + 1000, 1) &&
          is_pinned(pages + 8999, 1));
    CHECK(!is_pinned(pages + 999, 2) && !is_pinned(pages + 999, 1) && !is_pinned(pages + 9000, 1));
    CHECK(!is_pinned(pages + 8999, 2) && !is_pinned(pages + 0, 20000));
    CHECK(!is_pinned(pages + 1000, 0) && !is_pinned(nullptr, 1));
    CHECK(!is_pinned(pages + 1000, ~std::size_t{0}));
    {
      // Inside the first, across its end, and the same once more.
      const KnownRange inner(pages + 2000, 10), across(pages + 8000, 4000);
      const KnownRange again(pages + 1000, 8000);
      CHECK(is_pinned(pages + 2005, 10) && is_pinned(pages + 8500, 3500));
      CHECK(!is_pinned(pages + 7999, 4001));  // no one block holds it
      CHECK(is_pinned(pages + 1000, 8000));
    }
    CHECK(is_pinned(pages + 2000, 10) && is_pinned(pages + 1000, 8000));
    CHECK(!is_pinned(pages + 9000, 100));
  }
  CHECK(!is_pinned(pages + 1000, 1));
  KnownRange first(pages + 0, 10);
  KnownRange moved(std::move(first));
  CHECK(is_pinned(pages + 0, 10));
  moved = KnownRange(pages + 20, 10);
  CHECK(!is_pinned(pages + 0, 10) && is_pinned(pages + 20, 10));
  CHECK(loaded_driver() == nullptr && SIM(counter)("calls") == 0);
}

void short_ranges_beside_a_long_one() {
  const Pages pages(64 * kPage);
  const KnownRange long_one(pages + 0, 64 * kPage);
  std::vector<KnownRange> short_ones;
  for (std::size_t i = 0; i < 200; ++i) short_ones.emplace_back(pages + i * 16, 8);
  CHECK(is_pinned(pages + 5000, 9) && is_pinned(pages + 10, 100) && is_pinned(pages + 16, 8));
}

void the_driver_is_asked_about_large_unknown_ranges() {
  const std::size_t bytes = kAskDriverBytes;
  const Pages pages(4 * bytes);
  auto* const foreign = static_cast<std::byte*>(SIM(pinned_alloc)(2 * bytes));
  CHECK(!is_pinned(foreign, 2 * bytes));  // nobody has opened the driver
  CHECK(loaded_driver() == nullptr && SIM(counter)("calls") == 0);
  (void)driver();
  CHECK(is_pinned(foreign, 2 * bytes) && is_pinned(foreign + 1, bytes));
  CHECK(questions() == 2);
  CHECK(!is_pinned(foreign, bytes - 1));  // too small to ask
  CHECK(questions() == 2);
  CHECK(!is_pinned(foreign + bytes, bytes + 1) && !is_pinned(pages + 0, bytes));
  const auto device = SIM(device_alloc)(0, 2 * bytes);
  CHECK(!is_pinned(reinterpret_cast<void*>(device), bytes));
  const auto asked = questions();
  const KnownRange known(pages + 0, bytes);
  CHECK(is_pinned(pages + 0, bytes) && !is_pinned(pages + 1, bytes));
  CHECK(questions() == asked);  // neither for what is known, nor for what crosses its border
  SIM(fail)("cuPointerGetAttributes", 0, 700, 0);
  CHECK(!is_pinned(foreign, bytes));
  CHECK(SIM(device_free)(device) == 0 && SIM(pinned_free)(foreign) == 0);
}

// Two ranges of others, with a gap between them or none: a copy may cross neither.
void what_two_ranges_hold_is_not_pinned() {
  const Pages pages(48 * kPage);
  const ContextGuard guard(0);
  for (const std::size_t second : {16 * kPage, 32 * kPage}) {
    CHECK(call_register(pages + 0) == cu::kSuccess &&
          call_register(pages + second) == cu::kSuccess);
    CHECK(is_pinned(pages + 0, 16 * kPage) && is_pinned(pages + second, 16 * kPage));
    CHECK(!is_pinned(pages + 0, second + 16 * kPage) && !is_pinned(pages + kPage, second));
    const Thrown thrown =
        thrown_by([&] { Registration both(pages + 0, second + 16 * kPage, false, 0); });
    CHECK(thrown.code == cu::kErrorHostMemoryAlreadyRegistered);
    for (const std::size_t begin : {std::size_t{0}, second}) {
      CHECK(driver().cuMemHostUnregister(pages + begin) == cu::kSuccess);
    }
  }
}

void registrations_are_shared() {
  const Pages pages(16 * kPage);
  Registration whole(pages + 100, 8 * kPage, false, 0);
  CHECK(whole.is_ours() && is_pinned(pages + 100, 8 * kPage) && !is_pinned(pages + 99, 2));
  Registration same(pages + 100, 8 * kPage, true, 0), part(pages + 200, 10, false, 0);
  CHECK(same.is_ours() && part.is_ours());
  CHECK(SIM(calls)("cuMemHostRegister") == 1 && SIM(counter)("registrations") == 1);
  whole = Registration();
  {
    const Registration gone(std::move(same));
  }
  CHECK(is_pinned(pages + 100, 8 * kPage) && SIM(counter)("registrations") == 1);
  // The last one goes on a thread that has no context.
  std::thread([last = std::move(part)] { CHECK(last.is_ours()); }).join();
  CHECK(!part.is_ours() && !is_pinned(pages + 100, 8 * kPage));
  CHECK(SIM(counter)("registrations") == 0);
  const Registration again(pages + 0, 16 * kPage, false, 1);
  CHECK(again.is_ours() && SIM(calls)("cuMemHostRegister") == 2);
  const Registration nothing(pages + 0, 0, false, 0);
  CHECK(!nothing.is_ours());
}

void registrations_that_overlap_are_refused() {
  const Pages pages(16 * kPage);
  const Registration first(pages + 4 * kPage, 4 * kPage, false, 0);
  const auto refused = [&](std::size_t begin, std::size_t bytes) {
    const Thrown thrown = thrown_by([&] { Registration more(pages + begin, bytes, false, 0); });
    return thrown.code == cu::kErrorHostMemoryAlreadyRegistered &&
           thrown.says("cuMemHostRegister failed") && thrown.says("page-locked already");
  };
  CHECK(refused(3 * kPage, 2 * kPage) && refused(7 * kPage, 2 * kPage) && refused(0, 16 * kPage));
  const Registration next(pages + 8 * kPage, kPage + 10, false, 0);  // beside it is fine
  CHECK(refused(9 * kPage + 100, 50));                               // on a page of another's
  CHECK(refused(7 * kPage, 2 * kPage));                              // across two of them
  CHECK(!is_pinned(pages + 7 * kPage, 2 * kPage));
  CHECK(SIM(counter)("registrations") == 2);
  CHECK(thrown_by([&] { Registration more(pages + 1, ~std::size_t{0}, false, 0); }).code ==
        cu::kErrorInvalidValue);
}

void memory_of_others_is_left_to_them() {
  auto* const foreign = static_cast<std::byte*>(SIM(pinned_alloc)(kPage));
  const Pages pages(kPage);
  const KnownRange known(pages + 0, kPage);
  const Registration theirs(foreign, kPage, false, 0), announced(pages + 0, kPage, false, 0);
  CHECK(!theirs.is_ours() && !announced.is_ours());
  CHECK(SIM(calls)("cuMemHostRegister") == 0);
  CHECK(pinned_stats().allocations.allocated == 0);
  CHECK(SIM(pinned_free)(foreign) == 0);
}

void read_only_memory() {
  const Pages writable(kPage), pages(2 * kPage, PROT_READ);
  const Registration plain(writable + 0, kPage, true, 0);
  CHECK(SIM(calls)("cuMemHostRegister") == 1);  // the flag is for memory that needs it
  const Registration flagged(pages + 0, kPage, true, 0);
  CHECK(flagged.is_ours() && is_pinned(pages + 0, kPage));
  CHECK(thrown_by([&] { Registration more(pages + kPage, kPage, false, 0); }).code != cu::kSuccess);
}

void read_only_memory_on_devices_that_cannot() {
  const Pages writable(kPage), pages(kPage, PROT_READ);
  const Registration plain(writable + 0, kPage, true, 0);
  CHECK(plain.is_ours());
  CHECK(thrown_by([&] { Registration more(pages + 0, kPage, true, 0); }).code != cu::kSuccess);
  CHECK(SIM(calls)("cuMemHostRegister") == 2);  // the flag is not even tried
}

void registration_refused() {
  const Pages pages(kPage);
  const Thrown thrown = thrown_by([&] { Registration more(pages + 0, kPage, true, 0); });
  CHECK(thrown.code == cu::kErrorNotSupported && thrown.says("does not page-lock"));
  CHECK(!is_pinned(pages + 0, kPage) && pinned_stats().allocations.allocated == 0);
}

void figures() {
  const Pages pages(8 * kPage);
  {
    const Registration whole(pages + 0, 8 * kPage, false, 0), part(pages + 0, kPage, false, 0);
    const ContextGuard guard(0);
    const HostAllocation memory(kPage);
    PinnedCounts::begin_use(10);
    const PinnedStats now = pinned_stats();
    CHECK(now.allocations.current == 2 && now.allocations.allocated == 2);
    CHECK(now.allocated_bytes.current == 9 * kPage && now.allocated_bytes.freed == 0);
    CHECK(now.active_requests.current == 3);
    CHECK(now.active_bytes.current == 9 * kPage + 10);
    CHECK(now.host_alloc_time.count == 2 && now.host_alloc_time.total >= now.host_alloc_time.max);
    CHECK(now.host_alloc_time.max >= now.host_alloc_time.min && now.host_free_time.count == 0);
    PinnedCounts::end_use(10);
    CHECK(status_of_child([] {
            CHECK(pinned_stats().allocations.current == 0);
            CHECK(pinned_stats().allocations.allocated == 0);
          }) == 0);
  }
  const PinnedStats then = pinned_stats();
  for (const auto& amount :
       {then.allocations, then.allocated_bytes, then.active_requests, then.active_bytes}) {
    CHECK(amount.current == 0 && amount.peak > 0 && amount.allocated == amount.freed);
  }
  CHECK(then.allocated_bytes.peak == 9 * kPage && then.host_free_time.count == 2);
}

void many_threads() {
  const Pages pages(64 * kPage);
  std::vector<std::thread> threads;
  for (unsigned seed = 1; seed <= 4; ++seed) {
    threads.emplace_back([&pages, seed]() mutable {
      for (int round = 0; round < 300; ++round) {
        seed = seed * 1664525U + 1013904223U;
        const std::size_t begin = (seed >> 28) * 4 * kPage;
        const Registration one(pages + begin, 4 * kPage, false, 0);
        const Registration inner(pages + begin + 10, 20, false, 0);
        const KnownRange known(pages + begin, 100);
        CHECK(one.is_ours() && inner.is_ours() && is_pinned(pages + begin, 4 * kPage));
      }
    });
  }
  for (std::thread& thread : threads) thread.join();
  CHECK(!is_pinned(pages + 0, 1) && pinned_stats().allocations.current == 0);
}

void forked_children() {
  const Pages pages(4 * kPage);
  // Before anyone has opened the driver, a child may do so itself.
  KnownRange known(pages + 2 * kPage, kPage);
  CHECK(status_of_child([&] {
          CHECK(!is_pinned(pages + 2 * kPage, kPage));  // that was its parent's
          const KnownRange own(pages + 2 * kPage, kPage);
          known = KnownRange();
          CHECK(is_pinned(pages + 2 * kPage, kPage));
        }) == 0);
  Registration mine(pages + 0, kPage, false, 0);
  CHECK(status_of_child([&] {
          const KnownRange own(pages + 0, kPage);
          CHECK(!is_pinned(pages + 0, kPage));  // without CUDA, nothing is
          CHECK(thrown_by([&] { Registration more(pages + 0, kPage, false, 0); }).is_unavailable);
          mine = Registration();
          known = KnownRange();
        }) == 0);
  CHECK(is_pinned(pages + 0, kPage) && is_pinned(pages + 2 * kPage, kPage));
}

void a_lost_context() {
  const Pages pages(4 * kPage);
  {
    const Registration mine(pages + 0, kPage, false, 0);
    CHECK(SIM(poison)(0, cu::kErrorLaunchFailed) == 0);
    CHECK(thrown_by([&] { Registration more(pages + kPage, kPage, false, 0); }).code ==
          cu::kErrorLaunchFailed);
  }
  CHECK(!is_pinned(pages + 0, kPage) && pinned_stats().allocations.current == 0);
}

// A call that fails leaves nothing behind, and the next attempt finds everything in order.
void failures_are_forgotten() {
  const Pages pages(4 * kPage);
  for (const char* function : {"cuCtxGetCurrent", "cuCtxPushCurrent", "cuMemHostRegister",
                               "cuThreadExchangeStreamCaptureMode", "cuPointerGetAttributes"}) {
    SIM(fail)(function, 1, cu::kErrorUnknown, 0);
    const auto fired = SIM(counter)("faults_fired");
    const Thrown thrown = thrown_by([&] { Registration one(pages + 0, kPage, false, 0); });
    CHECK(SIM(counter)("faults_fired") == fired + 1);
    CHECK(thrown.text.empty() || thrown.code == cu::kErrorUnknown);
    CHECK(!is_pinned(pages + 0, kPage) && pinned_stats().allocations.current == 0);
    const Registration two(pages + 0, kPage, false, 0);
    CHECK(two.is_ours() && is_pinned(pages + 0, kPage));
  }
  for (const char* function : {"cuCtxPushCurrent", "cuMemHostUnregister", "cuCtxPopCurrent"}) {
    {
      const Registration one(pages + 0, kPage, false, 0);
      SIM(fail)(function, 1, 999, 0);
    }
    CHECK(!is_pinned(pages + 0, kPage) && SIM(counter)("registrations") == 0);
  }
}

}  // namespace
}  // namespace dlferry::cuda

int main() {
  using namespace dlferry::cuda;
  constexpr Machine kPlain{"devices=2,delay_us=0"};
  ON(kPlain, ranges_that_are_known);
  ON(kPlain, short_ranges_beside_a_long_one);
  ON(kPlain, the_driver_is_asked_about_large_unknown_ranges);
  ON(kPlain, what_two_ranges_hold_is_not_pinned);
  ON(kPlain, registrations_are_shared);
  ON(kPlain, registrations_that_overlap_are_refused);
  ON(kPlain, memory_of_others_is_left_to_them);
  ON(kPlain, read_only_memory);
  ON(Machine{"read_only_register=0"}, read_only_memory_on_devices_that_cannot);
  ON(Machine{"register_result=801"}, registration_refused);
  ON(kPlain, figures);
  ON(kPlain, many_threads);
  ON(kPlain, forked_children);
  ON(kPlain, a_lost_context);
  ON(kPlain, failures_are_forgotten);
  return dlferry::test::finish();
}
