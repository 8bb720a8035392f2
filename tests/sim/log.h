// The log of calls and transfers.
#pragma once

#include <cstddef>
#include <cstdint>
#include <string>
#include <vector>

namespace dlferry::sim {

// CLOCK_MONOTONIC, in ns: Python's time.monotonic_ns and C++'s steady_clock.
[[nodiscard]] std::int64_t now() noexcept;

// This thread, as the system numbers it.
[[nodiscard]] int thread_number() noexcept;

struct Record {
  const char* what = "call";
  const char* name = "";
  std::uint32_t result = 0;
  int thread = 0;
  std::uint64_t stream = 0;
  std::uint64_t object = 0;  // an event or a context
  std::uint64_t destination = 0;
  std::uint64_t source = 0;
  std::uint64_t bytes = 0;
  std::int64_t begin = 0;
  std::int64_t end = 0;
  std::int64_t landed = 0;
};

// The last records, as many as it has room for.
class Log {
 public:
  void set_capacity(std::size_t capacity);
  [[nodiscard]] bool is_on() const noexcept { return capacity_ != 0; }
  void add(const Record& record);
  void clear();
  [[nodiscard]] std::int64_t dropped() const noexcept { return dropped_; }
  [[nodiscard]] std::string text() const;

 private:
  std::vector<Record> records_;
  std::size_t capacity_ = 0;
  std::size_t oldest_ = 0;  // of a full log
  std::int64_t dropped_ = 0;
};

}  // namespace dlferry::sim
