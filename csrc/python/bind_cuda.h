// The link to the GPU as Python sees it: transfers, page-locked ranges, the driver.
#pragma once

#include <pybind11/pybind11.h>

namespace dlferry::python {

// The driver and transfers; needs `bind_mechanisms` first.
void bind_cuda(pybind11::module_& module);

// What starts transfers, and what is asked before.
void bind_starts(pybind11::module_& module);

// The small arrays of trees, for `bind_starts`.
void bind_batch(pybind11::module_& module);

// One small array, for `bind_starts`.
void bind_little(pybind11::module_& module);

// Page-locked ranges.
void bind_pinned(pybind11::module_& module);

}  // namespace dlferry::python
