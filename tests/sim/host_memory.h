// Page-locked host memory: allocated by the driver or registered with it.
#pragma once

#include "blocks.h"

namespace dlferry::sim {

class HostMemory {
 public:
  // Fresh poisoned pages, or null.
  static void* map(std::size_t bytes);
  static void unmap(void* data, std::size_t bytes);

  BlockPtr add(void* data, std::size_t bytes, BlockKind kind, int device, bool read_only = false);
  void remove(const BlockPtr& block) { blocks_.erase(block->begin); }

  // The block that starts here and is of this kind, or null.
  [[nodiscard]] BlockPtr starting_at(const void* data, BlockKind kind) const;
  [[nodiscard]] BlockPtr at(std::uintptr_t address) const { return blocks_.at(address); }
  [[nodiscard]] bool overlaps(std::uintptr_t begin, std::size_t bytes) const {
    return blocks_.overlaps(begin, bytes);
  }
  // Whether a page of the range belongs to a block.
  [[nodiscard]] bool shares_page(const void* data, std::size_t bytes, std::size_t page) const;
  [[nodiscard]] const Blocks& blocks() const noexcept { return blocks_; }

 private:
  Blocks blocks_;
};

// What the process has mapped at a range.
enum class Mapped { kNot, kReadOnly, kWritable };
[[nodiscard]] Mapped how_mapped(const void* data, std::size_t bytes);

}  // namespace dlferry::sim
