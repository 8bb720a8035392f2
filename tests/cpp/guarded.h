// Memory on either end of a simulated link between guards, and what it is filled from.
#pragma once

#include <algorithm>
#include <cstring>
#include <utility>
#include <vector>

#include "link.h"

namespace dlferry::test {

inline constexpr std::size_t kMiB = std::size_t{1} << 20;
inline constexpr std::size_t kTwoDirectParts = 16 * kMiB + 65537;  // what goes direct

// What everything is copied from, or compared with. Made before any process is forked.
inline const std::vector<std::byte> truth = random_bytes(20 * kMiB);

inline std::byte* some_truth(std::size_t offset = 0) {
  return const_cast<std::byte*>(truth.data()) + offset;
}

inline constexpr std::size_t kGuard = 4096;
inline constexpr std::byte kGuardByte{0xA5};

inline bool is_guard(const std::byte* data, std::size_t bytes) {
  return std::all_of(data, data + bytes, [](std::byte b) { return b == kGuardByte; });
}

// On the device, with guards before and after and wherever else nothing may be written.
class GuardedBlock {
 public:
  explicit GuardedBlock(std::size_t bytes) : block_(bytes + 2 * kGuard), bytes_(bytes) {
    CHECK(block_.data != 0);
    guard(-static_cast<std::ptrdiff_t>(kGuard), kGuard);
    guard(static_cast<std::ptrdiff_t>(bytes), kGuard);
  }
  [[nodiscard]] cu::DevicePtr data() const { return block_.data + kGuard; }
  void guard(std::ptrdiff_t offset, std::size_t bytes) {
    const std::vector<std::byte> pattern(bytes, kGuardByte);
    CHECK(SIM(poke)(data() + static_cast<std::size_t>(offset), pattern.data(), bytes) == 0);
    guards_.emplace_back(kGuard + static_cast<std::size_t>(offset), bytes);
  }
  void write(const std::byte* from) const { CHECK(SIM(poke)(data(), from, bytes_) == 0); }
  // In pieces, because new memory is what takes the time here.
  [[nodiscard]] bool holds(const std::byte* expected, std::size_t offset, std::size_t bytes) const {
    for (std::size_t end = 0, begin = 0; begin < bytes; begin = end) {
      end = std::min(bytes, begin + kPiece);
      if (std::memcmp(read(data() + offset + begin, end - begin), expected + begin, end - begin)) {
        return false;
      }
    }
    return true;
  }
  void check_guards() const {
    for (const auto& [begin, bytes] : guards_) {  // each smaller than a piece
      CHECK(is_guard(read(block_.data + begin, bytes), bytes));
    }
  }

 private:
  static constexpr std::size_t kPiece = std::size_t{64} << 10;
  static const std::byte* read(cu::DevicePtr from, std::size_t bytes) {
    static std::vector<std::byte> piece(kPiece);
    CHECK(SIM(peek)(piece.data(), from, bytes) == 0);
    return piece.data();
  }
  DeviceBlock block_;
  std::size_t bytes_;
  std::vector<std::pair<std::size_t, std::size_t>> guards_;
};

// On the host, pageable or somebody's page-locked memory.
class GuardedHost {
 public:
  explicit GuardedHost(std::size_t bytes, bool pinned = false)
      : bytes_(bytes), whole_(bytes + 2 * kGuard) {
    if (pinned) {
      pinned_ = static_cast<std::byte*>(SIM(pinned_alloc)(whole_));
    } else {
      pageable_.resize(whole_);
    }
    std::memset(begin(), static_cast<int>(kGuardByte), whole_);
  }
  GuardedHost(const GuardedHost&) = delete;
  ~GuardedHost() {
    if (pinned_) CHECK(SIM(pinned_free)(pinned_) == 0);  // counted where a copy still needs it
  }
  [[nodiscard]] std::byte* data() { return begin() + kGuard; }
  void check_guards() {
    CHECK(is_guard(begin(), kGuard));
    CHECK(is_guard(data() + bytes_, kGuard));
  }
  [[nodiscard]] bool holds(const std::byte* expected) {
    return std::memcmp(data(), expected, bytes_) == 0;
  }

 private:
  std::byte* begin() { return pinned_ ? pinned_ : pageable_.data(); }
  std::size_t bytes_, whole_;
  std::byte* pinned_ = nullptr;
  std::vector<std::byte> pageable_;
};

}  // namespace dlferry::test
