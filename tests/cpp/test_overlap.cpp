// Filling or draining one slot while the link works on others, as the simulated driver's log has
// it. As a test it looks at the order of things; `test_overlap --measure` takes their times.
#include <algorithm>
#include <set>
#include <string_view>
#include <thread>

#include "link.h"
#include "sim_log.h"
#include "tensor/workers.h"

namespace {

using namespace dlferry;
using namespace dlferry::cuda;
using namespace dlferry::test;
using Clock = std::chrono::steady_clock;

constexpr std::size_t kSlotBytes = std::size_t{4} << 20;
constexpr std::size_t kSlots = 4;  // of a lane, by default

struct Way {
  Direction direction;
  const char* transfers;
  const char* call;
  const char* submitted;  // counter: copies at the engine, at most one of which is on the link
  int engine;
};
constexpr Way kWays[] = {
    {Direction::kToDevice, "H2D", "cuMemcpyHtoDAsync", "h2d_bytes", 0},
    {Direction::kToHost, "D2H", "cuMemcpyDtoHAsync", "d2h_bytes", 1},
};

Request request_for(const Way& way, std::vector<std::byte>& host, const DeviceBlock& block) {
  Request request{.direction = way.direction};
  request.leaves.push_back(
      leaf_on(host.data(), static_cast<std::int64_t>(host.size()), block.data));
  return request;
}

std::uint64_t slot_of(const Way& way, const LogLine& line) {
  return way.direction == Direction::kToDevice ? line.source : line.destination;
}

// What holds at any speed: parts go in order, never too many, and no slot is used twice at a time.
void check_bounds(const Way& way, std::size_t parts) {
  const std::vector<LogLine> calls = logged(way.call), copies = logged(way.transfers);
  CHECK(calls.size() == parts && copies.size() == parts);
  if (calls.size() != parts || copies.size() != parts) return;
  std::set<std::uint64_t> slots;
  for (std::size_t n = 0; n < parts; ++n) {
    const std::uint64_t slot = slot_of(way, calls[n]);
    slots.insert(slot);
    CHECK(slot == slot_of(way, copies[n]));
    if (n >= Lane::kMostInFlight) CHECK(copies[n - Lane::kMostInFlight].landed <= calls[n].begin);
    for (std::size_t before = 0; before < n; ++before) {
      if (slot_of(way, calls[before]) == slot) CHECK(copies[before].landed <= calls[n].begin);
    }
  }
  CHECK(slots.size() <= kSlots);
}

// While the first part is on the link, the next are filled and submitted, as many as are allowed.
void parts_queue_up_behind_a_slow_link() {
  for (const Way& way : kWays) {
    TransferEngine& engine = TransferEngine::on(0);
    const std::size_t parts = 7;
    std::vector<std::byte> host = random_bytes(parts * kSlotBytes);
    const std::vector<std::byte> expected = host;
    const DeviceBlock block(host.size());
    block.write(host);
    SIM(stall)(0, way.engine, 1);
    SIM(log_clear)();
    const std::int64_t calls_before = SIM(calls)(way.call);
    const auto transfer = engine.start(request_for(way, host, block));
    while (SIM(calls)(way.call) - calls_before < Lane::kMostInFlight) std::this_thread::yield();
    CHECK(SIM(counter)(way.submitted) == 0);  // no byte has moved
    SIM(stall)(0, way.engine, 0);
    CHECK(transfer->synchronize(kSoon));
    CHECK(host == expected && block.read() == expected);
    check_bounds(way, parts);
    close_engine();
  }
}

// On a link so slow that all else takes no time, it never waits for anybody.
void a_slow_link_never_waits() {
  for (const Way& way : kWays) {
    TransferEngine& engine = TransferEngine::on(0);
    const std::size_t parts = 6;
    std::vector<std::byte> host = random_bytes(parts * kSlotBytes);
    const DeviceBlock block(host.size());
    CHECK(engine.start(request_for(way, host, block))->synchronize(kSoon));  // all is warm
    SIM(log_clear)();
    CHECK(SIM(configure)("rate=80000000,link_sleeps=1") == 0);  // 50 ms for a part
    CHECK(engine.start(request_for(way, host, block))->synchronize(kSoon));
    CHECK(SIM(configure)("rate=0,link_sleeps=0") == 0);
    const std::vector<LogLine> calls = logged(way.call), copies = logged(way.transfers);
    CHECK(calls.size() == parts && copies.size() == parts);
    for (std::size_t n = 0; n + 1 < std::min(calls.size(), copies.size()); ++n) {
      CHECK(calls[n + 1].end < copies[n].landed);
      CHECK(copies[n + 1].begin == copies[n].end);
    }
    check_bounds(way, parts);
    close_engine();
  }
}

// ---- times ----

// Host memory to be measured with: bytes as they are, or a transposed table of float64 that crosses
// the link as float32, which keeps the host busier and the simulated link's own copies small.
struct Table {
  static constexpr std::int64_t kEdge = 4096;
  bool cast;
  std::vector<std::byte> memory = std::vector<std::byte>(8 * kEdge * kEdge, std::byte{1});

