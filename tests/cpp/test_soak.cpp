// A randomised soak: several threads, thousands of transfers of all kinds, every byte compared.
//
// Usage: test_soak [--seconds N] [--seed S]
#include <atomic>
#include <cstdlib>
#include <string_view>
#include <thread>

#include "soak_case.h"

namespace {

using namespace dlferry;
using namespace dlferry::cuda;
using namespace dlferry::test;
using Clock = std::chrono::steady_clock;

constexpr std::size_t kMost = std::size_t{64} << 20;
constexpr int kThreads = 3;

struct Options {
  double seconds = 20;
  std::uint64_t seed = 20;
};

struct Tally {
  std::atomic<std::uint64_t> transfers, bytes, inlined, refused, ordered, cancelled, dropped;
};
Tally tally;

// A transfer that may be on its way, with all that it needs.
struct Going {
  std::unique_ptr<SoakCase> what;
  std::shared_ptr<Transfer> transfer;
};

// What one thread does: a few transfers at a time, ended in any order.
class Soaker {
 public:
  explicit Soaker(std::uint64_t seed) : random_(seed) {}

  void run(Clock::time_point end) {
    while (Clock::now() < end && failures == 0) step();
    while (!going_.empty()) finish_one();
    open_gate();
  }

 private:
  void step() {
    if (!gate_ && one_in(random_, 20)) gate_ = SIM(gate)(stream_.number);
    if (one_in(random_, 10)) SIM(kernel)(stream_.number, random_() % 300);
    start_one();
    if (one_in(random_, 8)) open_gate();
    while (going_.size() > random_() % 24) finish_one();
  }

  // Mostly small ones; a large one now and then.
  std::size_t most_bytes() {
    if (one_in(random_, 200)) return kMost;
    return one_in(random_, 8) ? std::size_t{6} << 20 : std::size_t{100} << 10;
  }

  void start_one() {
    TransferEngine& engine = TransferEngine::on(0);
    Going going{std::make_unique<SoakCase>(random_, most_bytes()), nullptr};
    const bool ordered = one_in(random_, 4);
    if (one_in(random_, 2)) {
      going.transfer = engine.start_inline(going.what->request(stream_.get(), false));
      ++(going.transfer ? tally.inlined : tally.refused);
    }
    if (!going.transfer) {
      going.transfer = engine.start(going.what->request(stream_.get(), ordered));
      if (ordered) ++tally.ordered;
    }
    ++tally.transfers;
    const bool behind_gate = gate_ != 0;
    if (!behind_gate && one_in(random_, 10)) going.transfer->wait(stream_.get());
    if (one_in(random_, 12)) return cancel(going);
    if (!behind_gate && going.what->to_device() && one_in(random_, 6)) {
      going.transfer->wait_until_read();
      going.what->spoil_source(random_);
    }
    if (one_in(random_, 4)) (void)going.transfer->is_done();
    if (one_in(random_, 4)) (void)going.transfer->synchronize(std::chrono::microseconds(50));
    going_.push_back(std::move(going));
  }

  void cancel(Going& going) {
    const bool cancelled = going.transfer->cancel();
    open_gate();
    bool thrown = false;
    try {
      CHECK(going.transfer->synchronize(kSoon));
    } catch (const Cancelled&) {
      thrown = true;
    }
    CHECK(thrown == cancelled);
    CHECK(going.transfer->is_done());
    if (thrown) ++tally.cancelled;
    thrown ? going.what->check_outside() : going.what->check();
  }

  void finish_one() {
    const std::size_t which = random_() % going_.size();
    std::swap(going_[which], going_.back());
    Going going = std::move(going_.back());
    going_.pop_back();
    if (!going.transfer->is_done()) open_gate();
    if (one_in(random_, 8)) return drop(going);
    CHECK(going.transfer->synchronize(kSoon));
    going.what->check();
    tally.bytes += going.what->wire_bytes();
  }

  // The handle goes first; the memory is kept until what comes later in its lane is done.
  void drop(Going& going) {
    const std::weak_ptr<Transfer> watched = going.transfer;
    going.transfer.reset();
    while (const std::shared_ptr<Transfer> alive = watched.lock()) {
      if (alive->is_done()) break;
      std::this_thread::yield();
    }
    open_gate();
    CHECK(SIM(stream_wait)(stream_.number) == 0);  // an inline one is known to nobody else
    going.what->check();
    ++tally.dropped;
  }

  void open_gate() {
    if (gate_) CHECK(SIM(open)(gate_) == 0);
    gate_ = 0;
  }

  Random random_;
  const UserStream stream_;
  std::uint64_t gate_ = 0;
  std::vector<Going> going_;
};

void soak(const Options& options) {
  const auto end = Clock::now() + std::chrono::duration_cast<Clock::duration>(
                                      std::chrono::duration<double>(options.seconds));
  std::vector<std::thread> threads;
  for (int i = 0; i < kThreads; ++i) {
    threads.emplace_back([&options, end, i] {
      try {
        Soaker(options.seed * 1000 + static_cast<std::uint64_t>(i)).run(end);
      } catch (const std::exception& error) {
        std::fprintf(stderr, "thrown: %s\n", error.what());
        CHECK(!"nothing is thrown");
      }
    });
  }
  for (std::thread& thread : threads) thread.join();
  close_engine();
}

void report(const Machine& machine) {
  std::printf(
      "%s: %llu transfers, %llu MiB; %llu inline, %llu refused inline, %llu ordered, %llu "
      "cancelled, %llu dropped\n",
      machine.settings, static_cast<unsigned long long>(tally.transfers),
      static_cast<unsigned long long>(tally.bytes >> 20U),
      static_cast<unsigned long long>(tally.inlined),
      static_cast<unsigned long long>(tally.refused),
      static_cast<unsigned long long>(tally.ordered),
      static_cast<unsigned long long>(tally.cancelled),
      static_cast<unsigned long long>(tally.dropped));
}

}  // namespace

int main(int argc, char** argv) {
  Options options;
  for (int i = 1; i + 1 < argc; i += 2) {
    const std::string_view name = argv[i];
    if (name == "--seconds") options.seconds = std::atof(argv[i + 1]);
    if (name == "--seed") options.seed = std::strtoull(argv[i + 1], nullptr, 10);
  }
  options.seconds /= 2;
  for (const char* settings :
       {"version=13.0,delay_us=300,log=0", "version=12.4,delay_us=20,rate=4000000000,log=0"}) {
    const Machine machine{.settings = settings};
    const int status = status_on(machine, [&] {
      alarm(static_cast<unsigned>(options.seconds) + 60);
      soak(options);
      report(machine);
    });
    if (status != 0) {
      std::fprintf(stderr, "%s: status %d; seed %llu\n", settings, status,
                   static_cast<unsigned long long>(options.seed));
    }
    CHECK(status == 0);
  }
  return finish();
}
