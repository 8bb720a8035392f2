#include "cuda/copies.h"

#include <vector>

namespace dlferry::cuda {
namespace {

// The driver has one function for many copies since CUDA 12.8, and since 13.0 with one parameter
// less. It takes neither the null stream nor a copy of nothing.
bool has_batch(const Driver& driver) noexcept {
  return driver.cuMemcpyBatchAsync || driver.cuMemcpyBatchAsync_v2;
}

void submit_batch(const Driver& driver, Direction direction, std::span<const LinkCopy> copies,
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
  if (driver.cuMemcpyBatchAsync_v2) {
    call<&Driver::cuMemcpyBatchAsync_v2>(to.data(), from.data(), bytes.data(), copies.size(),
                                         &in_order, &first, std::size_t{1}, stream);
  } else {
    std::size_t failed = 0;
    call<&Driver::cuMemcpyBatchAsync>(to.data(), from.data(), bytes.data(), copies.size(),
                                      &in_order, &first, std::size_t{1}, &failed, stream);
  }
}

}  // namespace

void submit_copies(Direction direction, std::span<const LinkCopy> copies, cu::Stream stream,
                   bool page_locked) {
  const Driver& loaded = driver();
  if (copies.size() > 1 && page_locked && stream != cu::kStreamLegacy && has_batch(loaded)) {
    return submit_batch(loaded, direction, copies, stream);
  }
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
