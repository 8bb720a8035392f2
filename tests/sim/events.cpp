#include "events.h"

namespace dlferry::sim {

EventPtr Events::create(Context& context, std::uint64_t handle) {
  auto event = std::make_shared<Event>();
  event->handle = handle;
  event->context = &context;
  live_.emplace(handle, event);
  return event;
}

EventPtr Events::find(std::uint64_t handle) const {
  const auto found = live_.find(handle);
  return found == live_.end() ? nullptr : found->second;
}

}  // namespace dlferry::sim
