// Device memory: addresses that the host cannot touch, and a second mapping for the engines.
#pragma once

#include <array>
#include <cstdint>

#include "blocks.h"

namespace dlferry::sim {

inline constexpr int kMostDevices = 8;

class DeviceMemory {
 public:
  // Null where `limit` bytes of the device are used up.
  BlockPtr allocate(int device, std::size_t bytes, std::size_t limit);
  // Poisons the block; whoever copies to or from it must have finished.
  void release(const BlockPtr& block);

  [[nodiscard]] BlockPtr at(std::uintptr_t address) const { return blocks_.at(address); }
  [[nodiscard]] const Blocks& blocks() const noexcept { return blocks_; }
  // The device whose address range this is in, or -1.
  [[nodiscard]] int device_of(std::uintptr_t address) const noexcept;

 private:
  // One device's memory: the same file twice in the address space.
  struct Arena {
    std::byte* locked = nullptr;  // PROT_NONE: these addresses are the program's
    std::byte* open = nullptr;
    std::size_t bytes = 0;
  };
  static Arena map_arena(std::size_t bytes);

  std::array<Arena, kMostDevices> arenas_;
  Blocks blocks_;
};

}  // namespace dlferry::sim
