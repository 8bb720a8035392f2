#include "cuda/parts.h"

#include <algorithm>
#include <cstdint>
#include <utility>

#include "tensor/range.h"
#include "tensor/workers.h"

namespace dlferry::cuda {
namespace {

// A link that works on one part of this size keeps an urgent one waiting for a third of a
// millisecond; larger parts gain nothing.
constexpr std::size_t kDirectBytes = std::size_t{16} << 20;

// Below this, putting leaves together costs less than a copy for each.
constexpr std::size_t kSmallestDirect = std::size_t{64} << 10;

// Leaves begin in a slot as they do on the device: where vectors like to begin.
constexpr std::size_t kAlignment = 256;

// One thread fills less sooner than others wake up.
constexpr std::size_t kParallelBytes = std::size_t{512} << 10;

std::int64_t item_bytes(const Leaf& leaf) noexcept {
  return static_cast<std::int64_t>(item_size(leaf.wire));
}

template <class Move>
void for_each_piece(const Part& part, const Move& move) noexcept {
  if (part.pieces.size() == 1 || part.slot_bytes < kParallelBytes) {
    for (const Piece& piece : part.pieces) move(piece);
  } else {
    parallel(part.pieces.size(), [&](std::size_t i) noexcept { move(part.pieces[i]); });
  }
}

}  // namespace

std::size_t Leaf::bytes() const noexcept {
  return static_cast<std::size_t>(element_count(*host)) * item_size(wire);
}

bool Leaf::goes_direct() const noexcept {
  return pinned && host->dtype == wire && !host->swapped && is_contiguous(*host);
}

std::vector<LinkCopy> Part::copies(std::byte* slot) const {
  if (is_direct()) return {direct};
  std::vector<LinkCopy> copies;
  for (const Run& run : runs) copies.push_back({slot + run.offset, run.device, run.bytes});
  return copies;
}

void fill_slot(const Part& part, std::byte* slot) noexcept {
  for_each_piece(part, [&](const Piece& piece) noexcept {
    pack_range(slot + piece.offset, piece.leaf->wire, *piece.leaf->host, piece.first, piece.count);
  });
}

void drain_slot(const Part& part, const std::byte* slot) noexcept {
  for_each_piece(part, [&](const Piece& piece) noexcept {
    unpack_range(*piece.leaf->host, slot + piece.offset, piece.leaf->wire, piece.first,
                 piece.count);
  });
}

Parts::Parts(std::vector<Leaf> leaves, bool packed, std::size_t slot_bytes)
    : leaves_(std::move(leaves)), packed_(packed), slot_bytes_(slot_bytes) {
  std::erase_if(leaves_, [](const Leaf& leaf) { return leaf.bytes() == 0; });
  for (const Leaf& leaf : leaves_) {
    total_bytes_ += leaf.bytes();
    (is_direct(leaf) ? has_direct_ : has_staged_) = true;
  }
}

bool Parts::can_go_direct(const Leaf& leaf, std::size_t leaves) noexcept {
  return leaves == 1 || leaf.bytes() >= kSmallestDirect;
}

bool Parts::is_direct(const Leaf& leaf) const noexcept {
  return leaf.goes_direct() && can_go_direct(leaf, leaves_.size());
}

Part Parts::next() { return next_is_direct() ? next_direct() : next_staged(); }

Part Parts::next_direct() {
  const Leaf& leaf = leaves_[leaf_];
  const std::int64_t item = item_bytes(leaf);
  const std::int64_t most = std::max<std::int64_t>(kDirectBytes / item_size(leaf.wire), 1);
  const std::int64_t count = std::min(element_count(*leaf.host) - first_, most);
  Part part;
  part.direct = {.host = leaf.host->data + first_ * item,
                 .device = leaf.device + static_cast<cu::DevicePtr>(first_ * item),
                 .bytes = static_cast<std::size_t>(count * item)};
  advance(count);
  return part;
}

Part Parts::next_staged() {
  Part part;
  std::size_t end = 0;  // of what is in the slot
  while (!at_end() && (part.pieces.empty() || !next_is_direct())) {
    const Leaf& leaf = leaves_[leaf_];
    const std::int64_t item = item_bytes(leaf);
    const cu::DevicePtr device = leaf.device + static_cast<cu::DevicePtr>(first_ * item);
    const std::size_t begin = place_in_slot(part, device, end);
    const auto room = static_cast<std::int64_t>(slot_bytes_ - std::min(begin, slot_bytes_)) / item;
    const std::int64_t count = std::min(element_count(*leaf.host) - first_, room);
    if (count == 0) break;
    const auto bytes = static_cast<std::size_t>(count * item);
    part.pieces.push_back({&leaf, first_, count, begin});
    append_run(part, {begin, device, bytes});
    end = begin + bytes;
    advance(count);
  }
  part.slot_bytes = end;
  return part;
}

// Where in the slot the elements go that belong at `device`: after `end`, as near to what comes
// before as they are there, so that both can cross as one.
std::size_t Parts::place_in_slot(const Part& part, cu::DevicePtr device,
                                 std::size_t end) const noexcept {
  if (packed_ && !part.runs.empty()) {
    const cu::DevicePtr gap = device - (part.runs.back().device + part.runs.back().bytes);
    if (gap < kAlignment) return end + gap;
  }
  return (end + kAlignment - 1) / kAlignment * kAlignment;
}

// Neighbours in one block cross the link as one, with what lies between them. Others never do, not
// even where they touch: no copy may leave the allocation that it begins in.
void Parts::append_run(Part& part, Run run) const {
  if (packed_ && !part.runs.empty()) {
    Run& before = part.runs.back();
    if (run.device - before.device == run.offset - before.offset) {
      before.bytes = run.offset + run.bytes - before.offset;
      return;
    }
  }
  part.runs.push_back(run);
}

void Parts::advance(std::int64_t count) noexcept {
  first_ += count;
  if (first_ < element_count(*leaves_[leaf_].host)) return;
  first_ = 0;
  ++leaf_;
}

}  // namespace dlferry::cuda
