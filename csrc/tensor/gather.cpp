#include "tensor/gather.h"

#include <algorithm>
#include <cstdlib>
#include <cstring>

#include "tensor/kernels.h"

namespace dlferry {

Gather::Gather(std::size_t item, std::size_t swap_size, std::int64_t stride) noexcept
    : Gather(item, swap_size, 1, static_cast<std::int64_t>(item), stride) {}

Gather::Gather(std::size_t item, std::size_t swap_size, std::int64_t count, std::int64_t step,
               std::int64_t stride) noexcept
    : item_(static_cast<std::int64_t>(item)),
      swap_size_(static_cast<std::int64_t>(swap_size)),
      in_group_(count),
      step_(step),
      stride_(stride),
      bytes_(item_ * count),
      lowest_(std::min<std::int64_t>(0, (count - 1) * step)),
      span_(std::abs((count - 1) * step) + item_),
      contiguous_(swap_size == 1 && stride == bytes_ && (count == 1 || step == item_)) {
  // Where a load would hold a single element that stays as it is, the shuffle gains nothing, and
  // plain runs backwards, and of every second element, have a better loop.
  const bool shared = stride_ != 0 && std::abs(stride_) + span_ <= kMostBytes;
  const bool plain =
      in_group_ == 1 && swap_size_ == 1 && (stride_ == -item_ || stride_ == 2 * item_);
  const bool gains = in_group_ > 1 || swap_size_ > 1 || (shared && !plain);
  if (kernels().shuffle && !contiguous_ && gains) prepare_shuffle();
}

bool Gather::fits(std::size_t item, std::int64_t count, std::int64_t step) noexcept {
  const auto bytes = static_cast<std::int64_t>(item);
  return count * bytes <= kMostBytes && std::abs(step) <= kMostBytes &&
         std::abs((count - 1) * step) + bytes <= kMostBytes;
}

void Gather::prepare_shuffle() noexcept {
  const std::int64_t distance = std::abs(stride_);
  const std::int64_t loaded = distance == 0 ? 1 : (kMostBytes - span_) / distance + 1;
  shuffle_.groups = std::min(loaded, kMostBytes / bytes_);
  // The load's far end is where the groups begin, so that no load but the last ones passes theirs.
  shuffle_.load_at = stride_ < 0 ? lowest_ + span_ - kMostBytes : lowest_;
  for (std::int64_t i = 0; i < shuffle_.groups * bytes_; ++i) {
    const std::int64_t group = i / bytes_, element = i % bytes_ / item_, byte = i % item_;
    const std::int64_t in_unit = byte % swap_size_;
    const std::int64_t from_byte =
        swap_size_ > 1 ? byte - in_unit + swap_size_ - 1 - in_unit : byte;
    const std::int64_t at = group * stride_ + element * step_ + from_byte;
    shuffle_.from[static_cast<std::size_t>(i)] = static_cast<std::uint8_t>(at - shuffle_.load_at);
  }
}

// How many loads stay within the bytes of `count` groups, on both sides.
std::int64_t Gather::safe_loads(std::int64_t count) const noexcept {
  const std::int64_t advance = shuffle_.groups * std::abs(stride_);
  const std::int64_t readable = (count - 1) * std::abs(stride_) + span_ - kMostBytes;
  const std::int64_t writable = count * bytes_ - kMostBytes;
  if (readable < 0 || writable < 0) return 0;
  const std::int64_t stores = writable / (shuffle_.groups * bytes_) + 1;
  return advance == 0 ? stores : std::min(stores, readable / advance + 1);
}

void Gather::run(std::byte* dst, const std::byte* src, std::int64_t count) const noexcept {
  if (contiguous_) {
    std::memcpy(dst, src, static_cast<std::size_t>(count * bytes_));
    return;
  }
  const std::int64_t loads = shuffle_.groups > 0 ? safe_loads(count) : 0;
  if (loads > 0) run_shuffled(dst, src, loads);
  const std::int64_t done = loads * shuffle_.groups;
  if (done < count) run_one_by_one(dst + done * bytes_, src + done * stride_, count - done);
}

void Gather::run_shuffled(std::byte* dst, const std::byte* src, std::int64_t loads) const noexcept {
  kernels().shuffle(dst, shuffle_.groups * bytes_, src + shuffle_.load_at,
                    shuffle_.groups * stride_, loads, shuffle_.from.data());
}

void Gather::run_one_by_one(std::byte* dst, const std::byte* src,
                            std::int64_t count) const noexcept {
  const GatherRun gather = kernels().gather[size_index(static_cast<std::size_t>(item_))];
  if (in_group_ == 1) {
    gather(dst, src, stride_, static_cast<std::size_t>(count));
  } else {
    for (std::int64_t i = 0; i < count; ++i) {
      gather(dst + i * bytes_, src + i * stride_, step_, static_cast<std::size_t>(in_group_));
    }
  }
  if (swap_size_ > 1) {
    kernels().swap[size_index(static_cast<std::size_t>(swap_size_))](
        dst, static_cast<std::size_t>(count * bytes_ / swap_size_));
  }
}

}  // namespace dlferry
