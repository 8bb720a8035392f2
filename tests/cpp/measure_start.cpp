// What it costs the calling thread to start a small transfer, on a simulated driver without delay;
// and what of that is the simulator's. Prints medians and quartiles. Not a test.
#include <algorithm>
#include <cstring>

#include "link.h"

namespace {

using namespace dlferry;
using namespace dlferry::cuda;
using namespace dlferry::test;
using Clock = std::chrono::steady_clock;

constexpr std::size_t kBytes = 4096;
constexpr int kRounds = 20000;

double nanoseconds(Clock::duration duration) {
  return std::chrono::duration<double, std::nano>(duration).count();
}

void print(const char* what, std::vector<double> times) {
  std::sort(times.begin(), times.end());
  const auto at = [&](double share) {
    return times[static_cast<std::size_t>(share * static_cast<double>(times.size()))];
  };
  std::printf("%-44s %7.0f ns (quartiles %.0f, %.0f)\n", what, at(0.5), at(0.25), at(0.75));
}

// Times `body`, with `after` between, untimed.
template <class Body, class After>
void time(const char* what, const Body& body, const After& after) {
  std::vector<double> times;
  for (int i = 0; i < kRounds + kRounds / 10; ++i) {
    const auto start = Clock::now();
    body();
    const auto end = Clock::now();
    after();
    if (i >= kRounds / 10) times.push_back(nanoseconds(end - start));
  }
  print(what, std::move(times));
}

// The host memory is known to be page-locked, as what `pin` registers is.
void measure_start() {
  TransferEngine& engine = TransferEngine::on(0);
  const ContextGuard guard(0);  // as in a thread of torch's
  const UserStream stream;
  const DeviceBlock block(kBytes);
  auto* const pinned = static_cast<std::byte*>(SIM(pinned_alloc)(kBytes));
  std::vector<std::byte> pageable(kBytes);
  {
    const KnownRange known(pinned, kBytes);
    std::shared_ptr<Transfer> transfer;
    const auto request = [&](std::byte* data) {
      Request made{.stream = stream.get()};
      made.leaves.push_back(leaf_on(data, kBytes, block.data));
      return made;
    };
    const auto finish = [&] {
      CHECK(transfer->synchronize(kSoon));
      transfer.reset();
    };
    time("the clock", [] {}, [] {});
    time("making the request", [&] { (void)request(pinned); }, [] {});
    time(
        "start_inline, 4 KiB pinned", [&] { transfer = engine.start_inline(request(pinned)); },
        finish);
    time(
        "start_inline, 4 KiB pageable",
        [&] { transfer = engine.start_inline(request(pageable.data())); }, finish);
    time("start, 4 KiB pinned", [&] { transfer = engine.start(request(pinned)); }, finish);
    time(
        "start, 4 KiB pageable", [&] { transfer = engine.start(request(pageable.data())); },
        finish);

    const Driver& cuda = driver();
    const Event event(0);
    const auto drain = [&] { CHECK(cuda.cuEventSynchronize(event.get()) == cu::kSuccess); };
    time(
        "the driver calls of start_inline, pinned",
        [&] {
          cu::Context context = nullptr;
          cu::CaptureStatus status{};
          (void)cuda.cuCtxGetCurrent(&context);
          (void)cuda.cuStreamIsCapturing(stream.get(), &status);
          (void)cuda.cuMemcpyHtoDAsync_v2(block.data, pinned, kBytes, stream.get());
          (void)cuda.cuEventRecord(event.get(), stream.get());
        },
        drain);
    time(
        "... the copy alone",
        [&] { (void)cuda.cuMemcpyHtoDAsync_v2(block.data, pinned, kBytes, stream.get()); }, [] {});
    time(
        "the driver calls of start",
        [&] {
          cu::Context context = nullptr;
          cu::CaptureStatus status{};
          (void)cuda.cuCtxGetCurrent(&context);
          (void)cuda.cuStreamIsCapturing(stream.get(), &status);
        },
        [] {});
  }
  CHECK(SIM(pinned_free)(pinned) == 0);
  close_engine();
}

}  // namespace

int main() {
  const Machine machine{.settings = "version=13.0,delay_us=0,log=0"};
  ON(machine, measure_start);
  return finish();
}
