// Events: the point in a stream's work that was recorded last.
#pragma once

#include <memory>
#include <unordered_map>

#include "streams.h"

namespace dlferry::sim {

struct Event {
  std::uint64_t handle = 0;
  Context* context = nullptr;
  bool is_recorded = false;
  MarkPtr mark;        // null: never recorded, or reached at once
  CapturePtr capture;  // the last record was into this one

  [[nodiscard]] bool is_captured() const noexcept { return capture && !capture->ended; }
};
using EventPtr = std::shared_ptr<Event>;

class Events {
 public:
  EventPtr create(Context& context, std::uint64_t handle);
  void destroy(const Event& event) { live_.erase(event.handle); }
  // Null for what is no event.
  [[nodiscard]] EventPtr find(std::uint64_t handle) const;
  [[nodiscard]] std::size_t count() const noexcept { return live_.size(); }
  void clear() { live_.clear(); }

 private:
  std::unordered_map<std::uint64_t, EventPtr> live_;
};

}  // namespace dlferry::sim
