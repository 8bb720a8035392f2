#include "blocks.h"

#include <utility>

namespace dlferry::sim {

BlockPtr Blocks::at(std::uintptr_t address) const {
  auto after = blocks_.upper_bound(address);
  if (after == blocks_.begin()) return nullptr;
  const BlockPtr& block = std::prev(after)->second;
  return address - block->begin < block->bytes ? block : nullptr;
}

bool Blocks::overlaps(std::uintptr_t begin, std::size_t bytes) const {
  const auto next = blocks_.lower_bound(begin);
  if (next != blocks_.end() && next->first - begin < bytes) return true;
  return at(begin) != nullptr;
}

void Blocks::insert(BlockPtr block) {
  const std::uintptr_t begin = block->begin;
  blocks_.emplace(begin, std::move(block));
}

}  // namespace dlferry::sim
