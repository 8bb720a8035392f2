// cuGetProcAddress: the exports by name and version, as far as the simulated driver has them.
#include <algorithm>
#include <string_view>

#include "call.h"

namespace dlferry::cu {
namespace {

struct Export {
  std::string_view name;
  int version;  // of CUDA, that brought this behaviour
  void* address;
};

// The address of every function of the list is taken here: one that is not defined does not link.
const Export kExports[] = {
#define DLFERRY_X(need, name, symbol, version, parameters) \
  {#name, version, reinterpret_cast<void*>(&symbol)},
    DLFERRY_CUDA_FUNCTIONS(DLFERRY_X)
#undef DLFERRY_X
        {"cuGetProcAddress", 11030, reinterpret_cast<void*>(&cuGetProcAddress)},
    {"cuGetProcAddress", 12000, reinterpret_cast<void*>(&cuGetProcAddress_v2)},
};

enum Status : std::uint32_t { kFound = 0, kSymbolNotFound = 1, kVersionNotSufficient = 2 };

// The newest behaviour that is neither newer than what is asked for nor than the driver.
Status search(const sim::Settings& settings, std::string_view name, int version, void** result) {
  *result = nullptr;
  if (std::ranges::find(settings.hidden, name) != settings.hidden.end()) return kSymbolNotFound;
  Status status = kSymbolNotFound;
  int newest = 0;
  for (const Export& known : kExports) {
    if (known.name != name || known.version > settings.version) continue;
    if (status == kSymbolNotFound) status = kVersionNotSufficient;
    if (known.version > version || known.version < newest) continue;
    newest = known.version;
    *result = known.address;
    status = kFound;
  }
  return status;
}

Result find(sim::Call& made, const char* symbol, void** result, int version, std::uint64_t flags,
            Status& status) {
  const sim::Settings& settings = made.world().settings;
  if (!symbol || !result || flags > 2 || version > settings.version) return kErrorInvalidValue;
  status = search(settings, symbol, version, result);
  return status == kFound ? kSuccess : static_cast<Result>(settings.missing_result);
}

}  // namespace

Result cuGetProcAddress(const char* symbol, void** result, int version, std::uint64_t flags) {
  return sim::call(sim::Function::cuGetProcAddress, sim::kNeedsNothing, {}, [&](sim::Call& made) {
    Status status = kFound;
    return find(made, symbol, result, version, flags, status);
  });
}

Result cuGetProcAddress_v2(const char* symbol, void** result, int version, std::uint64_t flags,
                           std::uint32_t* status) {
  return sim::call(sim::Function::cuGetProcAddress_v2, sim::kNeedsNothing, {},
                   [&](sim::Call& made) {
                     // A driver of that time does not export it. The library that is one has it not
                     // either.
                     if (made.world().settings.version < 12000) return kErrorNotFound;
                     Status found = kFound;
                     const Result code = find(made, symbol, result, version, flags, found);
                     if (status) *status = found;
                     return code;
                   });
}

}  // namespace dlferry::cu
