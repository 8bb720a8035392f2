#include "cuda/copies.h"

#include <atomic>
#include <vector>

namespace dlferry::cuda {
namespace {

// A driver that refuses one batch is asked for no more: a virtual machine or a translation layer
// may export the function and not have it.
std::atomic<bool> takes_no_batch{false};

// The driver has one function for many copies since CUDA 12.8, and since 13.0 with one parameter
// less. It takes neither the null stream nor a copy of nothing.
bool has_batch(const Driver& driver) noexcept {
  return (driver.cuMemcpyBatchAsync || driver.cuMemcpyBatchAsync_v2) && !takes_no_batch;
}

// False where the driver takes no such call. Some of the copies may have been submitted even then,
// and can be submitted again.
bool submit_batch(const Driver& driver, Direction direction, std::span<const LinkCopy> copies,
                  cu::Stream stream) {
  std::vector<cu::DevicePtr> to, from;
  std::vector<std::size_t> bytes;
  for (const LinkCopy& copy : copies) {
    const auto host = static_cast<cu::DevicePtr>(reinterpret_cast<std::uintptr_t>(copy.host));
    to.push_back(direction == Direction::kToDevice ? copy.device : host);
    from.push_back(direction == Direction::kToDevice ? host : copy.device);
    bytes.push_back(copy.bytes);
  }
  cu::CopyAttributes in_order{
      .order = cu::kOrderStream, .source_hint = {}, .destination_hint = {}, .flags = 0};
  std::size_t first = 0;  // these attributes hold from the first copy on
  cu::Result result;
  if (driver.cuMemcpyBatchAsync_v2) {
    result = driver.cuMemcpyBatchAsync_v2(to.data(), from.data(), bytes.data(), copies.size(),
                                          &in_order, &first, 1, stream);
  } else {
    std::size_t failed = 0;
    result = driver.cuMemcpyBatchAsync(to.data(), from.data(), bytes.data(), copies.size(),
                                       &in_order, &first, 1, &failed, stream);
  }
  if (result == cu::kSuccess) return true;
  if (result != cu::kErrorNotSupported && result != cu::kErrorInvalidValue) {
    throw Error("cuMemcpyBatchAsync", result);
  }
  takes_no_batch = true;
  return false;
}

}  // namespace

void submit_copies(Direction direction, std::span<const LinkCopy> copies, cu::Stream stream,
                   bool page_locked) {
  const Driver& loaded = driver();
  const bool may_batch = copies.size() > 1 && page_locked && stream != cu::kStreamLegacy;
  if (may_batch && has_batch(loaded) && submit_batch(loaded, direction, copies, stream)) return;
  for (const LinkCopy& copy : copies) {
    if (direction == Direction::kToDevice) {
      call<&Driver::cuMemcpyHtoDAsync_v2>(copy.device, static_cast<const void*>(copy.host),
                                          copy.bytes, stream);
    } else {
      call<&Driver::cuMemcpyDtoHAsync_v2>(static_cast<void*>(copy.host), copy.device, copy.bytes,
                                          stream);
    }
  }
}

}  // namespace dlferry::cuda
