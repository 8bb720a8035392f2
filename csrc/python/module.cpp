// dlferry._core: the native core. One call per area.
#include <pybind11/pybind11.h>

#include "python/asarray.h"
#include "python/bind_cuda.h"
#include "python/doors.h"
#include "python/gil.h"
#include "python/mechanisms.h"
#include "python/numpy_api.h"

namespace py = pybind11;

PYBIND11_MODULE(_core, module) {
  module.doc() = "The native core of dlferry. Private: import from `dlferry`.";
  if (!dlferry::python::import_numpy() || !dlferry::python::intern_names() ||
      !dlferry::python::remember_importer()) {
    throw py::error_already_set();
  }
  if (PyModule_AddFunctions(module.ptr(), dlferry::python::hot_functions()) != 0) {
    throw py::error_already_set();
  }
  dlferry::python::bind_mechanisms(module);
  dlferry::python::bind_cuda(module);
  dlferry::python::bind_pinned(module);
}
