#include "captures.h"

#include "contexts.h"
#include "streams.h"

namespace dlferry::sim {

CapturePtr Captures::begin(Stream& stream, cu::CaptureMode mode, const Thread& owner) {
  auto capture = std::make_shared<Capture>();
  capture->mode = mode;
  capture->owner = &owner;
  capture->streams.push_back(&stream);
  stream.capture = capture;
  active_.push_back(capture);
  return capture;
}

void Captures::end(Capture& capture) {
  capture.ended = true;
  for (Stream* const stream : capture.streams) stream->capture = nullptr;
  capture.streams.clear();
  std::erase_if(active_, [&](const CapturePtr& other) { return other.get() == &capture; });
}

void Captures::end_all() {
  while (!active_.empty()) end(*CapturePtr(active_.back()));
}

bool Captures::permit_unsafe(const Thread& thread) {
  if (thread.mode == cu::kCaptureRelaxed) return true;
  bool permitted = true;
  for (const CapturePtr& capture : active_) {
    const bool own = capture->owner == &thread && capture->mode != cu::kCaptureRelaxed;
    const bool other = thread.mode == cu::kCaptureGlobal && capture->mode == cu::kCaptureGlobal;
    if (!own && !other) continue;
    capture->valid = false;
    permitted = false;
  }
  return permitted;
}

}  // namespace dlferry::sim
