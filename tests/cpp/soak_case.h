// One random transfer of the soak: what is copied where, and what must be there afterwards.
#pragma once

#include <algorithm>
#include <bit>
#include <cmath>
#include <cstring>
#include <memory>
#include <random>
#include <utility>
#include <vector>

#include "link.h"

namespace dlferry::test {

using Random = std::mt19937_64;

inline bool one_in(Random& random, unsigned many) { return random() % many == 0; }

// Log-uniform from 1 to `most`, and 0 now and then.
inline std::size_t random_size(Random& random, std::size_t most) {
  if (one_in(random, 50)) return 0;
  const double exponent = std::uniform_real_distribution<>(0, std::log2(double(most)))(random);
  return std::min(most, static_cast<std::size_t>(std::exp2(exponent)));
}

// Memory on the host, pageable or somebody's page-locked.
class HostMemory {
 public:
  HostMemory(std::size_t bytes, bool pinned) : bytes_(bytes) {
    if (pinned && bytes > 0) pinned_ = static_cast<std::byte*>(SIM(pinned_alloc)(bytes));
    if (!pinned_) pageable_.resize(bytes);
  }
  HostMemory(const HostMemory&) = delete;
  ~HostMemory() {
    if (pinned_) CHECK(SIM(pinned_free)(pinned_) == 0);
  }
  [[nodiscard]] std::byte* data() { return pinned_ ? pinned_ : pageable_.data(); }
  [[nodiscard]] std::size_t bytes() const { return bytes_; }
  void fill(Random& random) {
    std::uint64_t value = random();
    for (std::size_t i = 0; i < bytes_; i += 8) {  // quick, and no two places alike
      value = value * 6364136223846793005U + 1442695040888963407U;
      std::memcpy(data() + i, &value, std::min<std::size_t>(8, bytes_ - i));
    }
  }

 private:
  std::size_t bytes_;
  std::byte* pinned_ = nullptr;
  std::vector<std::byte> pageable_;
};

// How elements lie on the host.
enum class Form { kPlain, kEveryOther, kBackwards, kTransposed, kSwapped, kCast };

// An array of int32 on the host and its packed elements on the device, int32 or int64.
class SoakArray {
 public:
  SoakArray(Random& random, std::size_t most_bytes)
      : form_(static_cast<Form>(random() % 6)), count_(random_size(random, most_bytes) / 4) {
    if (one_in(random, 3)) form_ = Form::kPlain;
    const auto edge = static_cast<std::int64_t>(std::sqrt(static_cast<double>(count_)));
    if (form_ == Form::kTransposed) count_ = static_cast<std::size_t>(edge * edge);
    const bool spread = form_ == Form::kEveryOther;
    host_ = std::make_unique<HostMemory>(count_ * (spread ? 8 : 4), random() % 2 == 0);
    host_->fill(random);
    const auto count = static_cast<std::int64_t>(count_);
    shape_[0] = form_ == Form::kTransposed ? edge : count;
    shape_[1] = edge;
    view_ = {.data = host_->data(),
             .shape = shape_,
             .strides = strides_,
             .ndim = form_ == Form::kTransposed ? 2 : 1,
             .dtype = DType::kInt32,
             .swapped = form_ == Form::kSwapped};
    strides_[0] = spread ? 8 : 4;
    strides_[1] = 4 * edge;
    if (form_ == Form::kBackwards && count_ > 0) {
      strides_[0] = -4;
      view_.data += 4 * (count_ - 1);
    }
  }
  SoakArray(const SoakArray&) = delete;

  [[nodiscard]] std::size_t wire_size() const { return form_ == Form::kCast ? 8 : 4; }
  [[nodiscard]] std::size_t wire_bytes() const { return count_ * wire_size(); }
  [[nodiscard]] HostMemory& host() { return *host_; }
  [[nodiscard]] cuda::Leaf leaf(cu::DevicePtr device) const {
    const DType wire = form_ == Form::kCast ? DType::kInt64 : DType::kInt32;
    return {.host = KeptView(view_), .wire = wire, .device = device};
  }

  // The elements as they are on the device, worked out here one by one.
  [[nodiscard]] std::vector<std::byte> packed() {
    std::vector<std::byte> result(wire_bytes());
    for (std::size_t i = 0; i < count_; ++i) {
      std::uint32_t value = 0;
      std::memcpy(&value, place(i), 4);
      if (form_ == Form::kSwapped) value = __builtin_bswap32(value);
      const auto wide = static_cast<std::int64_t>(static_cast<std::int32_t>(value));
      if (wire_size() == 8) {
        std::memcpy(result.data() + 8 * i, &wide, 8);
      } else {
        std::memcpy(result.data() + 4 * i, &value, 4);
      }
    }
    return result;
  }

