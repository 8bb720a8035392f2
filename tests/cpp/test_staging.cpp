// The memory between: where none can be page-locked, and slots that an error took.
#include <chrono>
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

constexpr std::size_t kMiB = std::size_t{1} << 20;

std::shared_ptr<Transfer> start(Direction direction, std::vector<std::byte>& host,
                                const DeviceBlock& block, cu::Stream stream = cu::kStreamLegacy) {
  Request request{.direction = direction, .stream = stream};
  request.leaves.push_back(
      leaf_on(host.data(), static_cast<std::int64_t>(host.size()), block.data));
  return TransferEngine::on(0).start(std::move(request));
}

// Whether a function of the driver is called so often soon.
bool is_called(const char* function, long long times) {
  const auto deadline = std::chrono::steady_clock::now() + kSoon;
  while (SIM(calls)(function) < times) {
    if (std::chrono::steady_clock::now() > deadline) return false;
    std::this_thread::yield();
  }
  return true;
}

// ---- nothing can be page-locked ----

void there_and_back_through_ordinary_memory() {
  const UserStream stream;
  const std::uint64_t gate = SIM(gate)(stream.number);  // nobody waits for what is queued
  CHECK(why_ordinary() == nullptr);
  for (const std::size_t bytes : {std::size_t{1}, 4 * kMiB, 21 * kMiB + 77}) {
    std::vector<std::byte> source = random_bytes(bytes);
    const std::vector<std::byte> expected = source;
    const DeviceBlock block(bytes);
    const auto there = start(Direction::kToDevice, source, block, stream.get());
    there->wait_until_read();
    std::memset(source.data(), 0xEE, bytes);
    CHECK(there->synchronize(kSoon) && block.read() == expected);
    CHECK(start(Direction::kToHost, source, block, stream.get())->synchronize(kSoon));
    CHECK(source == expected);
  }
  CHECK(!SIM(stream_is_idle)(stream.number));
  SIM(open)(gate);
  CHECK(std::string(why_ordinary()).find("cuMemHostAlloc failed") == 0);
  CHECK(TransferEngine::on(0).staging_bytes() == 0);
  CHECK(pinned_stats().allocations.allocated == 0 && pinned_stats().active_bytes.allocated == 0);
  CHECK(SIM(calls)("cuMemHostAlloc") == 2);  // asked once for each direction
  close_engine();
}

void what_is_ordered_waits_for_its_stream() {
  const UserStream stream;
  const DeviceBlock block(kMiB);
  const std::uint64_t gate = SIM(gate)(stream.number);
  SIM(fill)(stream.number, block.data, 7, block.bytes);
  std::vector<std::byte> result(block.bytes);
  Request request{.direction = Direction::kToHost, .stream = stream.get(), .ordered = true};
  request.leaves.push_back(leaf_on(result.data(), kMiB, block.data));
  const auto back = TransferEngine::on(0).start(std::move(request));
  CHECK(!back->synchronize(std::chrono::milliseconds(5)));
  SIM(open)(gate);
  CHECK(back->synchronize(kSoon));
  CHECK(result == std::vector<std::byte>(kMiB, std::byte{7}));
  close_engine();
}

void many_leaves_cross_one_by_one() {
  std::vector<std::byte> source = random_bytes(64 << 12);
  const DeviceBlock block(2 * source.size());
  Request request;
  for (std::size_t i = 0; i < 64; ++i) {
    request.leaves.push_back(leaf_on(source.data() + (i << 12), 1 << 12, block.data + (i << 13)));
  }
  CHECK(TransferEngine::on(0).start(std::move(request))->synchronize(kSoon));
  const std::vector<std::byte> arrived = block.read();
  for (std::size_t i = 0; i < 64; ++i) {
    CHECK(std::memcmp(&arrived[i << 13], &source[i << 12], 1 << 12) == 0);
  }
  CHECK(SIM(calls)("cuMemcpyBatchAsync") == 0);
  close_engine();
}

