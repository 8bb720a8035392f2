#include "python/bind_cuda.h"

#include <pybind11/stl.h>

#include <chrono>
#include <optional>
#include <string>

#include "cuda/engine.h"
#include "python/gil.h"
#include "python/released.h"
#include "python/transfer_handle.h"

namespace py = pybind11;

namespace dlferry::python {
namespace {

using std::chrono::nanoseconds;

// The exceptions that Python gave the core; held for the life of the process.
struct Classes {
  PyObject* cuda_error = nullptr;
  PyObject* driver_unavailable = nullptr;
  PyObject* cancelled = nullptr;
} classes;

void install_cuda(const py::object& cuda_error, const py::object& driver_unavailable,
                  const py::object& cancelled, const py::object& ordinary_memory) {
  classes = {py::object(cuda_error).release().ptr(), py::object(driver_unavailable).release().ptr(),
             py::object(cancelled).release().ptr()};
  tell_of_ordinary_memory(ordinary_memory);
}

void translate(std::exception_ptr failure) {
  try {
    if (failure) std::rethrow_exception(failure);
  } catch (const cuda::Error& error) {
    const py::object raised = py::reinterpret_borrow<py::object>(classes.cuda_error)(
        error.what(), error.call(), static_cast<std::uint32_t>(error.code()));
    PyErr_SetObject(classes.cuda_error, raised.ptr());
  } catch (const cuda::Unavailable& error) {
    PyErr_SetString(classes.driver_unavailable, error.what());
  } catch (const cuda::Cancelled& error) {
    PyErr_SetString(classes.cancelled, error.what());
  }
}

nanoseconds duration_of(double seconds) {
  return std::chrono::duration_cast<nanoseconds>(std::chrono::duration<double>(seconds));
}

// At the end no thread may be inside an engine when it goes, nor without the GIL when the
// interpreter does.
bool close_transfers(double seconds, bool for_good) {
  const nanoseconds timeout = duration_of(seconds);
  if (for_good) end();
  bool closed = true;
  if (cuda::loaded_driver() && wait_until_left(Visit::For::kStarting, timeout)) {
    PyThreadState* const state = PyEval_SaveThread();
    using After = cuda::TransferEngine::After;
    closed = cuda::TransferEngine::close_all(timeout, for_good ? After::kLeak : After::kDestroy);
    take_gil_back(state);
    closed = wait_until_left(Visit::For::kWaiting, timeout) && closed;
  }
  if (for_good) {
    leak_unfinished();
  } else {
    drop_finished(unfinished_count());
  }
  return closed;
}

void require_driver() {
  if (cuda::loaded_driver()) return;
  const Released released(Visit::For::kStarting);
  (void)cuda::driver();
}

// For the life of the thread.
void relax_captures() {
  cu::CaptureMode mode = cu::kCaptureRelaxed;
  cuda::call<&cuda::Driver::cuThreadExchangeStreamCaptureMode>(&mode);
}

// (version, reason): of CUDA, as the driver has it, or why there is none; (None, None) before
// anybody asked for the driver, unless `load`.
py::tuple driver_state(bool load) {
  int version = 0;
  if (load || cuda::loaded_driver()) {
    const Released released(Visit::For::kStarting);
    try {
      version = cuda::driver().version;
    } catch (const cuda::Unavailable&) {  // as `why_unavailable` says
    }
  }
  if (version != 0) return py::make_tuple(version, py::none());
  return py::make_tuple(py::none(), cuda::why_unavailable());
}

void bind_transfers(py::module_& module) {
  py::class_<TransferHandle>(module, "Transfer", py::is_final(), "Copies on their way.")
      .def("done", &TransferHandle::is_done, "Whether nothing touches the memory any more.")
      .def("wait", &TransferHandle::wait, py::arg("stream"), py::pos_only(),
           "Make work submitted to a stream from now on wait for the copies.")
      .def("synchronize", &TransferHandle::synchronize, py::arg("timeout") = py::none(),
           py::pos_only(), "Wait until done; False when that takes more than so many seconds.")
      .def("wait_until_read", &TransferHandle::wait_until_read,
           "Wait until the source may be changed.")
      .def("cancel", &TransferHandle::cancel, "Submit no more; False when all was submitted.");
  module.def("close_transfers", &close_transfers, py::arg("timeout"), py::arg("for_good"),
             py::pos_only(), "Fail what is queued and wait for the rest, so many seconds.");
  module.def(
      "drop_finished",
      [] {
        const Visit visit(Visit::For::kStarting);
        drop_finished();
      },
      "Let go what was kept for transfers that are done by now.");
  module.def("unfinished_count", &unfinished_count,
             "How many transfers were dropped before they were done.");
}

void bind_driver(py::module_& module) {
  module.def("install_cuda", &install_cuda, py::kw_only(), py::arg("cuda_error"),
             py::arg("driver_unavailable"), py::arg("cancelled"), py::arg("ordinary_memory"),
             "Give the core the exceptions for what fails on the way to the GPU, and what to call "
             "where its memory there cannot be page-locked.");
  module.def("require_driver", &require_driver, "Open the driver, or say what is missing.");
  module.def("relax_captures", &relax_captures,
             "From now on, nothing that this thread calls invalidates the captures of others.");
  module.def("driver_state", &driver_state, py::arg("load"), py::pos_only(),
             "(version, None), (None, why there is none), or (None, None): not asked for yet.");
  module.def("set_driver_library", &cuda::set_driver_library, py::arg("path"), py::pos_only(),
             "Open this instead of libcuda.so.1.");
  module.def("set_staging_bytes", &cuda::TransferEngine::set_staging_bytes, py::arg("count"),
             py::pos_only(), "How much page-locked memory each device's transfers go through.");
}

}  // namespace

void bind_cuda(py::module_& module) {
  py::register_local_exception_translator(&translate);
  bind_driver(module);
  bind_transfers(module);
  bind_starts(module);
}

}  // namespace dlferry::python
