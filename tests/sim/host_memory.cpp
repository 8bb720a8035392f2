#include "host_memory.h"

#include <sys/mman.h>

#include <cstdio>
#include <cstring>
#include <memory>

namespace dlferry::sim {

void* HostMemory::map(std::size_t bytes) {
  void* const data =
      mmap(nullptr, bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  if (data == MAP_FAILED) return nullptr;
  return std::memset(data, 0xC3, bytes);
}

void HostMemory::unmap(void* data, std::size_t bytes) { munmap(data, bytes); }

BlockPtr HostMemory::add(void* data, std::size_t bytes, BlockKind kind, int device,
                         bool read_only) {
  auto block = std::make_shared<Block>();
  *block = {.begin = reinterpret_cast<std::uintptr_t>(data),
            .bytes = bytes,
            .data = static_cast<std::byte*>(data),
            .kind = kind,
            .device = device,
            .read_only = read_only};
  blocks_.insert(block);
  return block;
}

BlockPtr HostMemory::starting_at(const void* data, BlockKind kind) const {
  const auto begin = reinterpret_cast<std::uintptr_t>(data);
  BlockPtr block = blocks_.at(begin);
  return block && block->begin == begin && block->kind == kind ? block : nullptr;
}

bool HostMemory::shares_page(const void* data, std::size_t bytes, std::size_t page) const {
  const auto begin = reinterpret_cast<std::uintptr_t>(data) / page * page;
  const auto end = (reinterpret_cast<std::uintptr_t>(data) + bytes + page - 1) / page * page;
  const auto next = blocks_.all().lower_bound(begin);
  if (next != blocks_.all().end() && next->first < end) return true;
  if (next == blocks_.all().begin()) return false;
  const Block& before = *std::prev(next)->second;
  return before.begin + before.bytes > begin;
}

Mapped how_mapped(const void* data, std::size_t bytes) {
  const auto close = [](std::FILE* file) { std::fclose(file); };
  const std::unique_ptr<std::FILE, decltype(close)> maps(std::fopen("/proc/self/maps", "re"),
                                                         close);
  if (!maps) return Mapped::kWritable;  // not to be known here
  auto reached = reinterpret_cast<std::uintptr_t>(data);
  const std::uintptr_t end = reached + bytes;
  Mapped result = Mapped::kWritable;
  char line[512];
  bool line_start = true;
  while (reached < end && std::fgets(line, sizeof(line), maps.get())) {
    const bool parse = line_start;
    line_start = std::strchr(line, '\n') != nullptr;
    unsigned long from = 0, to = 0;
    char access[5] = {};
    if (!parse || std::sscanf(line, "%lx-%lx %4s", &from, &to, access) != 3) continue;
    if (to <= reached) continue;
    if (from > reached || access[0] != 'r') return Mapped::kNot;
    if (access[1] != 'w') result = Mapped::kReadOnly;
    reached = to;
  }
  return reached < end ? Mapped::kNot : result;
}

}  // namespace dlferry::sim