  [[nodiscard]] std::size_t wire_bytes() const { return memory.size() / (cast ? 2 : 1); }
  [[nodiscard]] Leaf leaf(cu::DevicePtr device) {
    if (!cast) return leaf_on(memory.data(), static_cast<std::int64_t>(memory.size()), device);
    const std::int64_t shape[] = {kEdge, kEdge}, strides[] = {8, 8 * kEdge};
    const View view{.data = memory.data(),
                    .shape = shape,
                    .strides = strides,
                    .ndim = 2,
                    .dtype = DType::kFloat64};
    return {.host = KeptView(view), .wire = DType::kFloat32, .device = device};
  }
  [[nodiscard]] Request request(const Way& way, cu::DevicePtr device) {
    Request request{.direction = way.direction};
    request.leaves.push_back(leaf(device));
    return request;
  }
};

double seconds_of(const auto& body) {
  const auto start = Clock::now();
  body();
  return std::chrono::duration<double>(Clock::now() - start).count();
}

// What the lane does on the host with each part, and nothing else.
double host_alone(const Way& way, Table& table) {
  HostAllocation ring = [] {
    const ContextGuard guard(0);
    return HostAllocation(kSlots * kSlotBytes);
  }();
  return seconds_of([&] {
    std::vector<Leaf> leaves;
    leaves.push_back(table.leaf(256));
    Parts parts(std::move(leaves), false, kSlotBytes);
    for (std::size_t n = 0; !parts.at_end(); ++n) {
      const Part part = parts.next();
      std::byte* const slot = ring.data() + n % kSlots * kSlotBytes;
      way.direction == Direction::kToDevice ? fill_slot(part, slot) : drain_slot(part, slot);
    }
  });
}

// `no_link`: the whole transfer on a link that takes no time; the simulator's own copies, which
// compete with the host's for the memory, are in it as they are in `total`.
struct Measured {
  double total, host, no_link, link, gaps;
  [[nodiscard]] double ratio() const { return total / std::max(host, link); }
  [[nodiscard]] double fair_ratio() const { return total / std::max(no_link, link); }
};

Measured measure(const Way& way, Table& table, double slowness) {
  TransferEngine& engine = TransferEngine::on(0);
  const DeviceBlock block(table.wire_bytes());
  Measured m{};
  m.host = std::min(host_alone(way, table), host_alone(way, table));
  m.link = slowness * m.host;
  const auto rate = static_cast<long long>(static_cast<double>(table.wire_bytes()) / m.link);
  const auto transfer = [&] {
    CHECK(engine.start(table.request(way, block.data))->synchronize(kSoon));
  };
  transfer();
  m.no_link = seconds_of(transfer);
  const std::string setting = "link_sleeps=1,rate=" + std::to_string(rate);
  CHECK(SIM(configure)(setting.c_str()) == 0);
  SIM(log_clear)();
  m.total = seconds_of(transfer);
  CHECK(SIM(configure)("rate=0,link_sleeps=0") == 0);
  const std::vector<LogLine> copies = logged(way.transfers);
  for (std::size_t n = 1; n < copies.size(); ++n) {
    m.gaps += 1e-9 * static_cast<double>(copies[n].begin - copies[n - 1].end);
  }
  return m;
}

void print(const Way& way, const Table& table, std::vector<Measured> rounds) {
  std::sort(rounds.begin(), rounds.end(),
            [](const Measured& a, const Measured& b) { return a.ratio() < b.ratio(); });
  const Measured& m = rounds[rounds.size() / 2];
  std::printf(
      "%s %s, %zu MiB: host alone %.1f ms, link alone %.1f ms, both %.1f ms = %.2f x the slower "
      "(quartiles %.2f, %.2f); no link %.1f ms, of which %.2f x; gaps %.1f %% of the link's time\n",
      way.transfers, table.cast ? "transposed and cast" : "plain", table.wire_bytes() >> 20U,
      1e3 * m.host, 1e3 * m.link, 1e3 * m.total, m.ratio(), rounds[rounds.size() / 4].ratio(),
      rounds[rounds.size() * 3 / 4].ratio(), 1e3 * m.no_link, m.fair_ratio(),
      100 * m.gaps / m.link);
}

void measure_all() {
  constexpr int kRounds = 9;
  set_worker_count(1);  // a core for the link, which copies here, and one for the host
  for (const bool cast : {false, true}) {
    Table table{.cast = cast};
    for (const double slowness : {0.5, 1.0, 2.0}) {
      for (const Way& way : kWays) {
        std::vector<Measured> rounds;
        for (int i = 0; i < kRounds; ++i) rounds.push_back(measure(way, table, slowness));
        print(way, table, std::move(rounds));
      }
    }
  }
  close_engine();
}

}  // namespace

int main(int argc, char** argv) {
  const Machine machine{.settings = "version=13.0,delay_us=0"};
  if (argc == 2 && std::string_view(argv[1]) == "--measure") {
    ON(machine, measure_all);
    return finish();
  }
  ON(machine, parts_queue_up_behind_a_slow_link);
  ON(machine, a_slow_link_never_waits);
  return finish();
}
