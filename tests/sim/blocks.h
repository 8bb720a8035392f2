// Blocks of memory that the driver knows: where they are, and whether copies still need them.
#pragma once

#include <cstddef>
#include <cstdint>
#include <map>
#include <memory>

namespace dlferry::sim {

enum class BlockKind { kDevice, kHostAllocation, kRegistration, kForeignPinned };

struct Block {
  std::uintptr_t begin = 0;  // as the program names it
  std::size_t bytes = 0;
  std::byte* data = nullptr;  // where the engines reach it
  BlockKind kind = BlockKind::kDevice;
  int device = 0;
  bool read_only = false;  // for the device
  bool alive = true;       // not freed yet
  int pending = 0;         // copies that are queued or under way
  int copying = 0;         // copies whose bytes are moving now

  [[nodiscard]] bool holds(std::uintptr_t address, std::size_t count) const noexcept {
    return address >= begin && address - begin <= bytes && count <= bytes - (address - begin);
  }
  [[nodiscard]] std::byte* at(std::uintptr_t address) const noexcept {
    return data + (address - begin);
  }
};
using BlockPtr = std::shared_ptr<Block>;

// Blocks that do not overlap, by address.
class Blocks {
 public:
  // The block that `address` is in, or null.
  [[nodiscard]] BlockPtr at(std::uintptr_t address) const;
  [[nodiscard]] bool overlaps(std::uintptr_t begin, std::size_t bytes) const;
  [[nodiscard]] const std::map<std::uintptr_t, BlockPtr>& all() const noexcept { return blocks_; }
  void insert(BlockPtr block);
  void erase(std::uintptr_t begin) { blocks_.erase(begin); }

 private:
  std::map<std::uintptr_t, BlockPtr> blocks_;
};

}  // namespace dlferry::sim
