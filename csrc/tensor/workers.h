// The copy threads: a small pool, started when first needed, for work that is cut into tasks.
#pragma once

#include <cstddef>

namespace dlferry {

// How many threads, the calling one included, work on one copy. 0 brings back the default: the
// processors this process may run on, at most 16 (memory is saturated before that).
void set_worker_count(int count) noexcept;
[[nodiscard]] int worker_count() noexcept;

// Calls `task(context, i)` once for each i below `count`, in no order, from this thread and from
// the pool's, and returns when all are done. While the pool serves another caller, or when no
// thread can be started, this thread does all the work itself. A task must not throw and must not
// call this function.
void run_tasks(std::size_t count, void (*task)(void* context, std::size_t index) noexcept,
               void* context) noexcept;

// The same for anything callable with an index.
template <class Body>
void parallel(std::size_t count, const Body& body) noexcept {
  run_tasks(
      count,
      [](void* context, std::size_t index) noexcept {
        (*static_cast<const Body*>(context))(index);
      },
      const_cast<Body*>(&body));
}

}  // namespace dlferry
