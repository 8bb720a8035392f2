// Transfers on simulated drivers: who waits for whom, and how they end.
#include <cstring>
#include <memory>
#include <thread>
#include <vector>

#include "cuda/engine.h"
#include "link.h"

namespace {

using namespace dlferry;
using namespace dlferry::cuda;
using namespace dlferry::test;
using std::chrono::milliseconds;

// While work is queued on the caller's stream, slots run out and nobody waits.
void a_busy_stream_delays_no_host() {
  TransferEngine& engine = TransferEngine::on(0);
  const UserStream stream;
  const std::uint64_t gate = SIM(gate)(stream.number);
  std::vector<std::byte> source = random_bytes(4096);
  const DeviceBlock block(4096);
  std::vector<std::shared_ptr<Transfer>> started;
  for (;;) {
    Request request{.stream = stream.get()};
    request.leaves.push_back(leaf_on(source.data(), 4096, block.data));
    auto transfer = engine.start_inline(std::move(request));
    if (!transfer) break;
    CHECK(!transfer->is_done());
    CHECK(!transfer->synchronize(milliseconds(1)));
    started.push_back(std::move(transfer));
    CHECK(started.size() <= InlineSlots::kSlots);
  }
  CHECK(started.size() == InlineSlots::kSlots);
  const DeviceBlock elsewhere(4096);
  Request request{.stream = stream.get()};
  request.leaves.push_back(leaf_on(source.data(), 4096, elsewhere.data));
  CHECK(engine.start(std::move(request))->synchronize(kSoon));
  CHECK(elsewhere.read() == source);
  CHECK(SIM(open)(gate) == 0);
  for (const auto& transfer : started) CHECK(transfer->synchronize(kSoon));
  CHECK(block.read() == source);
  close_engine();
}

void ordered_copies_wait_for_the_stream() {
  TransferEngine& engine = TransferEngine::on(0);
  const UserStream stream;
  const DeviceBlock block(1 << 20);
  const std::uint64_t gate = SIM(gate)(stream.number);
  SIM(fill)(stream.number, block.data, 7, block.bytes);
  std::vector<std::byte> result(block.bytes);
  Request request{.direction = Direction::kToHost, .stream = stream.get(), .ordered = true};
  request.leaves.push_back(leaf_on(result.data(), 1 << 20, block.data));
  const auto back = engine.start(std::move(request));
  CHECK(!back->synchronize(milliseconds(5)));
  // Others go on meanwhile, in either direction.
  std::vector<std::byte> other = random_bytes(100), arrived(100);
  const DeviceBlock second(100);
  Request there, and_back{.direction = Direction::kToHost};
  there.leaves.push_back(leaf_on(other.data(), 100, second.data));
  CHECK(engine.start(std::move(there))->synchronize(kSoon));
  and_back.leaves.push_back(leaf_on(arrived.data(), 100, second.data));
  CHECK(engine.start(std::move(and_back))->synchronize(kSoon));
  CHECK(arrived == other);
  CHECK(!back->is_done());
  CHECK(SIM(open)(gate) == 0);
  CHECK(back->synchronize(kSoon));
  CHECK(result == std::vector<std::byte>(block.bytes, std::byte{7}));
  close_engine();
}

void a_stream_waits_for_the_copy() {
  TransferEngine& engine = TransferEngine::on(0);
  const UserStream stream;
  const std::size_t bytes = std::size_t{9} << 20;
  std::vector<std::byte> source = random_bytes(bytes);
  const DeviceBlock block(bytes), copy(bytes);
  SIM(stall)(0, 0, 1);
  Request request{.stream = stream.get()};
  request.leaves.push_back(leaf_on(source.data(), static_cast<std::int64_t>(bytes), block.data));
  const auto there = engine.start(std::move(request));
  std::thread opener([] {
    while (SIM(counter)("h2d_at_engine") == 0) std::this_thread::yield();
    SIM(stall)(0, 0, 0);
  });
  there->wait(stream.get());
  SIM(copy)(stream.number, copy.data, block.data, bytes);
  CHECK(SIM(stream_wait)(stream.number) == 0);
  CHECK(copy.read() == source);
  opener.join();
  CHECK(there->synchronize(kSoon));
  close_engine();
}

void what_was_cancelled_ends() {
  TransferEngine& engine = TransferEngine::on(0);
  const std::size_t bytes = std::size_t{64} << 20;
  std::vector<std::byte> source(bytes);
  const DeviceBlock block(bytes);
  SIM(stall)(0, 0, 1);
  Request request;
  request.leaves.push_back(leaf_on(source.data(), static_cast<std::int64_t>(bytes), block.data));
  const auto there = engine.start(std::move(request));
  while (SIM(counter)("h2d_at_engine") == 0) std::this_thread::yield();
  CHECK(there->cancel());
  CHECK(!there->is_done());  // parts are on the link
  SIM(stall)(0, 0, 0);
  bool cancelled = false;
  try {
    (void)there->synchronize(kSoon);
  } catch (const Cancelled&) {
    cancelled = true;
  }
  CHECK(cancelled);
  CHECK(there->is_done());
  CHECK(SIM(counter)("h2d_bytes") < static_cast<std::int64_t>(bytes));
  CHECK(!there->cancel());
  close_engine();
}

void an_urgent_copy_overtakes() {
  TransferEngine& engine = TransferEngine::on(0);
  const std::size_t bytes = std::size_t{64} << 20;
  std::vector<std::byte> source(bytes), urgent = random_bytes(1000);
  const DeviceBlock block(bytes), other(1000);
  SIM(stall)(0, 0, 1);
  Request request, small;
  request.leaves.push_back(leaf_on(source.data(), static_cast<std::int64_t>(bytes), block.data));
  const auto there = engine.start(std::move(request));
  while (SIM(counter)("h2d_at_engine") == 0) std::this_thread::yield();
  small.leaves.push_back(leaf_on(urgent.data(), 1000, other.data));
  const auto quick = engine.start(std::move(small));
  quick->wait_until_read();  // submitted, though the link stands still
  SIM(stall)(0, 0, 0);
  CHECK(quick->synchronize(kSoon));
  CHECK(there->synchronize(kSoon));
  CHECK(other.read() == urgent);
  close_engine();
}

void captures_are_refused() {
  TransferEngine& engine = TransferEngine::on(0);
  const UserStream stream;
  std::vector<std::byte> source(100);
  const DeviceBlock block(100);
  CHECK(SIM(capture_begin)(stream.number, 0) == 0);
  for (const bool inline_copy : {false, true}) {
    Request request{.stream = stream.get()};
    request.leaves.push_back(leaf_on(source.data(), 100, block.data));
    const auto thrown = thrown_by([&] {
      (void)(inline_copy ? engine.start_inline(std::move(request))
                         : engine.start(std::move(request)));
    });
    CHECK(thrown.code == cu::kErrorStreamCaptureUnsupported);
    CHECK(thrown.says("being captured"));
  }
  // On another stream the lanes' threads work without breaking the capture.
  const UserStream second;
  Request request{.stream = second.get()};
  std::vector<std::byte> large = random_bytes(std::size_t{9} << 20);
  const DeviceBlock there(large.size());
  request.leaves.push_back(
      leaf_on(large.data(), static_cast<std::int64_t>(large.size()), there.data));
  CHECK(engine.start(std::move(request))->synchronize(kSoon));
  CHECK(there.read() == large);
  CHECK(SIM(capture_end)(stream.number, nullptr) == 0);
  close_engine();
}

void a_capture_is_not_made_to_wait() {
  TransferEngine& engine = TransferEngine::on(0);
  const UserStream stream;
  const UserStream captured;
  std::vector<std::byte> source = random_bytes(4096);
  const DeviceBlock block(4096);
  const std::uint64_t gate = SIM(gate)(stream.number);
  Request request{.stream = stream.get()};
  request.leaves.push_back(leaf_on(source.data(), 4096, block.data));
  const auto transfer = engine.start_inline(std::move(request));
  CHECK(transfer != nullptr);
  CHECK(SIM(capture_begin)(captured.number, 0) == 0);
  const auto thrown = thrown_by([&] { (void)transfer->wait(captured.get()); });
  CHECK(thrown.code == cu::kErrorStreamCaptureUnsupported && thrown.says("before the capture"));
  CHECK(SIM(open)(gate) == 0);
  CHECK(transfer->synchronize(kSoon));
  CHECK(transfer->wait(captured.get()));  // nothing is left to wait for
  CHECK(SIM(capture_end)(captured.number, nullptr) == 0);
  CHECK(block.read() == source);
  close_engine();
}

void errors_reach_the_right_transfer() {
  TransferEngine& engine = TransferEngine::on(0);
  const std::size_t bytes = std::size_t{17} << 20;
  std::vector<std::byte> source = random_bytes(bytes);
  const DeviceBlock block(bytes);
  const auto transfer = [&] {
    Request request;
    request.leaves.push_back(leaf_on(source.data(), static_cast<std::int64_t>(bytes), block.data));
    return engine.start(std::move(request));
  };
  SIM(fail)("cuMemcpyHtoDAsync", 3, cu::kErrorInvalidValue, 0);
  const auto failing = transfer();
  const auto thrown = thrown_by([&] { (void)failing->synchronize(kSoon); });
  CHECK(thrown.says("cuMemcpyHtoDAsync") && thrown.code == cu::kErrorInvalidValue);
  CHECK(failing->is_done());
  CHECK(thrown_by([&] { failing->wait(nullptr); }).code == cu::kErrorInvalidValue);
  CHECK(transfer()->synchronize(kSoon));
  CHECK(block.read() == source);
  close_engine();
}

// Asked once; what it refuses crosses copy by copy.
void a_refused_batch_does_not_fail() {
  TransferEngine& engine = TransferEngine::on(0);
  const bool has_batch = driver().cuMemcpyBatchAsync || driver().cuMemcpyBatchAsync_v2;
  SIM(fail)("cuMemcpyBatchAsync", 0, cu::kErrorNotSupported, 0);
  for (int round = 0; round < 2; ++round) {
    std::vector<std::byte> source = random_bytes(16 << 12);
    const DeviceBlock block(2 * source.size());
    Request request;
    for (std::size_t i = 0; i < 16; ++i) {
      request.leaves.push_back(leaf_on(source.data() + (i << 12), 1 << 12, block.data + (i << 13)));
    }
    CHECK(engine.start(std::move(request))->synchronize(kSoon));
    const std::vector<std::byte> arrived = block.read();
    for (std::size_t i = 0; i < 16; ++i) {
      CHECK(std::memcmp(&arrived[i << 13], &source[i << 12], 1 << 12) == 0);
    }
  }
  CHECK(SIM(calls)("cuMemcpyBatchAsync") == (has_batch ? 1 : 0));
  CHECK(SIM(calls)("cuMemcpyHtoDAsync") == 32);
  close_engine();
}

void other_errors_of_a_batch_are_told() {
  if (!driver().cuMemcpyBatchAsync && !driver().cuMemcpyBatchAsync_v2) return;
  TransferEngine& engine = TransferEngine::on(0);
  SIM(fail)("cuMemcpyBatchAsync", 1, cu::kErrorUnknown, 0);
  std::vector<std::byte> source = random_bytes(2 << 12);
  const DeviceBlock block(2 * source.size());
  Request request;
  for (std::size_t i = 0; i < 2; ++i) {
    request.leaves.push_back(leaf_on(source.data() + (i << 12), 1 << 12, block.data + (i << 13)));
  }
  const auto failing = engine.start(std::move(request));
  const auto thrown = thrown_by([&] { (void)failing->synchronize(kSoon); });
  CHECK(thrown.says("cuMemcpyBatchAsync") && thrown.code == cu::kErrorUnknown);
  close_engine();
}

void closing_fails_what_is_queued() {
  TransferEngine& engine = TransferEngine::on(0);
  const UserStream stream;
  const DeviceBlock block(4096);
  std::vector<std::byte> result(4096);
  const std::uint64_t gate = SIM(gate)(stream.number);
  Request request{.direction = Direction::kToHost, .stream = stream.get(), .ordered = true};
  request.leaves.push_back(leaf_on(result.data(), 4096, block.data));
  const auto back = engine.start(std::move(request));
  close_engine();
  bool failed = false;
  try {
    (void)back->synchronize(kSoon);
  } catch (const Unavailable&) {
    failed = true;
  }
  CHECK(failed);
  CHECK(SIM(open)(gate) == 0);
}

}  // namespace

int main() {
  for (const char* settings :
       {"version=13.0,seed=1", "version=12.8,seed=2,delay_us=0", "version=12.4,seed=3"}) {
    const Machine machine{.settings = settings};
    ON(machine, a_busy_stream_delays_no_host);
    ON(machine, ordered_copies_wait_for_the_stream);
    ON(machine, a_stream_waits_for_the_copy);
    ON(machine, what_was_cancelled_ends);
    ON(machine, an_urgent_copy_overtakes);
    ON(machine, captures_are_refused);
    ON(machine, a_capture_is_not_made_to_wait);
    ON(machine, errors_reach_the_right_transfer);
    ON(machine, a_refused_batch_does_not_fail);
    ON(machine, other_errors_of_a_batch_are_told);
    ON(machine, closing_fails_what_is_queued);
  }
  return finish();
}
