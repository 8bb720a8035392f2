#include "call.h"

namespace dlferry::sim {

bool is_out_of_order(cu::Result& result) noexcept {
  if (in_child.load(std::memory_order_relaxed)) {
    ++shared().calls_in_child;
    result = cu::kErrorNotInitialized;
    return true;
  }
  if (is_exiting.load(std::memory_order_relaxed)) {
    ++calls_after_exit;
    result = cu::kErrorDeinitialized;
    return true;
  }
  return false;
}

Call::Call(World& world, Lock& lock, Function fn, unsigned needs, const Arguments& arguments)
    : world_(world),
      lock_(lock),
      fn_(fn),
      needs_(needs),
      arguments_(arguments),
      current_(this_thread().current()) {
  if (world.log.is_on()) begin_ = now();
  while (world.is_allocating) world.allocated.wait(lock);
  ++world.counts.calls[static_cast<std::size_t>(fn)];
  const Fault fault = world.faults.next(bit_of(fn));
  if (fault.sticky && current_) {
    lose(world, *current_, fault.code);
    await_quiet(world, lock, *current_);
  }
  refusal_ = obstacle(fault.code);
}

cu::Result Call::obstacle(cu::Result planned) {
  const bool needs_init = needs_ & (kNeedsInit | kNeedsContext);
  if (needs_init && !world_.is_initialized) return planned ? planned : cu::kErrorNotInitialized;
  const bool has_context = current_ && current_->exists();
  if ((needs_ & kNeedsContext) && !has_context) return planned ? planned : cu::kErrorInvalidContext;
  if (!planned && (needs_ & kNeedsContext)) planned = health(*current_);
  proceeds_ = !planned || (needs_ & kReleases);
  if (planned || !(needs_ & kUnsafe)) return planned;
  if (world_.captures.permit_unsafe(this_thread())) return cu::kSuccess;
  proceeds_ = false;
  return cu::kErrorStreamCaptureUnsupported;
}

cu::Result Call::health(const Context& context) {
  if (context.sticky != cu::kSuccess) await_quiet(world_, lock_, context);
  return context.sticky;
}

bool Call::is_fit(const Context& context) {
  error_ = health(context);
  if (error_ == cu::kSuccess) return true;
  if (refusal_ == cu::kSuccess) refusal_ = error_;
  return needs_ & kReleases;
}

StreamPtr Call::stream(cu::Stream handle) {
  StreamPtr found = world_.streams.find(number_of(handle), current_);
  if (!found) {
    ++world_.counts.invalid_handles;
    error_ = cu::kErrorInvalidHandle;
    return nullptr;
  }
  if (current_ && found->context != current_) ++world_.counts.foreign_streams;
  return is_fit(*found->context) ? found : nullptr;
}

EventPtr Call::event(cu::Event handle) {
  EventPtr found = world_.events.find(number_of(handle));
  if (!found) {
    ++world_.counts.invalid_handles;
    error_ = cu::kErrorInvalidHandle;
    return nullptr;
  }
  return is_fit(*found->context) ? found : nullptr;
}

cu::Result Call::end(cu::Result result) {
  if (refusal_ != cu::kSuccess) result = refusal_;
  if (!world_.log.is_on()) return result;
  world_.log.add({.what = "call",
                  .name = kFunctions[static_cast<std::size_t>(fn_)].name,
                  .result = result,
                  .thread = thread_number(),
                  .stream = arguments_.stream,
                  .object = arguments_.object,
                  .destination = arguments_.destination,
                  .source = arguments_.source,
                  .bytes = arguments_.bytes,
                  .begin = begin_,
                  .end = now()});
  return result;
}

}  // namespace dlferry::sim
