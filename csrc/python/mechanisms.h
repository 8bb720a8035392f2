// The mechanisms that the general routes in Python are written on; `_fallback.py` has the same ones.
#pragma once

#include <pybind11/pybind11.h>

namespace dlferry::python {

void bind_mechanisms(pybind11::module_& module);

}  // namespace dlferry::python
