#include <pybind11/pybind11.h>

#include <cstdint>
#include <string>
#include <utility>

#include "cuda/pinned.h"
#include "cuda/staging.h"
#include "python/bind_cuda.h"
#include "python/released.h"

namespace py = pybind11;

namespace dlferry::python {
namespace {

// The Python class `PinnedRange`: memory that is page-locked in place for as long as this lives,
// and its owner, who must not go first.
struct PinnedRange {
  py::object owner;
  cuda::Registration registration;

  PinnedRange(std::uintptr_t data, std::size_t bytes, bool read_only, int device,
              py::object memory_owner)
      : owner(std::move(memory_owner)) {
    const Released released(Visit::For::kStarting);
    registration =
        cuda::Registration(reinterpret_cast<const void*>(data), bytes, read_only, device);
  }
  PinnedRange(const PinnedRange&) = delete;
  ~PinnedRange() {
    const Released released(Visit::For::kWaiting);
    const cuda::Registration undone = std::move(registration);
  }
};

void add(py::dict& stats, const std::string& name, const cuda::PinnedStats::Amount& amount) {
  stats[py::str(name + ".allocated")] = amount.allocated;
  stats[py::str(name + ".current")] = amount.current;
  stats[py::str(name + ".freed")] = amount.freed;
  stats[py::str(name + ".peak")] = amount.peak;
}

void add(py::dict& stats, const std::string& name, const cuda::PinnedStats::Time& time) {
  stats[py::str(name + ".avg")] = time.count == 0 ? 0 : time.total / time.count;
  stats[py::str(name + ".count")] = time.count;
  stats[py::str(name + ".max")] = time.max;
  stats[py::str(name + ".min")] = time.min;
  stats[py::str(name + ".total")] = time.total;
}

py::dict pinned_stats() {
  cuda::PinnedStats found;
  {
    const Released released(Visit::For::kWaiting);
    found = cuda::pinned_stats();
  }
  py::dict stats;
  add(stats, "active_bytes", found.active_bytes);
  add(stats, "active_requests", found.active_requests);
  add(stats, "allocated_bytes", found.allocated_bytes);
  add(stats, "allocations", found.allocations);
  add(stats, "host_alloc_time", found.host_alloc_time);
  add(stats, "host_free_time", found.host_free_time);
  stats["num_host_alloc"] = found.host_alloc_time.count;
  stats["num_host_free"] = found.host_free_time.count;
  return stats;
}

bool is_pinned(std::uintptr_t data, std::size_t bytes) {
  const Released released(Visit::For::kWaiting);
  return cuda::is_pinned(reinterpret_cast<const void*>(data), bytes);
}

}  // namespace

void bind_pinned(py::module_& module) {
  py::class_<PinnedRange>(module, "PinnedRange", py::is_final(),
                          "Memory that is page-locked in place while this lives.")
      .def(py::init<std::uintptr_t, std::size_t, bool, int, py::object>(), py::arg("data"),
           py::arg("nbytes"), py::arg("read_only"), py::arg("device"), py::arg("owner"),
           py::pos_only());
  py::class_<cuda::KnownRange>(module, "KnownRange", py::is_final(),
                               "Memory that somebody else page-locked, while this lives.")
      .def(py::init([](std::uintptr_t data, std::size_t bytes) {
             return cuda::KnownRange(reinterpret_cast<const void*>(data), bytes);
           }),
           py::arg("data"), py::arg("nbytes"), py::pos_only());
  module.def("is_pinned", &is_pinned, py::arg("data"), py::arg("nbytes"), py::pos_only(),
             "Whether a copy may use the memory directly, as far as is known.");
  module.def("staging_reason", &cuda::why_ordinary,
             "Why transfers go through ordinary memory; None where they do not, or did not yet.");
  module.def("pinned_stats", &pinned_stats, "What dlferry has page-locked, by torch's names.");
}

}  // namespace dlferry::python
