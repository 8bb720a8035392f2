// Scenarios on the simulated driver. Each has a process of its own, because a process asks for the
// driver once.
#pragma once

#include <dlfcn.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cstdlib>
#include <string>

#include "../sim/sim.h"
#include "check.h"
#include "cuda/handles.h"
#include "cuda/staging.h"

#ifdef __SANITIZE_THREAD__
// glibc frees what a detached thread had of a library's thread-local variables after that thread
// has ended, which it knows from the kernel and the sanitizer does not.
extern "C" __attribute__((used, visibility("default"))) inline const char*
__tsan_default_suppressions() {
  return "race:_dl_deallocate_tls\n";
}
#endif

namespace dlferry::test {

// The library that this process has as its driver.
inline void* simulated_driver = nullptr;

template <class Function>
Function* sim_function(const char* name) {
  return reinterpret_cast<Function*>(dlsym(simulated_driver, name));
}

// One of the functions in sim.h: SIM(counter)("streams").
#define SIM(name) \
  (::dlferry::test::sim_function<decltype(dlferry_sim_##name)>("dlferry_sim_" #name))

struct Machine {
  const char* settings = "";
  const char* library = DLFERRY_SIM_LIBRARY;
};

// Whoever lets go of all handles leaves nothing behind in the driver.
inline void check_nothing_is_left() {
  cuda::Event::drop_idle();
  for (const char* what : {"streams", "events", "host_allocations", "host_bytes", "registrations",
                           "registered_bytes", "calls_in_child", "calls_after_exit", "freed_in_use",
                           "invalid_handles", "foreign_streams"}) {
    const long long left = SIM(counter)(what);
    if (left != 0) std::fprintf(stderr, "%lld %s are left\n", left, what);
    CHECK(left == 0);
  }
  CHECK(SIM(counter)("pageable_copies") == 0 || cuda::why_ordinary());
}

// The status of a child process that calls `body`; it is ended after a minute. What its parent has
// and it forgets is no leak, so nobody looks for any.
template <class Body>
int status_of_child(const Body& body) {
  std::fflush(nullptr);
  const pid_t child = fork();
  if (child == 0) {
    failures = 0;
    alarm(60);
    body();
    std::fflush(nullptr);
    _exit(finish());
  }
  int status = -1;
  if (waitpid(child, &status, 0) != child) return -1;
  return status;
}

// The status of a process in which `scenario` is called with a machine whose driver has not been
// opened yet.
template <class Scenario>
int status_on(const Machine& machine, const Scenario& scenario) {
  return status_of_child([&] {
    simulated_driver = dlopen(machine.library, RTLD_NOW | RTLD_LOCAL);
    CHECK(simulated_driver != nullptr);
    if (!simulated_driver) return;
    CHECK(SIM(configure)(machine.settings) == 0);
    cuda::set_driver_library(machine.library);
    scenario();
    check_nothing_is_left();
    CHECK(SIM(reset)() == 0);
    std::exit(finish());  // which looks for leaks
  });
}

template <class Scenario>
void on(const Machine& machine, const char* what, const Scenario& scenario) {
  const int status = status_on(machine, scenario);
  if (status != 0) std::fprintf(stderr, "%s (%s): status %d\n", what, machine.settings, status);
  CHECK(status == 0);
}

// `ON(machine, scenario)` runs a function under its own name.
#define ON(machine, scenario) ::dlferry::test::on(machine, #scenario, scenario)

// What `body` throws, as text and code; empty and kSuccess where it does not throw.
struct Thrown {
  std::string text;
  cu::Result code = cu::kSuccess;
  bool is_unavailable = false;

  [[nodiscard]] bool says(const char* part) const {
    if (text.find(part) != std::string::npos) return true;
    std::fprintf(stderr, "'%s' is not in '%s'\n", part, text.c_str());
    return false;
  }
};

template <class Body>
Thrown thrown_by(const Body& body) {
  try {
    body();
    return {};
  } catch (const cuda::Error& error) {
    return {error.what(), error.code(), false};
  } catch (const cuda::Unavailable& error) {
    return {error.what(), cu::kSuccess, true};
  }
}

}  // namespace dlferry::test
