// The mechanisms that the general routes in Python are written on; `_fallback.py` has the same
// ones.
#pragma once

#include <pybind11/pybind11.h>

#include "python/doors.h"
#include "python/source.h"

namespace dlferry::python {

// torch's objects; throws where torch cannot be imported.
[[nodiscard]] const Torch& loaded_torch();

// The DType of a `torch.dtype`; throws TypeError for other objects.
[[nodiscard]] DType dtype_or_raise(pybind11::handle dtype);

// A source as the general routes see it, with the object that it was found in.
[[nodiscard]] pybind11::object wrap(Source source, PyObject* origin);

// The source in an object of the Python class `Source`, where it stays; null in any other object.
[[nodiscard]] Source* source_in(pybind11::handle object);

void bind_mechanisms(pybind11::module_& module);

}  // namespace dlferry::python
