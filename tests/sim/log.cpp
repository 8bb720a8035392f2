#include "log.h"

#include <sys/syscall.h>
#include <unistd.h>

#include <cinttypes>
#include <cstdio>
#include <ctime>

namespace dlferry::sim {
namespace {

std::string line(const Record& r) {
  char text[512];
  const int length =
      std::snprintf(text, sizeof(text),
                    "{\"what\":\"%s\",\"name\":\"%s\",\"result\":%" PRIu32 ",\"stream\":%" PRIu64
                    ",\"object\":%" PRIu64 ",\"destination\":%" PRIu64 ",\"source\":%" PRIu64
                    ",\"bytes\":%" PRIu64 ",\"thread\":%d,\"begin\":%" PRId64 ",\"end\":%" PRId64
                    ",\"landed\":%" PRId64 "}\n",
                    r.what, r.name, r.result, r.stream, r.object, r.destination, r.source, r.bytes,
                    r.thread, r.begin, r.end, r.landed);
  return {text, static_cast<std::size_t>(length)};
}

}  // namespace

std::int64_t now() noexcept {
  timespec time;
  clock_gettime(CLOCK_MONOTONIC, &time);
  return std::int64_t{time.tv_sec} * 1'000'000'000 + time.tv_nsec;
}

int thread_number() noexcept {
  thread_local const int number = static_cast<int>(syscall(SYS_gettid));
  return number;
}

void Log::set_capacity(std::size_t capacity) {
  if (capacity == capacity_) return;
  clear();
  capacity_ = capacity;
}

void Log::add(const Record& record) {
  if (capacity_ == 0) return;
  if (records_.size() < capacity_) {
    records_.push_back(record);
    return;
  }
  records_[oldest_] = record;
  oldest_ = (oldest_ + 1) % capacity_;
  ++dropped_;
}

void Log::clear() {
  records_.clear();
  oldest_ = 0;
  dropped_ = 0;
}

std::string Log::text() const {
  std::string result;
  for (std::size_t i = 0; i < records_.size(); ++i) {
    result += line(records_[(oldest_ + i) % records_.size()]);
  }
  return result;
}

}  // namespace dlferry::sim