  // Whether the array has these elements, as they are on the device, and its gaps what they had.
  [[nodiscard]] bool has(const std::vector<std::byte>& wire, std::byte gap) {
    if (wire_size() == 8) {  // cut off, as casts do
      for (std::size_t i = 0; i < count_; ++i) {
        if (std::memcmp(place(i), wire.data() + 8 * i, 4) != 0) return false;
      }
    } else if (packed() != wire) {
      return false;
    }
    for (std::size_t i = 0; form_ == Form::kEveryOther && i < 4 * count_; ++i) {
      if (host_->data()[8 * (i / 4) + 4 + i % 4] != gap) return false;
    }
    return true;
  }

 private:
  std::byte* place(std::size_t i) {
    if (form_ != Form::kTransposed) {
      return view_.data + static_cast<std::int64_t>(i) * strides_[0];
    }
    const auto edge = static_cast<std::size_t>(shape_[1]);
    return view_.data + 4 * (i / edge) + 4 * edge * (i % edge);
  }

  Form form_;
  std::size_t count_;
  std::unique_ptr<HostMemory> host_;
  std::int64_t shape_[2] = {}, strides_[2] = {};
  View view_;
};

// Arrays of one transfer in one block on the device, with guards between and around them.
class SoakCase {
 public:
  static constexpr std::size_t kGap = 256;
  static constexpr std::byte kUntouched{0x5C};

  SoakCase(Random& random, std::size_t most_bytes)
      : to_device_(random() % 2 == 0), packed_(random() % 2 == 0) {
    const std::size_t arrays = one_in(random, 4) ? 2 + random() % 30 : 1;
    std::size_t end = kGap;
    for (std::size_t i = 0; i < arrays; ++i) {
      arrays_.push_back(
          std::make_unique<SoakArray>(random, std::max<std::size_t>(most_bytes / arrays, 64)));
      offsets_.push_back(end);
      end += (arrays_.back()->wire_bytes() + kGap - 1) / kGap * kGap + (packed_ ? 0 : kGap);
    }
    block_ = std::make_unique<DeviceBlock>(end + kGap);
    CHECK(block_->data != 0);
    before_.assign(block_->bytes, kUntouched);
    for (std::size_t i = 0; i < arrays; ++i) {
      wire_.push_back(arrays_[i]->packed());
      if (to_device_) continue;
      std::copy(wire_[i].begin(), wire_[i].end(), before_.begin() + at(i));
      std::fill_n(arrays_[i]->host().data(), arrays_[i]->host().bytes(), kUntouched);
    }
    block_->write(before_);
  }

  [[nodiscard]] cuda::Request request(cu::Stream stream, bool ordered) const {
    cuda::Request request{
        .direction = to_device_ ? cuda::Direction::kToDevice : cuda::Direction::kToHost,
        .packed = packed_,
        .stream = stream,
        .ordered = ordered};
    for (std::size_t i = 0; i < arrays_.size(); ++i) {
      request.leaves.push_back(arrays_[i]->leaf(block_->data + offsets_[i]));
    }
    return request;
  }
  [[nodiscard]] bool to_device() const { return to_device_; }
  [[nodiscard]] std::size_t wire_bytes() const {
    std::size_t sum = 0;
    for (const auto& wire : wire_) sum += wire.size();
    return sum;
  }

  // What a caller may do as soon as the source has been read.
  void spoil_source(Random& random) {
    if (!to_device_) return;
    for (const auto& array : arrays_) array->host().fill(random);
  }

  // After a transfer that ended well. Between packed arrays anything may be.
  void check() {
    const std::vector<std::byte> after = block_->read();
    for (std::size_t i = 0; i < arrays_.size(); ++i) {
      CHECK(std::equal(wire_[i].begin(), wire_[i].end(), after.begin() + at(i)));
      CHECK(to_device_ || arrays_[i]->has(wire_[i], kUntouched));
    }
    check_outside(after);
  }
  void check_outside() { check_outside(block_->read()); }

 private:
  [[nodiscard]] std::ptrdiff_t at(std::size_t i) const {
    return static_cast<std::ptrdiff_t>(offsets_[i]);
  }
  void check_outside(const std::vector<std::byte>& after) {
    const auto is_untouched = [&](std::size_t begin, std::size_t end) {
      return std::equal(after.begin() + static_cast<std::ptrdiff_t>(begin),
                        after.begin() + static_cast<std::ptrdiff_t>(end),
                        before_.begin() + static_cast<std::ptrdiff_t>(begin));
    };
    if (!to_device_) return CHECK(after == before_);
    CHECK(is_untouched(0, kGap));
    for (std::size_t i = 0; i < arrays_.size(); ++i) {
      const bool last = i + 1 == arrays_.size();
      if (packed_ && !last) continue;
      CHECK(is_untouched(offsets_[i] + wire_[i].size(), last ? after.size() : offsets_[i + 1]));
    }
  }

  bool to_device_, packed_;
  std::vector<std::unique_ptr<SoakArray>> arrays_;
  std::vector<std::size_t> offsets_;
  std::vector<std::vector<std::byte>> wire_;  // what is or will be on the device
  std::unique_ptr<DeviceBlock> block_;
  std::vector<std::byte> before_;
};

}  // namespace dlferry::test
