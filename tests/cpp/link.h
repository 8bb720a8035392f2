// Both ends of a simulated link: host memory as leaves, blocks on the device, streams of a
// caller's.
#pragma once

#include <chrono>
#include <cstddef>
#include <random>
#include <vector>

#include "cuda/engine.h"
#include "simulated.h"

namespace dlferry::test {

inline constexpr auto kSoon =
    std::chrono::seconds(20);  // longer than any of this takes, shorter than a test run

inline std::mt19937_64 rng(4);

inline std::vector<std::byte> random_bytes(std::size_t count) {
  std::vector<std::byte> bytes(count);
  for (std::byte& byte : bytes) byte = static_cast<std::byte>(rng());
  return bytes;
}

// One-dimensional memory of uint8, or of another dtype.
inline cuda::Leaf leaf_on(std::byte* data, std::int64_t count, cu::DevicePtr device,
                          DType dtype = DType::kUInt8) {
  const std::int64_t stride = static_cast<std::int64_t>(item_size(dtype));
  const View view{.data = data, .shape = &count, .strides = &stride, .ndim = 1, .dtype = dtype};
  return {.host = KeptView(view), .wire = dtype, .device = device};
}

struct DeviceBlock {
  explicit DeviceBlock(std::size_t bytes) : data(SIM(device_alloc)(0, bytes)), bytes(bytes) {}
  DeviceBlock(const DeviceBlock&) = delete;
  ~DeviceBlock() { SIM(device_free)(data); }
  [[nodiscard]] std::vector<std::byte> read() const {
    std::vector<std::byte> host(bytes);
    CHECK(SIM(peek)(host.data(), data, bytes) == 0);
    return host;
  }
  void write(const std::vector<std::byte>& host) const {
    CHECK(SIM(poke)(data, host.data(), host.size()) == 0);
  }

  const std::uint64_t data;
  const std::size_t bytes;
};

struct UserStream {
  const std::uint64_t number = SIM(stream_create)(0, 1);
  [[nodiscard]] cu::Stream get() const { return reinterpret_cast<cu::Stream>(number); }
  ~UserStream() { SIM(stream_destroy)(number); }
};

inline void close_engine() { CHECK(cuda::TransferEngine::close_all(kSoon)); }

}  // namespace dlferry::test
