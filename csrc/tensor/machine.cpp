#include "tensor/machine.h"

#include <array>
#include <cstdio>
#include <memory>

namespace dlferry {
namespace {

std::size_t read_cache_bytes() noexcept {
  constexpr std::array kFiles = {"/sys/devices/system/cpu/cpu0/cache/index3/size",
                                 "/sys/devices/system/cpu/cpu0/cache/index2/size"};
  for (const char* path : kFiles) {
    const std::unique_ptr<std::FILE, int (*)(std::FILE*)> file(std::fopen(path, "re"),
                                                               &std::fclose);
    std::size_t kibibytes = 0;
    if (file && std::fscanf(file.get(), "%zuK", &kibibytes) == 1 && kibibytes > 0) {
      return kibibytes << 10;
    }
  }
  return std::size_t{8} << 20;
}

}  // namespace

std::size_t last_cache_bytes() noexcept {
  static const std::size_t kBytes = read_cache_bytes();
  return kBytes;
}

}  // namespace dlferry