// The driver would hold up the caller until its stream has come so far.
void nothing_goes_inline() {
  const UserStream stream;
  std::vector<std::byte> source = random_bytes(100);
  const DeviceBlock block(100);
  for (int i = 0; i < 3; ++i) {
    Request request{.stream = stream.get()};
    request.leaves.push_back(leaf_on(source.data(), 100, block.data));
    CHECK(TransferEngine::on(0).start_inline(std::move(request)) == nullptr);
  }
  CHECK(SIM(calls)("cuMemHostAlloc") == 1 && why_ordinary() != nullptr);
  close_engine();
}

void other_errors_stay_errors() {
  std::vector<std::byte> source = random_bytes(kMiB);
  const DeviceBlock block(kMiB);
  SIM(fail)("cuMemHostAlloc", 1, cu::kErrorUnknown, 0);
  const auto failed = start(Direction::kToDevice, source, block);
  CHECK(thrown_by([&] { (void)failed->synchronize(kSoon); }).code == cu::kErrorUnknown);
  CHECK(start(Direction::kToDevice, source, block)->synchronize(kSoon));
  CHECK(block.read() == source && why_ordinary() == nullptr);
  CHECK(TransferEngine::on(0).staging_bytes() > 0);
  close_engine();
}

// ---- slots that an error took ----

// A copy is submitted, and neither its end nor that of its stream can be told.
void lose_a_slot(const DeviceBlock& block) {
  std::vector<std::byte> source = random_bytes(100);
  SIM(fail)("cuEventRecord", 1, cu::kErrorUnknown, 0);
  SIM(fail)("cuStreamSynchronize", 1, cu::kErrorUnknown, 0);
  const auto failed = start(Direction::kToDevice, source, block);
  CHECK(thrown_by([&] { (void)failed->synchronize(kSoon); }).code == cu::kErrorUnknown);
  CHECK(SIM(counter)("faults_fired") % 2 == 0);
  const cu::Stream stream = TransferEngine::on(0).stream(Direction::kToDevice);
  SIM(stream_wait)(reinterpret_cast<std::uint64_t>(stream));  // now it could be told
}

void lost_slots_come_back_one_by_one() {
  TransferEngine::set_staging_bytes(16 * kMiB);  // two slots for each direction
  const DeviceBlock block(12 * kMiB);
  std::vector<std::byte> source = random_bytes(12 * kMiB);
  for (int round = 0; round < 3; ++round) {
    lose_a_slot(block);
    CHECK(pinned_stats().active_requests.current == 0);
    const auto before = SIM(calls)("cuMemcpyHtoDAsync");
    SIM(stall)(0, 0, 1);
    const auto transfer = start(Direction::kToDevice, source, block);
    CHECK(is_called("cuMemcpyHtoDAsync", before + 2));  // while neither slot is free again
    SIM(stall)(0, 0, 0);
    CHECK(transfer->synchronize(kSoon) && block.read() == source);
  }
  close_engine();
}

// One slot is left, and the driver does not say whether the other one is free.
void one_slot_is_enough() {
  TransferEngine::set_staging_bytes(16 * kMiB);
  const DeviceBlock block(12 * kMiB);
  std::vector<std::byte> source = random_bytes(12 * kMiB);
  lose_a_slot(block);
  SIM(fail)("cuStreamSynchronize", 0, cu::kErrorUnknown, 0);
  CHECK(start(Direction::kToDevice, source, block)->synchronize(kSoon));
  CHECK(block.read() == source);
  close_engine();
}

}  // namespace

int main() {
  for (const char* settings : {"register_result=801,host_limit=0,version=13.0",
                               "register_result=2,host_limit=0,version=12.4,delay_us=0"}) {
    const Machine machine{.settings = settings};
    ON(machine, there_and_back_through_ordinary_memory);
    ON(machine, what_is_ordered_waits_for_its_stream);
    ON(machine, many_leaves_cross_one_by_one);
    ON(machine, nothing_goes_inline);
  }
  ON(Machine{"register_result=801"}, other_errors_stay_errors);
  ON(Machine{}, lost_slots_come_back_one_by_one);
  ON(Machine{}, one_slot_is_enough);
  return finish();
}
