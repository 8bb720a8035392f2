#include "cuda/engine.h"

#include <algorithm>
#include <array>
#include <atomic>
#include <mutex>
#include <utility>

#include "cuda/pinned.h"

namespace dlferry::cuda {
namespace {

// Large enough for the link's full rate and small enough that an urgent copy soon has its turn.
constexpr std::size_t kSlotBytes = std::size_t{4} << 20;
constexpr std::size_t kLanes = 2;

// Page-locked memory needs no slot, so more of it is submitted at once without a thread's help.
constexpr std::size_t kInlineDirectBytes = std::size_t{1} << 20;

std::atomic<std::size_t> staging_bytes_wanted{std::size_t{32} << 20};

std::size_t slots_of_a_lane() noexcept {
  const std::size_t slots = staging_bytes_wanted.load() / kLanes / kSlotBytes;
  return std::max<std::size_t>(slots, 2);  // one on the link, one being filled
}

struct Registry {
  static constexpr std::size_t kDevices = 64;
  std::mutex mutex;
  std::array<std::atomic<TransferEngine*>, kDevices> engines{};
};

// Leaked on purpose: threads sleep in its engines until the process ends. A forked child may find
// it in any state, but is told before that it has no driver.
Registry& registry = *new Registry;

void refuse_capture(cu::Stream stream) {
  if (!is_capturing(stream)) return;
  throw Error(
      "cuStreamIsCapturing", cu::kErrorStreamCaptureUnsupported,
      "The current stream is being captured into a graph, which would copy from memory that "
      "is long someone else's: transfer before or after the capture");
}

void find_pinned(std::vector<Leaf>& leaves) noexcept {
  for (Leaf& leaf : leaves) {
    if (!Parts::can_go_direct(leaf, leaves.size())) continue;
    const Extent extent = extent_of(*leaf.host);
    leaf.pinned = is_pinned(extent.begin, static_cast<std::size_t>(extent.end - extent.begin));
  }
}

std::size_t bytes_of(const std::vector<Leaf>& leaves) noexcept {
  std::size_t bytes = 0;
  for (const Leaf& leaf : leaves) bytes += leaf.bytes();
  return bytes;
}

}  // namespace

TransferEngine::TransferEngine(int device)
    : device_(device),
      to_device_(device, Direction::kToDevice, kSlotBytes, slots_of_a_lane()),
      to_host_(device, Direction::kToHost, kSlotBytes, slots_of_a_lane()) {}

TransferEngine& TransferEngine::on(int device) {
  (void)driver();  // says what is missing, also in a forked child
  const auto index = static_cast<std::size_t>(device);
  if (device < 0 || index >= Registry::kDevices)
    throw Error("cuDeviceGet", cu::kErrorInvalidDevice);
  TransferEngine* found = registry.engines[index].load(std::memory_order_acquire);
  if (found) return *found;
  const std::lock_guard lock(registry.mutex);
  found = registry.engines[index].load(std::memory_order_acquire);
  if (found) return *found;
  const DriverScope scope(device);
  found = new TransferEngine(device);
  registry.engines[index].store(found, std::memory_order_release);
  return *found;
}

void TransferEngine::set_staging_bytes(std::size_t bytes) noexcept {
  staging_bytes_wanted.store(bytes);
}

bool TransferEngine::close_all(std::chrono::nanoseconds timeout, After after) noexcept {
  if (!loaded_driver()) return true;  // nor any engine
  const std::lock_guard lock(registry.mutex);
  bool closed = true;
  for (std::atomic<TransferEngine*>& slot : registry.engines) {
    TransferEngine* const engine = slot.load(std::memory_order_acquire);
    if (!engine) continue;
    if (!engine->close(timeout)) {
      closed = false;  // leaked: its threads are still inside
      continue;
    }
    if (after == After::kLeak) continue;
    slot.store(nullptr, std::memory_order_release);
    delete engine;
  }
  return closed;
}

bool TransferEngine::close(std::chrono::nanoseconds timeout) noexcept {
  const bool to_device = to_device_.close(timeout);
  return to_host_.close(timeout) && to_device;
}

std::size_t TransferEngine::staging_bytes() const noexcept {
  return to_device_.ring_bytes() + to_host_.ring_bytes();
}

Lane& TransferEngine::lane(Direction direction) noexcept {
  return direction == Direction::kToDevice ? to_device_ : to_host_;
}

const Lane& TransferEngine::lane(Direction direction) const noexcept {
  return direction == Direction::kToDevice ? to_device_ : to_host_;
}

void TransferEngine::check(cu::Stream stream) const {
  const DriverScope scope(device_);
  refuse_capture(stream);
}

bool TransferEngine::goes_inline(Request request) {
  find_pinned(request.leaves);
  Parts parts(std::move(request.leaves), request.packed, kInlineBytes);
  if (parts.at_end()) return true;
  if (parts.next_is_direct()) return false;
  (void)parts.next();
  return parts.at_end();
}

std::shared_ptr<Transfer> TransferEngine::start_inline(Request request) {
  const DriverScope scope(device_);
  refuse_capture(request.stream);
  // Page-locked sources would be read as late as the stream comes to it, and whoever wants them
  // back would wait for all that is queued there: little is copied like pageable memory, which
  // takes less time than handing it to a thread, and more goes by a lane. So do pageable
  // destinations, which a thread has to write.
  const bool to_host = request.direction == Direction::kToHost;
  if (to_host || bytes_of(request.leaves) > kLittleBytes) find_pinned(request.leaves);
  Parts parts(std::move(request.leaves), request.packed, kInlineBytes);
  if (parts.at_end()) return Transfer::finished(device_);
  if (parts.next_is_direct() != to_host || parts.total_bytes() > kInlineDirectBytes) return nullptr;
  const Part part = parts.next();
  if (!parts.at_end()) return nullptr;
  InlineSlots::Slot* const slot = part.is_direct() ? nullptr : inline_slots_.take();
  if (!slot && !part.is_direct()) return nullptr;
  return submit_inline(part, slot, request);
}

std::shared_ptr<Transfer> TransferEngine::submit_inline(const Part& part, InlineSlots::Slot* slot,
                                                        const Request& request) {
  std::shared_ptr<Event> copied;
  bool begun = false;
  try {
    copied = std::make_shared<Event>(device_);
    if (slot) fill_slot(part, slot->data);
    const std::vector<LinkCopy> copies = part.copies(slot ? slot->data : nullptr);
    begun = true;
    submit_copies(request.direction, copies, request.stream);
    copied->record(request.stream);
  } catch (...) {
    // Nobody could tell when the copy has ended, so it ends here, however long the stream takes.
    const bool over =
        !begun || try_call<&Driver::cuStreamSynchronize>(request.stream) == cu::kSuccess;
    if (slot && over) inline_slots_.give_back(slot, nullptr);
    if (slot && !over) inline_slots_.lose(slot);
    throw;
  }
  if (slot) inline_slots_.give_back(slot, copied);
  return Transfer::submitted(device_, std::move(copied), part.is_direct());
}

std::shared_ptr<Transfer> TransferEngine::start(Request request) {
  const DriverScope scope(device_);
  refuse_capture(request.stream);
  find_pinned(request.leaves);
  Lane& lane = this->lane(request.direction);
  auto transfer = std::make_shared<Transfer>(device_);
  Job job{.transfer = transfer,
          .parts = Parts(std::move(request.leaves), request.packed, lane.slot_bytes())};
  if (job.parts.at_end()) return Transfer::finished(device_);
  if (request.ordered) {
    job.ready = Event(device_);
    job.ready.record(request.stream);
  }
  lane.submit(std::move(job));
  return transfer;
}

}  // namespace dlferry::cuda
