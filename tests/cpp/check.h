// CHECK: says where a fact does not hold, goes on, and makes `finish()` report failure.
#pragma once

#include <atomic>
#include <cstdio>

namespace dlferry::test {

inline std::atomic<int> failures = 0;

inline void check(bool holds, const char* what, const char* file, int line) {
  if (holds || ++failures > 20) return;
  std::fprintf(stderr, "%s:%d: does not hold: %s\n", file, line, what);
}

// The exit status of the program.
inline int finish() {
  if (failures != 0) std::fprintf(stderr, "%d checks failed\n", failures.load());
  return failures == 0 ? 0 : 1;
}

}  // namespace dlferry::test

#define CHECK(...) \
  ::dlferry::test::check(static_cast<bool>(__VA_ARGS__), #__VA_ARGS__, __FILE__, __LINE__)
