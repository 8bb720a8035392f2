// Stream capture: who captures, in which mode, and what invalidates it.
#pragma once

#include <memory>
#include <vector>

#include "abi/cuda_driver.h"

namespace dlferry::sim {

struct Stream;
struct Thread;

struct Capture {
  cu::CaptureMode mode = cu::kCaptureGlobal;
  const Thread* owner = nullptr;
  bool valid = true;
  bool ended = false;
  int copies = 0;                // that were recorded
  std::vector<Stream*> streams;  // the one it began on, and those that joined

  [[nodiscard]] cu::CaptureStatus status() const noexcept {
    return valid ? cu::kCaptureActive : cu::kCaptureInvalid;
  }
};
using CapturePtr = std::shared_ptr<Capture>;

class Captures {
 public:
  CapturePtr begin(Stream& stream, cu::CaptureMode mode, const Thread& owner);
  void end(Capture& capture);
  void end_all();

  // For calls that are unsafe beside a capture. Where this thread is prohibited from them (see
  // cuThreadExchangeStreamCaptureMode) the captures that prohibit it are invalidated: false.
  bool permit_unsafe(const Thread& thread);

 private:
  std::vector<CapturePtr> active_;
};

}  // namespace dlferry::sim
