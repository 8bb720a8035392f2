// Parts: a transfer of any size, cut into what one submission moves.
#pragma once

#include <cstddef>
#include <cstdint>
#include <vector>

#include "cuda/copies.h"
#include "tensor/kept_view.h"

namespace dlferry::cuda {

// One array of a transfer. On the device its elements lie one after another, in C order.
struct Leaf {
  KeptView host;
  DType wire = DType::kUInt8;  // what crosses the link and lies on the device
  cu::DevicePtr device = 0;
  bool pinned = false;  // the host memory is page-locked

  [[nodiscard]] std::size_t bytes() const noexcept;  // on the device
  // Whether the link can take the elements from, or put them, where they are.
  [[nodiscard]] bool goes_direct() const noexcept;
};

// A range of a leaf's elements and its place in a slot.
struct Piece {
  const Leaf* leaf;
  std::int64_t first;
  std::int64_t count;
  std::size_t offset;  // in the slot
};

// What of a slot crosses the link as one.
struct Run {
  std::size_t offset;  // in the slot
  cu::DevicePtr device;
  std::size_t bytes;
};

// Either elements of one page-locked leaf, which need no slot, or what fits into one.
struct Part {
  LinkCopy direct{};            // when there are no pieces
  std::vector<Piece> pieces{};  // in the slot, by rising offset
  std::vector<Run> runs{};
  std::size_t slot_bytes = 0;

  [[nodiscard]] bool is_direct() const noexcept { return pieces.empty(); }
  [[nodiscard]] std::vector<LinkCopy> copies(std::byte* slot) const;
};

// Fills a slot with the pieces, cast, gathered and in native byte order; by several threads.
void fill_slot(const Part& part, std::byte* slot) noexcept;
// Brings the pieces from a slot to where they belong.
void drain_slot(const Part& part, const std::byte* slot) noexcept;

// Goes through the leaves once, in their order.
class Parts {
 public:
  // `packed`: the leaves lie in one block on the device, and what lies between them is nobody's.
  Parts(std::vector<Leaf> leaves, bool packed, std::size_t slot_bytes);

  // Whether it matters that a leaf is page-locked: a small one goes direct only when it is alone.
  [[nodiscard]] static bool can_go_direct(const Leaf& leaf, std::size_t leaves) noexcept;

  [[nodiscard]] bool at_end() const noexcept { return leaf_ == leaves_.size(); }
  [[nodiscard]] std::size_t total_bytes() const noexcept { return total_bytes_; }
  [[nodiscard]] bool has_direct() const noexcept { return has_direct_; }
  [[nodiscard]] bool has_staged() const noexcept { return has_staged_; }
  [[nodiscard]] bool next_is_direct() const noexcept { return is_direct(leaves_[leaf_]); }
  [[nodiscard]] Part next();  // not at the end

 private:
  [[nodiscard]] bool is_direct(const Leaf& leaf) const noexcept;
  [[nodiscard]] Part next_direct();
  [[nodiscard]] Part next_staged();
  [[nodiscard]] std::size_t place_in_slot(const Part& part, cu::DevicePtr device,
                                          std::size_t end) const noexcept;
  void append_run(Part& part, Run run) const;
  void advance(std::int64_t count) noexcept;

  std::vector<Leaf> leaves_;  // without empty ones; never changed, because parts point into it
  bool packed_;
  std::size_t slot_bytes_;
  std::size_t total_bytes_ = 0;
  bool has_direct_ = false;
  bool has_staged_ = false;
  std::size_t leaf_ = 0;    // where the next part begins
  std::int64_t first_ = 0;  // in that leaf, in elements
};

}  // namespace dlferry::cuda
