// Opening the driver: which functions of which version, what is said where there is none, once in a
// process, and not in one that was forked.
#include <array>
#include <barrier>
#include <thread>
#include <vector>

#include "cuda/driver.h"
#include "simulated.h"

namespace dlferry::cuda {
namespace {

using test::Machine;
using test::on;
using test::status_of_child;
using test::Thrown;
using test::thrown_by;

Thrown open() {
  return thrown_by([] { (void)driver(); });
}

void expect_functions(int version) {
  CHECK(loaded_driver() == nullptr);
  CHECK(try_call<&Driver::cuEventQuery>(nullptr) == cu::kErrorDeinitialized);
  CHECK(SIM(counter)("calls") == 0);  // nothing was asked of it before that
  const Driver& cuda = driver();
  CHECK(cuda.version == version);
  CHECK(&driver() == &cuda && loaded_driver() == &cuda && !is_forked());
  enum Need { Required, Optional };
#define DLFERRY_X(need, name, symbol, ...) CHECK(need == Optional || cuda.symbol != nullptr);
  DLFERRY_CUDA_FUNCTIONS(DLFERRY_X)
#undef DLFERRY_X
  CHECK((cuda.cuMemcpyBatchAsync != nullptr) == (version >= 12080));
  CHECK((cuda.cuMemcpyBatchAsync_v2 != nullptr) == (version >= 13000));
  CHECK(SIM(calls)("cuInit") == 1);
  int devices = 0;
  call<&Driver::cuDeviceGetCount>(&devices);
  CHECK(devices == 1);
}

void functions_of_each_version() {
  on({"", DLFERRY_SIM_OLD_LIBRARY}, "11.8", [] { expect_functions(11080); });
  on({"version=12.4"}, "12.4", [] { expect_functions(12040); });
  on({"version=12.8"}, "12.8", [] { expect_functions(12080); });
  on({"version=13.0"}, "13.0", [] { expect_functions(13000); });
}

void missing_functions() {
  for (const char* settings : {"hidden=cuEventQuery,version=12.4",
                               "hidden=cuEventQuery,version=12.4,missing_result=500"}) {
    on({settings}, "without cuEventQuery", [] {
      const Thrown thrown = open();
      CHECK(thrown.is_unavailable && thrown.says("cuEventQuery") && thrown.says("12.4"));
    });
  }
  on({"hidden=cuMemcpyBatchAsync"}, "without batches", [] {
    CHECK(driver().cuMemcpyBatchAsync == nullptr && driver().cuMemcpyBatchAsync_v2 == nullptr);
  });
  on({"shares_addresses=0"}, "without batches of registered memory", [] {
    CHECK(driver().cuMemcpyBatchAsync == nullptr && driver().cuMemcpyBatchAsync_v2 == nullptr);
  });
}

// The reason is found once, and told each time.
void expect_reason(std::vector<const char*> parts) {
  const Thrown first = open();
  CHECK(first.is_unavailable && first.says("CUDA is not available"));
  for (const char* part : parts) CHECK(first.says(part));
  const auto calls = SIM(counter)("calls");
  set_driver_library(DLFERRY_SIM_LIBRARY);
  CHECK(open().text == first.text);
  CHECK(thrown_by([] { call<&Driver::cuEventQuery>(nullptr); }).text == first.text);
  CHECK(loaded_driver() == nullptr && !is_forked());
  CHECK(SIM(counter)("calls") == calls);
  CHECK(status_of_child([&] { CHECK(open().text == first.text && !is_forked()); }) == 0);
}

void reasons_for_there_being_none() {
  on({}, "no library", [] {
    set_driver_library("/nowhere/libcuda.so.1");
    expect_reason({"could not be opened", "/nowhere/libcuda.so.1"});
  });
  on({}, "no libcuda", [] {
    set_driver_library("");
    if (dlopen("libcuda.so.1", RTLD_NOW | RTLD_LOCAL)) return;  // this machine has one
    expect_reason({"libcuda.so.1, which is part of the NVIDIA driver", "Install the driver"});
  });
  on({}, "some other library", [] {
    set_driver_library("libm.so.6");
    expect_reason({"is no CUDA driver"});
  });
  on({}, "a driver before cuGetProcAddress", [] {
    set_driver_library(DLFERRY_ANCIENT_DRIVER);
    expect_reason({"too old", "11.2", "11.3", "Update the driver"});
  });
  on({"init_result=100"}, "no device", [] { expect_reason({"finds no GPU"}); });
  on({"devices=0"}, "no device either", [] { expect_reason({"finds no GPU"}); });
  on({"init_result=803"}, "mismatch", [] { expect_reason({"different versions", "803"}); });
  on({"init_result=3"}, "forked by others", [] { expect_reason({"cuInit", "(3)", "spawn"}); });
  on({"init_result=999"}, "unknown",
     [] { expect_reason({"cuInit failed: CUDA_ERROR_UNKNOWN (999): "}); });
  on({}, "count", [] {
    SIM(fail)("cuDeviceGetCount", 1, 999, 0);
    expect_reason({"CUDA_ERROR_UNKNOWN (999)"});
  });
}

void opened_once_by_many_threads() {
  std::array<const Driver*, 8> seen{};
  std::barrier together(8);
  std::vector<std::thread> threads;
  for (const Driver*& mine : seen) {
    threads.emplace_back([&mine, &together] {
      together.arrive_and_wait();
      mine = &driver();
    });
  }
  for (std::thread& thread : threads) thread.join();
  for (const Driver* const mine : seen) CHECK(mine == &driver());
  CHECK(SIM(calls)("cuInit") == 1);
}

void errors_that_end_a_context() {
  for (const cu::Result code : {cu::kErrorIllegalAddress, cu::kErrorAssert, cu::kErrorLaunchFailed,
                                cu::kErrorDeinitialized, cu::kErrorEccUncorrectable}) {
    CHECK(ends_context(code));
  }
  for (const cu::Result code : {cu::kSuccess, cu::kErrorInvalidValue, cu::kErrorOutOfMemory,
                                cu::kErrorNotReady, cu::kErrorStreamCaptureUnsupported}) {
    CHECK(!ends_context(code));
  }
}

void texts_of_errors() {
  CHECK(std::string(Error("cuEventRecord", cu::kErrorIllegalAddress).what()) ==
        "cuEventRecord failed: error 700");  // nobody has opened the driver
  SIM(fail)("cuCtxGetCurrent", 1, 700, 0);
  cu::Context context = nullptr;
  const Thrown thrown = thrown_by([&] { call<&Driver::cuCtxGetCurrent>(&context); });
  CHECK(thrown.code == cu::kErrorIllegalAddress);
  CHECK(thrown.text ==
        "cuCtxGetCurrent failed: CUDA_ERROR_ILLEGAL_ADDRESS (700): an illegal memory access was "
        "encountered");
  const Error advised("cuEventRecord", cu::kErrorIllegalAddress, "Do better");
  CHECK(std::string(advised.what()).ends_with("was encountered. Do better"));
  CHECK(std::string(advised.call()) == "cuEventRecord");
  CHECK(std::string(Error("cuX", static_cast<cu::Result>(123456)).what()) ==
        "cuX failed: error 123456");
  SIM(fail)("cuGetErrorName", 1, 999, 0);
  CHECK(std::string(Error("cuX", cu::kErrorIllegalAddress).what()) ==
        "cuX failed: error 700: an illegal memory access was encountered");
  SIM(fail)("cuGetErrorString", 1, 999, 0);
  CHECK(std::string(Error("cuX", cu::kErrorIllegalAddress).what()) ==
        "cuX failed: CUDA_ERROR_ILLEGAL_ADDRESS (700)");
}

void expect_no_cuda_after_a_fork() {
  CHECK(is_forked() && loaded_driver() == nullptr);
  CHECK(try_call<&Driver::cuEventQuery>(nullptr) == cu::kErrorDeinitialized);
  const Thrown thrown = open();
  CHECK(thrown.is_unavailable && thrown.says("does not survive a fork") && thrown.says("spawn"));
  CHECK(thrown_by([] { call<&Driver::cuEventQuery>(nullptr); }).text == thrown.text);
  CHECK(std::string(Error("cuX", cu::kErrorIllegalAddress).what()) == "cuX failed: error 700");
}

void forked_after_opening() {
  (void)driver();
  CHECK(status_of_child([] {
          expect_no_cuda_after_a_fork();
          CHECK(status_of_child(expect_no_cuda_after_a_fork) == 0);
        }) == 0);
  CHECK(!is_forked() && loaded_driver() != nullptr);
}

void forked_while_others_open() {
  // Wherever in the opening the fork comes, the child gets an answer. (It would miss a thread that
  // is to be joined.)
  std::thread([] { (void)driver(); }).detach();
  CHECK(status_of_child([] {
          if (is_forked()) {
            expect_no_cuda_after_a_fork();
          } else {
#ifndef __SANITIZE_THREAD__  // whose own dlopen has a lock that a child may wait for
            (void)open();
#endif
          }
        }) == 0);
  (void)driver();  // opened by then
}

}  // namespace
}  // namespace dlferry::cuda

int main() {
  using namespace dlferry::cuda;
  functions_of_each_version();
  missing_functions();
  reasons_for_there_being_none();
  for (int round = 0; round < 10; ++round) ON(Machine{}, opened_once_by_many_threads);
  errors_that_end_a_context();
  ON(Machine{}, texts_of_errors);
  ON(Machine{}, forked_after_opening);
  for (int round = 0; round < 10; ++round) ON(Machine{}, forked_while_others_open);
  // Forked before opening: this process has not, and all those above were its children.
  CHECK(loaded_driver() == nullptr && !is_forked());
  return dlferry::test::finish();
}
