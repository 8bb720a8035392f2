#include "device_memory.h"

#include <sys/mman.h>
#include <unistd.h>

#include <algorithm>
#include <cstring>

namespace dlferry::sim {
namespace {

constexpr std::size_t kAlignment = 512;  // as cuMemAlloc's results
constexpr int kFresh = 0xA5;
constexpr int kFreed = 0x5A;

}  // namespace

DeviceMemory::Arena DeviceMemory::map_arena(std::size_t bytes) {
  const int file = memfd_create("dlferry-sim", MFD_CLOEXEC);
  if (file < 0) return {};
  Arena arena;
  if (ftruncate(file, static_cast<off_t>(bytes)) == 0) {
    void* const locked = mmap(nullptr, bytes, PROT_NONE, MAP_SHARED | MAP_NORESERVE, file, 0);
    void* const open =
        mmap(nullptr, bytes, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_NORESERVE, file, 0);
    if (locked != MAP_FAILED && open != MAP_FAILED) {
      arena = {static_cast<std::byte*>(locked), static_cast<std::byte*>(open), bytes};
    }
  }
  close(file);
  return arena;
}

BlockPtr DeviceMemory::allocate(int device, std::size_t bytes, std::size_t limit) {
  Arena& arena = arenas_[static_cast<std::size_t>(device)];
  if (!arena.locked) arena = map_arena(limit);
  const std::size_t room = (std::max<std::size_t>(bytes, 1) + kAlignment - 1) & ~(kAlignment - 1);
  if (!arena.locked || room < bytes || room > arena.bytes) return nullptr;
  // The first gap that is large enough. The padding up to the alignment is nobody's.
  const auto base = reinterpret_cast<std::uintptr_t>(arena.locked);
  std::uintptr_t begin = base;
  for (const auto& [address, block] : blocks_.all()) {
    if (address < base || address >= base + arena.bytes) continue;
    if (address - begin >= room) break;
    begin = (address + block->bytes + kAlignment - 1) & ~(kAlignment - 1);
  }
  if (room > base + arena.bytes - begin) return nullptr;
  auto block = std::make_shared<Block>();
  *block = {.begin = begin,
            .bytes = std::max<std::size_t>(bytes, 1),
            .data = arena.open + (begin - base),
            .kind = BlockKind::kDevice,
            .device = device};
  std::memset(block->data, kFresh, block->bytes);
  blocks_.insert(block);
  return block;
}

void DeviceMemory::release(const BlockPtr& block) {
  std::memset(block->data, kFreed, block->bytes);
  blocks_.erase(block->begin);
}

int DeviceMemory::device_of(std::uintptr_t address) const noexcept {
  for (std::size_t device = 0; device < arenas_.size(); ++device) {
    const Arena& arena = arenas_[device];
    if (address - reinterpret_cast<std::uintptr_t>(arena.locked) < arena.bytes) {
      return static_cast<int>(device);
    }
  }
  return -1;
}

}  // namespace dlferry::sim
