// Fault injection: every call of the driver that the standard scenario makes fails once, each time
// in a process of its own. What the fault belongs to ends with it, all else ends well, nothing
// hangs, no wrong byte is called right, and nothing is left behind.
//
// Usage: test_faults [--every K]; with K, only every Kth point.
#include <signal.h>
#include <sys/mman.h>
#include <sys/wait.h>

#include <algorithm>
#include <map>
#include <string_view>
#include <thread>

#include "fault_scenario.h"

namespace {

using namespace dlferry;
using namespace dlferry::test;

#ifdef __SANITIZE_THREAD__
constexpr unsigned kSecondsForAPoint = 60;
#else
constexpr unsigned kSecondsForAPoint = 10;
#endif

struct Point {
  const char* settings = "";
  const char* function = "";  // as SIM(fail) knows it; none: nothing fails
  unsigned nth = 0;
  int code = 0;
  bool sticky = false;
  const char* also = "";  // a function whose calls all fail, too
};

constexpr const char* kFunctions[] = {
#define DLFERRY_X(need, name, symbol, ...) #symbol,
    DLFERRY_CUDA_FUNCTIONS(DLFERRY_X)
#undef DLFERRY_X
        "cuGetProcAddress"};
constexpr std::size_t kFunctionCount = std::size(kFunctions);

// What children report.
struct Shared {
  std::int64_t calls[kFunctionCount];
  std::int64_t copies[2];
  std::atomic<int> fired, reported, lost;
};
Shared& shared = *static_cast<Shared*>(
    mmap(nullptr, sizeof(Shared), PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0));

bool is_one_of(std::string_view name, std::initializer_list<std::string_view> names) {
  return std::any_of(names.begin(), names.end(), [=](std::string_view one) {
    return name == one || (name.starts_with(one) && name.substr(one.size()) == "_v2");
  });
}

// Without these there is no driver, for as long as the process lives.
bool is_for_loading(const char* function) {
  return is_one_of(function,
                   {"cuInit", "cuDeviceGetCount", "cuDriverGetVersion", "cuGetProcAddress"});
}

// Where these fail there is another way, or nothing to be done, or somebody lets go.
bool may_be_absorbed(const Point& point) {
  if (is_one_of(point.function, {"cuMemHostAlloc"})) return point.code == cu::kErrorOutOfMemory;
  if (is_one_of(point.function, {"cuMemcpyBatchAsync", "cuMemcpyBatchAsync_v2"})) {
    return point.code == cu::kErrorInvalidValue;
  }
  return is_one_of(point.function,
                   {"cuGetErrorName", "cuGetErrorString", "cuDeviceGet", "cuDeviceGetAttribute",
                    "cuDeviceGetPCIBusId", "cuCtxGetCurrent", "cuCtxPushCurrent", "cuCtxPopCurrent",
                    "cuMemHostRegister", "cuMemHostUnregister", "cuMemFreeHost",
                    "cuPointerGetAttributes", "cuStreamDestroy", "cuEventDestroy",
                    "cuStreamSynchronize", "cuThreadExchangeStreamCaptureMode"});
}

bool is_failed(const Operation& operation) {
  return operation.outcome.kind != Outcome::kWell && operation.outcome.kind != Outcome::kCancelled;
}

// A context that is lost: who began later has the error, who began before may have it.
void judge_lost(const Point& point, const std::vector<Operation>& operations) {
  for (const Operation& operation : operations) {
    const Outcome& outcome = operation.outcome;
    if (operation.context_was_lost) CHECK(is_failed(operation));
    if (!is_failed(operation)) continue;
    CHECK(outcome.kind == Outcome::kError);
    // Or a copy that nobody could wait for came to memory that was gone.
    const bool follows = *point.also && outcome.code == cu::kErrorIllegalAddress;
    CHECK(outcome.code == static_cast<cu::Result>(point.code) || follows);
  }
}

void judge_unloadable(const Point& point, const std::vector<Operation>& operations) {
  const bool none = is_failed(operations.front());
  for (const Operation& operation : operations) {
    CHECK(is_failed(operation) == none);
    CHECK(!none || operation.outcome.kind == Outcome::kUnavailable);
    CHECK(!none || operation.outcome.text == operations.front().outcome.text);
  }
  CHECK(none || is_one_of(point.function, {"cuDriverGetVersion", "cuGetProcAddress"}));
}

// A call that fails and leaves the context alone: one operation has the error, at most.
void judge_plain(const Point& point, const std::vector<Operation>& operations, bool fired) {
  int failed = 0;
  bool hidden = false;  // behind a cancellation
  for (const Operation& operation : operations) {
    const bool cancelled = operation.outcome.kind == Outcome::kCancelled;
    hidden |= cancelled && operation.faults_after > operation.faults_before;
    if (!is_failed(operation)) continue;
    ++failed;
    CHECK(operation.outcome.kind == Outcome::kError);
    CHECK(operation.outcome.code == static_cast<cu::Result>(point.code));
    std::string_view name = point.function;
    if (name.ends_with("_v2")) name.remove_suffix(3);
    CHECK(operation.outcome.text.find(name) != std::string::npos);
    CHECK(operation.faults_after > 0);
  }
  CHECK(failed <= (fired ? 1 : 0));
  CHECK(failed == 1 || !fired || hidden || may_be_absorbed(point));
  shared.reported += failed;
}

void describe(const Point& point, const std::vector<Operation>& operations) {
  std::fprintf(stderr, "FAILED: %s, call %u, code %d%s%s%s (%s)\n", point.function, point.nth,
               point.code, point.sticky ? ", sticky" : "", *point.also ? ", also " : "", point.also,
               point.settings);
  for (const Operation& operation : operations) {
    std::fprintf(stderr, "  %s%s: %d %s\n", operation.name,
                 operation.context_was_lost ? " (context lost)" : "",
                 static_cast<int>(operation.outcome.kind), operation.outcome.text.c_str());
  }
}

void judge(const Point& point, const std::vector<Operation>& operations, bool fired, bool lost) {
  if (lost) {
    ++shared.lost;
    judge_lost(point, operations);
  } else if (is_for_loading(point.function)) {
    judge_unloadable(point, operations);
  } else {
    judge_plain(point, operations, fired);
  }
}

void check_the_end(const Point& point) {
  const cuda::PinnedStats stats = cuda::pinned_stats();
  CHECK(stats.allocations.current == 0 && stats.allocated_bytes.current == 0);
  CHECK(stats.active_requests.current == 0 && stats.active_bytes.current == 0);
  // Where the driver does not wait for a copy either, nobody can tell when its memory is free.
  if (!*point.also) check_nothing_is_left();
  CHECK(SIM(reset)() == 0);
}

void report_counts() {
  for (std::size_t i = 0; i < kFunctionCount; ++i) {
    shared.calls[i] = SIM(calls)(kFunctions[i]);
  }
  shared.copies[0] = SIM(counter)("h2d_copies");
  shared.copies[1] = SIM(counter)("d2h_copies");
}

// In a process of its own.
[[noreturn]] void run(const Point& point) {
  alarm(kSecondsForAPoint);
  simulated_driver = dlopen(DLFERRY_SIM_LIBRARY, RTLD_NOW | RTLD_LOCAL);
  const std::string settings =
      std::string(point.settings) + ",log=0,delay_us=50,seed=" + std::to_string(point.nth + 1);
  CHECK(SIM(configure)(settings.c_str()) == 0);
  cuda::set_driver_library(DLFERRY_SIM_LIBRARY);
  cuda::TransferEngine::set_staging_bytes(16 * kMiB);
  if (*point.function) {
    CHECK(SIM(fail)(point.function, point.nth, point.code, point.sticky) == 0);
  }
  if (*point.also) CHECK(SIM(fail)(point.also, 0, point.code, 0) == 0);
  std::vector<Operation> operations;
  {
    FaultScenario scenario;
    scenario.run();
    operations = scenario.operations();
    std::erase_if(operations, [](const Operation& one) {  // where nothing can be registered
      return one.outcome.code == cu::kErrorNotSupported;
    });
    const bool lost = scenario.is_lost();
    judge(point, operations, SIM(counter)("faults_fired") > 0, lost);
  }
  close_engine();
  cuda::Event::drop_idle();
  if (SIM(counter)("faults_fired") > 0) ++shared.fired;
  if (!*point.function) report_counts();
  check_the_end(point);
  if (failures != 0) describe(point, operations);
  std::exit(finish());
}

// Several at a time; the parent stays as it is.
class Processes {
 public:
  void start(const Point& point) {
    while (running_.size() >= most_) wait_for_one();
    std::fflush(nullptr);
    const pid_t child = fork();
    if (child == 0) {
      failures = 0;
      run(point);
    }
    running_.emplace(child, point);
    ++started_;
  }
  void wait() {
    while (!running_.empty()) wait_for_one();
  }
  [[nodiscard]] int started() const { return started_; }

