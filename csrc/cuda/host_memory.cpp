#include "cuda/host_memory.h"

#include <sys/mman.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cctype>
#include <cstdint>
#include <cstdio>
#include <memory>
#include <new>

#include "cuda/handles.h"
#include "tensor/pages.h"
#include "tensor/workers.h"

namespace dlferry::cuda {
namespace {

constexpr std::size_t kHugePage = std::size_t{2} << 20;

// What the kernel knows about a PCI device; -1 where it does not say.
int node_of_pci_device(cu::Device handle) noexcept {
  std::array<char, 32> id{};
  if (try_call<&Driver::cuDeviceGetPCIBusId>(id.data(), static_cast<int>(id.size()) - 1, handle) !=
      cu::kSuccess) {
    return -1;
  }
  for (char& c : id) c = static_cast<char>(std::tolower(static_cast<unsigned char>(c)));
  std::array<char, 80> path{};
  std::snprintf(path.data(), path.size(), "/sys/bus/pci/devices/%s/numa_node", id.data());
  const auto close = [](std::FILE* file) { std::fclose(file); };
  const std::unique_ptr<std::FILE, decltype(close)> file(std::fopen(path.data(), "re"), close);
  int node = -1;
  if (!file || std::fscanf(file.get(), "%d", &node) != 1) return -1;
  return node;
}

int nearest_node(int device) noexcept {
  cu::Device handle = 0;
  int node = -1;
  if (device < 0 || try_call<&Driver::cuDeviceGet>(&handle, device) != cu::kSuccess) return -1;
  // Drivers before CUDA 12.2 do not know the attribute.
  const cu::Result result = try_call<&Driver::cuDeviceGetAttribute>(&node, cu::kHostNumaId, handle);
  return result == cu::kSuccess && node >= 0 ? node : node_of_pci_device(handle);
}

// Asks for pages of `node`. It is a preference: memory from elsewhere is better than none, so
// nothing that goes wrong here matters.
void prefer_node(std::byte* data, std::size_t bytes, int node) noexcept {
  constexpr int kPreferred = 1;  // MPOL_PREFERRED
  constexpr int kBits = 64;
  std::array<std::uint64_t, 16> nodes{};
  if (node < 0 || node >= kBits * static_cast<int>(nodes.size())) return;
  nodes[static_cast<std::size_t>(node / kBits)] = std::uint64_t{1} << (node % kBits);
  (void)syscall(SYS_mbind, data, bytes, kPreferred, nodes.data(), kBits * nodes.size() + 1, 0U);
}

// New memory from the system, at a huge page's border where it is large enough to have one.
std::byte* map_pages(std::size_t bytes, std::size_t page) noexcept {
  const std::size_t slack = bytes >= kHugePage ? kHugePage - page : 0;
  void* const mapping =
      mmap(nullptr, bytes + slack, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  if (mapping == MAP_FAILED) return nullptr;
  auto* const start = static_cast<std::byte*>(mapping);
  if (slack == 0) return start;
  const std::size_t before = -reinterpret_cast<std::uintptr_t>(start) % kHugePage;
  if (before > 0) munmap(start, before);
  if (slack > before) munmap(start + before + bytes, slack - before);
  return start + before;
}

// The driver locks pages that are there much faster than pages that it has to ask for one by one.
void touch_pages(std::byte* data, std::size_t bytes, std::size_t page) noexcept {
  NewPages(data, bytes).reach_all();
  const auto touch_chunk = [=](std::size_t chunk) noexcept {
    const std::size_t end = std::min(bytes, (chunk + 1) * kHugePage);
    for (std::size_t at = chunk * kHugePage; at < end; at += page) {
      *static_cast<volatile std::byte*>(data + at) = std::byte{0};
    }
  };
  parallel((bytes + kHugePage - 1) / kHugePage, touch_chunk);
}

cu::Context current_context() {
  cu::Context context = nullptr;
  call<&Driver::cuCtxGetCurrent>(&context);
  return context;
}

}  // namespace

HostAllocation::HostAllocation(std::size_t bytes) : context_(current_context()) {
  const auto started = PinnedCounts::now();
  const RelaxedCapture relaxed;
  if (!map_and_register(bytes)) {
    void* data = nullptr;
    call<&Driver::cuMemHostAlloc>(&data, bytes, cu::kHostAllocPortable);
    data_ = static_cast<std::byte*>(data);
  }
  bytes_ = bytes;
  PinnedCounts::locked(bytes, started);
  try {
    known_ = KnownRange(data_, bytes);
  } catch (...) {
    release();
    throw;
  }
}

// Several times faster than the driver's own allocation, which serves where this is refused (as
// under confidential computing).
bool HostAllocation::map_and_register(std::size_t bytes) {
  const auto page = static_cast<std::size_t>(sysconf(_SC_PAGESIZE));
  const std::size_t mapped = (bytes + page - 1) / page * page;
  std::byte* const data = mapped >= bytes ? map_pages(mapped, page) : nullptr;
  if (!data) return false;
  // After a fork, the first write to a page could give this process a page that is not the one
  // that the GPU knows.
  madvise(data, mapped, MADV_DONTFORK);
  prefer_node(data, mapped, nearest_node(device_of(context_)));
  touch_pages(data, mapped, page);
  if (driver().cuMemHostRegister_v2(data, mapped, cu::kHostRegisterPortable) != cu::kSuccess) {
    munmap(data, mapped);
    return false;
  }
  data_ = data;
  mapped_ = mapped;
  return true;
}

HostAllocation::~HostAllocation() {
  if (data_ && loaded_driver()) release();
}

void HostAllocation::release() noexcept {
  known_ = {};
  const auto started = PinnedCounts::now();
  const ContextGuard guard(context_, std::nothrow);
  const RelaxedCapture relaxed(std::nothrow);
  if (mapped_ == 0) {
    (void)try_call<&Driver::cuMemFreeHost>(data_);
  } else {
    const cu::Result result = try_call<&Driver::cuMemHostUnregister>(data_);
    // Where the driver does not let go of the pages they stay mapped: it would take whatever is
    // mapped there next for page-locked.
    if (result == cu::kSuccess || result == cu::kErrorHostMemoryNotRegistered) {
      munmap(data_, mapped_);
    }
  }
  PinnedCounts::released(bytes_, started);
}

}  // namespace dlferry::cuda
