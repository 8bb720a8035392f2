// The driver's functions: streams, events and capture.
#include <algorithm>

#include "copies.h"

namespace dlferry::cu {
namespace {

using sim::Call;
using sim::call;
using sim::EventPtr;
using sim::Function;
using sim::number_of;
using sim::StreamPtr;

// Codes that dlferry has no name for.
constexpr auto kErrorStreamCaptureMerge = static_cast<Result>(902);
constexpr auto kErrorStreamCaptureIsolation = static_cast<Result>(905);
constexpr auto kErrorCapturedEvent = static_cast<Result>(907);

Result invalidate(sim::Capture& capture, Result result) {
  capture.valid = false;
  return result;
}

// What an event stands for, for a thread that asks or waits; null where it is complete.
Result look_at(const sim::Event& event, sim::MarkPtr& mark) {
  if (event.is_captured()) return invalidate(*event.capture, kErrorCapturedEvent);
  mark = event.mark && !event.mark->is_reached ? event.mark : nullptr;
  return kSuccess;
}

// A wait for a captured event draws the stream into the capture.
Result join_capture(sim::Stream& stream, const sim::CapturePtr& capture) {
  if (!capture->valid) return kErrorStreamCaptureInvalidated;
  if (stream.capture == capture) return kSuccess;
  if (stream.capture) {
    stream.capture->valid = false;
    return invalidate(*capture, kErrorStreamCaptureMerge);
  }
  stream.capture = capture;
  capture->streams.push_back(&stream);
  return kSuccess;
}

}  // namespace

Result cuStreamCreateWithPriority(cu::Stream* stream, unsigned flags, int) {
  // A priority outside of the range is taken for the nearest one.
  return call(Function::cuStreamCreateWithPriority, sim::kNeedsContext, {}, [&](Call& made) {
    if (!stream || flags > kStreamNonBlocking) return kErrorInvalidValue;
    const bool blocking = flags != kStreamNonBlocking;
    const StreamPtr created = made.world().streams.create(*made.current(), blocking, false);
    *stream = reinterpret_cast<cu::Stream>(created->handle);
    return kSuccess;
  });
}

Result cuStreamDestroy_v2(cu::Stream handle) {
  const sim::Arguments arguments{.stream = number_of(handle)};
  return call(Function::cuStreamDestroy_v2, sim::kNeedsContext | sim::kReleases, arguments,
              [&](Call& made) {
                if (number_of(handle) <= 2) return kErrorInvalidHandle;
                const StreamPtr stream = made.stream(handle);
                if (!stream) return made.error();
                made.world().streams.destroy(stream);
                return kSuccess;
              });
}

Result cuStreamSynchronize(cu::Stream handle) {
  const sim::Arguments arguments{.stream = number_of(handle)};
  return call(Function::cuStreamSynchronize, sim::kNeedsContext | sim::kUnsafe, arguments,
              [&](Call& made) {
                const StreamPtr stream = made.stream(handle);
                if (!stream) return made.error();
                const sim::Admission admission = admit(made.world(), *stream);
                if (admission.result != kSuccess) return admission.result;
                if (admission.capture) {
                  return invalidate(*admission.capture, kErrorStreamCaptureUnsupported);
                }
                drain(made.world(), made.lock(), *stream);
                return made.health(*stream->context);
              });
}

Result cuStreamWaitEvent(cu::Stream handle, cu::Event event_handle, unsigned flags) {
  const sim::Arguments arguments{.stream = number_of(handle), .object = number_of(event_handle)};
  return call(Function::cuStreamWaitEvent, sim::kNeedsContext, arguments, [&](Call& made) {
    if (flags != 0) return kErrorInvalidValue;
    const StreamPtr stream = made.stream(handle);
    if (!stream) return made.error();
    const EventPtr event = made.event(event_handle);
    if (!event) return made.error();
    if (event->is_captured()) return join_capture(*stream, event->capture);
    const sim::Admission admission = admit(made.world(), *stream);
    if (admission.result != kSuccess) return admission.result;
    if (admission.capture) {
      return event->is_recorded ? invalidate(*admission.capture, kErrorStreamCaptureIsolation)
                                : kSuccess;
    }
    const bool is_pending = event->mark && !event->mark->is_reached;
    if (is_pending) submit(made.world(), made.lock(), *stream, sim::WaitTask{event->mark});
    return kSuccess;
  });
}

Result cuStreamIsCapturing(cu::Stream handle, CaptureStatus* status) {
  const sim::Arguments arguments{.stream = number_of(handle)};
  return call(Function::cuStreamIsCapturing, sim::kNeedsInit, arguments, [&](Call& made) {
    if (!status) return kErrorInvalidValue;
    if (number_of(handle) <= 2 && !made.current()) return kErrorInvalidContext;
    const StreamPtr stream = made.stream(handle);
    if (!stream) return made.error();
    *status = stream->capture ? stream->capture->status() : kCaptureNone;
    if (stream != made.world().streams.legacy_of(*stream->context)) return kSuccess;
    // The null stream, which would depend on a capturing blocking stream, cannot say.
    for (const auto& [number, other] : made.world().streams.all()) {
      const bool same = other->context == stream->context;
      if (same && other->blocking && other->capture) return kErrorStreamCaptureImplicit;
    }
    return kSuccess;
  });
}

Result cuThreadExchangeStreamCaptureMode(CaptureMode* mode) {
  return call(Function::cuThreadExchangeStreamCaptureMode, sim::kNeedsInit, {}, [&](Call&) {
    if (!mode || *mode > kCaptureRelaxed) return kErrorInvalidValue;
    std::swap(*mode, sim::this_thread().mode);
    return kSuccess;
  });
}

Result cuEventCreate(cu::Event* event, unsigned flags) {
  return call(Function::cuEventCreate, sim::kNeedsContext, {}, [&](Call& made) {
    if (!event || flags > 7) return kErrorInvalidValue;
    sim::World& w = made.world();
    const EventPtr created = w.events.create(*made.current(), w.new_handle());
    *event = reinterpret_cast<cu::Event>(created->handle);
    return kSuccess;
  });
}

Result cuEventDestroy_v2(cu::Event handle) {
  const sim::Arguments arguments{.object = number_of(handle)};
  return call(Function::cuEventDestroy_v2, sim::kNeedsContext | sim::kReleases, arguments,
              [&](Call& made) {
                const EventPtr event = made.event(handle);
                if (!event) return made.error();
                made.world().events.destroy(*event);
                return kSuccess;
              });
}

Result cuEventRecord(cu::Event handle, cu::Stream stream_handle) {
  const sim::Arguments arguments{.stream = number_of(stream_handle), .object = number_of(handle)};
  return call(Function::cuEventRecord, sim::kNeedsContext, arguments, [&](Call& made) {
    const EventPtr event = made.event(handle);
    if (!event) return made.error();
    const StreamPtr stream = made.stream(stream_handle);
    if (!stream) return made.error();
    if (event->context != stream->context) return kErrorInvalidHandle;
    const sim::Admission admission = admit(made.world(), *stream);
    if (admission.result != kSuccess) return admission.result;
    event->is_recorded = true;
    event->capture = stream->capture;
    event->mark = nullptr;
    if (stream->capture) return kSuccess;
    event->mark = std::make_shared<sim::Mark>();
    submit(made.world(), made.lock(), *stream, sim::RecordTask{event->mark});
    return kSuccess;
  });
}

Result cuEventQuery(cu::Event handle) {
  const sim::Arguments arguments{.object = number_of(handle)};
  return call(Function::cuEventQuery, sim::kNeedsInit | sim::kUnsafe, arguments, [&](Call& made) {
    const EventPtr event = made.event(handle);
    if (!event) return made.error();
    sim::MarkPtr mark;
    const Result result = look_at(*event, mark);
    return result == kSuccess && mark ? kErrorNotReady : result;
  });
}

Result cuEventSynchronize(cu::Event handle) {
  const sim::Arguments arguments{.object = number_of(handle)};
  return call(Function::cuEventSynchronize, sim::kNeedsContext | sim::kUnsafe, arguments,
              [&](Call& made) {
                const EventPtr event = made.event(handle);
                if (!event) return made.error();
                sim::MarkPtr mark;
                const Result result = look_at(*event, mark);
                while (mark && !mark->is_reached) mark->reached.wait(made.lock());
                return result == kSuccess ? made.health(*event->context) : result;
              });
}

}  // namespace dlferry::cu
