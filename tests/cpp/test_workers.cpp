// The copy threads: every index once, whoever calls, and in a forked child too.
#include <sys/wait.h>
#include <unistd.h>

#include <atomic>
#include <thread>
#include <vector>

#include "check.h"
#include "tensor/workers.h"

namespace dlferry {
namespace {

bool each_index_once(std::size_t count) {
  std::vector<std::atomic<int>> calls(count);
  auto body = [&](std::size_t index) { ++calls[index]; };
  parallel(count, body);
  for (const std::atomic<int>& called : calls) {
    if (called != 1) return false;
  }
  return true;
}

void each_index_once_for_any_number_of_threads() {
  for (const int workers : {1, 2, 3, 16, 0}) {
    set_worker_count(workers);
    CHECK(workers == 0 ? worker_count() >= 1 : worker_count() == workers);
    for (const std::size_t count : {0U, 1U, 2U, 7U, 1000U}) CHECK(each_index_once(count));
  }
}

void callers_side_by_side() {
  set_worker_count(3);
  std::vector<std::thread> callers;
  for (int i = 0; i < 4; ++i) {
    callers.emplace_back([] {
      for (int round = 0; round < 50; ++round) CHECK(each_index_once(20));
    });
  }
  for (std::thread& caller : callers) caller.join();
}

void a_forked_child_has_its_own_threads() {
  set_worker_count(2);
  CHECK(each_index_once(10));
  const pid_t child = fork();
  if (child == 0) _exit(each_index_once(10) ? 0 : 1);
  int status = 1;
  CHECK(waitpid(child, &status, 0) == child);
  CHECK(status == 0);
}

}  // namespace
}  // namespace dlferry

int main() {
  dlferry::each_index_once_for_any_number_of_threads();
  dlferry::callers_side_by_side();
  dlferry::a_forked_child_has_its_own_threads();
  return dlferry::test::finish();
}