 private:
  void wait_for_one() {
    int status = -1;
    const pid_t child = waitpid(-1, &status, 0);
    const auto found = running_.find(child);
    if (found == running_.end()) return;
    if (status != 0) {
      if (WIFSIGNALED(status)) {
        std::fprintf(stderr, "ended by signal %d%s: ", WTERMSIG(status),
                     WTERMSIG(status) == SIGALRM ? ", which is a hang" : "");
        describe(found->second, {});
      }
      ++failures;
    }
    running_.erase(found);
  }
  const std::size_t most_ = std::clamp(std::thread::hardware_concurrency(), 2U, 8U);
  std::map<pid_t, Point> running_;
  int started_ = 0;
};

class Plan {
 public:
  explicit Plan(unsigned every) : every_(every) {}

  // What a run without faults reaches.
  void count(const char* settings) {
    processes_.start({.settings = settings});
    processes_.wait();
    settings_ = settings;
    reached_ = 0;
    for (const std::int64_t calls : shared.calls) reached_ += std::max<std::int64_t>(calls, 0);
    std::printf("%s: %lld calls\n", settings, static_cast<long long>(reached_));
  }

  // Every call of these functions, or of all.
  void fail(std::initializer_list<std::string_view> only, const char* also = "") {
    for (std::size_t i = 0; i < kFunctionCount; ++i) {
      const char* const name = kFunctions[i];
      if (only.size() > 0 && !is_one_of(name, only)) continue;
      for (unsigned nth = 1; nth <= shared.calls[i]; ++nth) {
        start({settings_, name, nth, cu::kErrorInvalidValue, false, also});
        if (*also) continue;
        start({settings_, name, nth, cu::kErrorIllegalAddress, true});
        if (is_one_of(name, {"cuMemHostAlloc", "cuMemHostRegister", "cuStreamCreateWithPriority",
                             "cuEventCreate", "cuMemcpyBatchAsync", "cuMemcpyBatchAsync_v2"})) {
          start({settings_, name, nth, cu::kErrorOutOfMemory, false});
        }
      }
    }
  }

