// The CUDA driver: libcuda, opened when first asked for, and every call that dlferry makes of it.
#pragma once

#include <stdexcept>
#include <string>

#include "abi/cuda_functions.h"

namespace dlferry::cuda {

// There is no CUDA for this process; the text says what is missing and what to do.
class Unavailable : public std::runtime_error {
 public:
  using std::runtime_error::runtime_error;
};

// A driver call failed. The text names the call, the code and what the code means, and adds the
// advice, if there is any. `call` is kept as a pointer.
class Error : public std::runtime_error {
 public:
  Error(const char* call, cu::Result code, const char* advice = nullptr);
  [[nodiscard]] const char* call() const noexcept { return call_; }
  [[nodiscard]] cu::Result code() const noexcept { return code_; }

 private:
  const char* call_;
  cu::Result code_;
};

// Whether a context in which a call failed like this does nothing more: whatever was under way in
// it has ended, though nobody can say how.
[[nodiscard]] bool ends_context(cu::Result code) noexcept;

// The driver's functions. Optional ones may be null.
struct Driver {
  int version = 0;  // of CUDA, as the driver has it: 13000
#define DLFERRY_X(need, name, symbol, ...) cu::Fn::symbol* symbol = nullptr;
  DLFERRY_CUDA_FUNCTIONS(DLFERRY_X)
#undef DLFERRY_X
};

// Names the library to open instead of libcuda.so.1. Before the first use of the driver; later it
// has no effect. An empty name brings back the default.
void set_driver_library(std::string path);

// The loaded and initialised driver; opened by the first call, from any thread, and never closed.
// Throws Unavailable, and for as long as the process lives with the same reason: the driver is
// asked once. In a child that was forked after that it always throws: CUDA does not survive a fork.
[[nodiscard]] const Driver& driver();

// Null where there is no driver or nobody has asked yet to load one; does not load it.
[[nodiscard]] const Driver* loaded_driver() noexcept;

// Why there is no driver, as far as is known: null where there is one or nobody has asked for it.
// Does not load it.
[[nodiscard]] const char* why_unavailable() noexcept;

// Whether this process was forked from one that had opened the driver, or was about to.
[[nodiscard]] bool is_forked() noexcept;

namespace detail {
template <auto kFunction>
inline constexpr const char* kName = nullptr;
#define DLFERRY_X(need, name, symbol, ...) \
  template <>                              \
  inline constexpr const char* kName<&Driver::symbol> = #name;
DLFERRY_CUDA_FUNCTIONS(DLFERRY_X)
#undef DLFERRY_X
}  // namespace detail

// One call of the driver: `call<&Driver::cuEventRecord>(event, stream)`. Throws Error or
// Unavailable.
template <auto kFunction, class... Args>
void call(Args... args) {
  const cu::Result result = (driver().*kFunction)(args...);
  if (result != cu::kSuccess) throw Error(detail::kName<kFunction>, result);
}

// The same for those who must not throw: handles that let go, threads that are to go on. Without a
// driver, or in a forked child, the answer is kErrorDeinitialized.
template <auto kFunction, class... Args>
[[nodiscard]] cu::Result try_call(Args... args) noexcept {
  const Driver* const loaded = loaded_driver();
  return loaded ? (loaded->*kFunction)(args...) : cu::kErrorDeinitialized;
}

}  // namespace dlferry::cuda
