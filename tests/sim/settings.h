// What can be set: the machine that is simulated, and how nasty it is.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

namespace dlferry::sim {

// The version that the library has when nothing is set: 13000, or 11080 in the library that is
// built to be a driver of that time.
extern const int kDefaultVersion;

struct Settings {
  std::int64_t version = kDefaultVersion;
  std::int64_t devices = 1;
  std::int64_t init_result = 0;     // of cuInit
  std::int64_t missing_result = 0;  // of cuGetProcAddress for what it does not find
  std::vector<std::string> hidden;  // functions that cuGetProcAddress does not find

  // Copies start up to `delay_us` late, by `seed`; rates are in bytes/s, 0 for none. With a rate,
  // the bytes move bit by bit; if the link sleeps, they move all at once when the time is over.
  std::int64_t seed = 1;
  std::int64_t delay_us = 100;
  std::int64_t h2d_rate = 0;
  std::int64_t d2h_rate = 0;
  std::int64_t link_sleeps = 0;
  // With neither delay nor rate, copies up to this size onto an idle stream are done by the caller.
  std::int64_t inline_bytes = 65536;

  std::int64_t device_bytes = std::int64_t{4} << 30;  // memory of a device; before its first use
  std::int64_t host_limit = -1;                       // bytes that cuMemHostAlloc has; -1: any
  std::int64_t host_alloc_us = 0;                     // how long it takes, while other calls wait
  std::int64_t host_free_syncs = 1;   // cuMemFreeHost waits for all work of the context
  std::int64_t register_result = 0;   // of cuMemHostRegister: 801 where it is refused
  std::int64_t register_page = 4096;  // registrations may not share one

  // Device attributes.
  std::int64_t async_engines = 3;
  std::int64_t pageable_access = 0;
  std::int64_t page_tables = 0;
  std::int64_t register_supported = 1;
  std::int64_t read_only_register = 1;
  std::int64_t shares_addresses = 1;  // page-locked memory is where the host has it
  std::int64_t numa_node = 0;

  std::int64_t log = 65536;  // lines that are kept; 0: none
  std::string report;        // a file for the counters, written when the process ends

  // Reads "name=value,..."; false, with nothing changed, where that cannot be read.
  bool read(std::string_view text);
};

}  // namespace dlferry::sim