  void lose_on_the_link() {
    for (const std::size_t direction : {0, 1}) {
      const char* const name = direction == 0 ? "H2D" : "D2H";
      for (unsigned nth = 1; nth <= shared.copies[direction]; ++nth) {
        start({settings_, name, nth, cu::kErrorIllegalAddress, true});
      }
    }
  }

  int finish() {
    processes_.wait();
    return processes_.started();
  }

 private:
  void start(const Point& point) {
    if (++points_ % every_ == 0) processes_.start(point);
  }
  const unsigned every_;
  Processes processes_;
  const char* settings_ = "";
  std::int64_t reached_ = 0;
  unsigned points_ = 0;
};

}  // namespace

int main(int argc, char** argv) {
  const bool some = argc == 3 && std::string_view(argv[1]) == "--every";
  Plan plan(some ? static_cast<unsigned>(std::max(1, std::atoi(argv[2]))) : 1);
  plan.count("version=13.0");
  plan.fail({});
  plan.lose_on_the_link();
  // Copies whose end nobody can tell: the driver fails to wait for them as well.
  plan.fail({"cuMemcpyHtoDAsync", "cuMemcpyDtoHAsync", "cuEventRecord", "cuEventSynchronize"},
            "cuStreamSynchronize");
  // Without batches, and where nothing can be registered.
  plan.count("version=12.4,register_result=801");
  plan.fail({"cuMemHostAlloc", "cuMemFreeHost", "cuMemcpyHtoDAsync", "cuMemcpyDtoHAsync"});
  // Where nothing can be page-locked at all.
  plan.count("version=13.0,register_result=801,host_limit=0");
  plan.fail({"cuMemHostAlloc", "cuMemcpyHtoDAsync", "cuMemcpyDtoHAsync", "cuEventRecord",
             "cuEventSynchronize"});
  plan.lose_on_the_link();
  const int points = plan.finish();
  std::printf("%d points; at %d the fault came, %d ended one operation, %d lost the context\n",
              points, shared.fired.load(), shared.reported.load(), shared.lost.load());
  return finish();
}
