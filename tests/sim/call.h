// What every call of the driver goes through, before and after its own work.
#pragma once

#include "world.h"

namespace dlferry::sim {

// What a call asks for besides its arguments.
enum Needs : unsigned {
  kNeedsNothing = 0,
  kNeedsInit = 1,
  kNeedsContext = 2,  // a current one, in good health
  kUnsafe = 4,        // beside a capture: see cuThreadExchangeStreamCaptureMode
  kReleases = 8,      // done even where it fails, since nobody can try again
};

// What the log says of a call.
struct Arguments {
  std::uint64_t stream = 0;
  std::uint64_t object = 0;
  std::uint64_t destination = 0;
  std::uint64_t source = 0;
  std::uint64_t bytes = 0;
};

template <class Handle>
std::uint64_t number_of(Handle handle) noexcept {
  return reinterpret_cast<std::uint64_t>(handle);
}

class Call {
 public:
  Call(World& world, Lock& lock, Function fn, unsigned needs, const Arguments& arguments);

  // Whether the body is to be run.
  [[nodiscard]] bool proceeds() const noexcept { return proceeds_; }
  // Logs the call. Its result: the body's, or what kept it from being run.
  cu::Result end(cu::Result result);

  [[nodiscard]] World& world() const noexcept { return world_; }
  [[nodiscard]] Lock& lock() const noexcept { return lock_; }
  // This thread's current context. Not null where one is needed.
  [[nodiscard]] Context* current() const noexcept { return current_; }

  // A stream or event by handle. Null where there is none, or its context is lost: `error()`.
  StreamPtr stream(cu::Stream handle);
  EventPtr event(cu::Event handle);
  [[nodiscard]] cu::Result error() const noexcept { return error_; }

  // For those that have waited: success, or why the context was lost meanwhile.
  cu::Result health(const Context& context);

 private:
  // Why the call is refused: what the fault plan says, or the state of things.
  cu::Result obstacle(cu::Result planned);
  bool is_fit(const Context& context);

  World& world_;
  Lock& lock_;
  const Function fn_;
  const unsigned needs_;
  const Arguments arguments_;
  Context* const current_;
  std::int64_t begin_ = 0;
  bool proceeds_ = false;
  cu::Result refusal_ = cu::kSuccess;  // overrides the body's result
  cu::Result error_ = cu::kSuccess;
};

// For calls in a forked child or at exit: true, with the result. Takes no lock.
bool is_out_of_order(cu::Result& result) noexcept;

template <class Body>
cu::Result call(Function fn, unsigned needs, const Arguments& arguments,
                const Body& body) noexcept {
  cu::Result result = cu::kSuccess;
  if (is_out_of_order(result)) return result;
  World& w = world();
  Lock lock(w.mutex);
  Call made(w, lock, fn, needs, arguments);
  if (made.proceeds()) result = body(made);
  return made.end(result);
}

}  // namespace dlferry::sim
