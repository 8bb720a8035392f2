// TransferEngine: the ways across one device's link, and which of them a transfer takes.
#pragma once

#include <chrono>
#include <cstddef>
#include <memory>
#include <vector>

#include "cuda/lane.h"

namespace dlferry::cuda {

// What is to be copied. The caller keeps all memory alive until the transfer is done, and makes
// sure that nobody writes to the source before it has been read.
struct Request {
  Direction direction = Direction::kToDevice;
  std::vector<Leaf> leaves{};             // whether they are page-locked, the engine finds out
  bool packed = false;                    // what lies between them on the device is nobody's
  cu::Stream stream = cu::kStreamLegacy;  // the caller's current one
  // Whether the copy waits for what is queued on `stream`: it reads or overwrites what that
  // produces. Otherwise the destination was allocated for the lane's stream.
  bool ordered = false;
};

// One for each device, made when first asked for and never destroyed: threads may be inside.
// Thread-safe. What is captured into a graph is refused: Error with kErrorStreamCaptureUnsupported.
class TransferEngine {
 public:
  [[nodiscard]] static TransferEngine& on(int device);  // throws Unavailable or Error

  // Pageable memory crosses the link through this much page-locked memory of each device's. Before
  // the device's first transfer.
  static void set_staging_bytes(std::size_t bytes) noexcept;

  // Ends all transfers: see Lane::close. At the end of the process the engines are leaked, because
  // torch's allocator may still hold memory for their streams; for tests they are destroyed.
  enum class After : std::uint8_t { kDestroy, kLeak };
  static bool close_all(std::chrono::nanoseconds timeout, After after = After::kDestroy) noexcept;

  // The stream that new destinations are allocated for, unless they are small.
  [[nodiscard]] cu::Stream stream(Direction direction) const noexcept {
    return lane(direction).stream();
  }
  [[nodiscard]] std::size_t staging_bytes() const noexcept;  // allocated so far

  // Throws as both ways to start a transfer would: work that is submitted to `stream` is captured,
  // or the device does nothing more. For those who have memory to ask for first.
  void check(cu::Stream stream) const;

  // Transfers up to this size are worth trying `start_inline` with.
  static constexpr std::size_t kInlineBytes = InlineSlots::kSlotBytes;

  // Whether that would take it, while there are slots: for those who have memory to ask for first,
  // of leaves to the device whose places there are not known. Up to kLittleBytes, it would.
  static constexpr std::size_t kLittleBytes = std::size_t{64} << 10;
  [[nodiscard]] static bool goes_inline(Request request);

  // Copies on the calling thread and on `request.stream` itself, in its order: the quickest way for
  // little. Null, with nothing done, when it cannot be taken: too large, much from page-locked or
  // to pageable memory, or no slot to be had.
  [[nodiscard]] std::shared_ptr<Transfer> start_inline(Request request);

  // Hands the transfer to the lane of its direction and returns at once.
  [[nodiscard]] std::shared_ptr<Transfer> start(Request request);

 private:
  explicit TransferEngine(int device);
  [[nodiscard]] std::shared_ptr<Transfer> submit_inline(const Part& part, InlineSlots::Slot* slot,
                                                        const Request& request);
  [[nodiscard]] const Lane& lane(Direction direction) const noexcept;
  [[nodiscard]] Lane& lane(Direction direction) noexcept;
  bool close(std::chrono::nanoseconds timeout) noexcept;

  const int device_;
  InlineSlots inline_slots_;
  Lane to_device_, to_host_;
};

}  // namespace dlferry::cuda
