#include "python/bind_cuda.h"

#include <pybind11/stl.h>

#include <algorithm>
#include <chrono>
#include <memory>
#include <optional>
#include <string>
#include <tuple>
#include <utility>
#include <vector>

#include "cuda/engine.h"
#include "python/exchange.h"
#include "python/gil.h"
#include "python/ingest.h"
#include "python/mechanisms.h"
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
                  const py::object& cancelled) {
  classes = {py::object(cuda_error).release().ptr(), py::object(driver_unavailable).release().ptr(),
             py::object(cancelled).release().ptr()};
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

cuda::Direction direction_of(const std::string& name) {
  if (name == "h2d") return cuda::Direction::kToDevice;
  if (name == "d2h") return cuda::Direction::kToHost;
  throw py::value_error("direction must be 'h2d' or 'd2h'");
}

nanoseconds duration_of(double seconds) {
  return std::chrono::duration_cast<nanoseconds>(std::chrono::duration<double>(seconds));
}

const Torch& loaded_torch() {
  const Torch* found = torch();
  if (found == nullptr) throw py::error_already_set();
  return *found;
}

using Order = std::optional<std::vector<int>>;

KeptView permuted(const View& view, const std::vector<int>& order) {
  std::vector<int> sorted = order;
  std::sort(sorted.begin(), sorted.end());
  for (std::size_t i = 0; i < sorted.size(); ++i) {
    if (sorted[i] != static_cast<int>(i)) sorted.clear();
  }
  if (sorted.size() != static_cast<std::size_t>(view.ndim)) {
    throw py::value_error("the order must name each axis once");
  }
  return {view, order};
}

// A look at the host memory of a tensor or `Source`. What it finds lives as long as `keep`.
KeptView host_view(const Torch& torch, const py::object& host, const Order& order, py::list& keep) {
  const View* view = nullptr;
  TensorView seen;
  py::object ingested;
  Source* source = source_in(host);
  if (source == nullptr && PyObject_TypeCheck(host.ptr(), torch.tensor) == 0) {
    throw py::type_error("neither a tensor nor a Source: " + std::string(py::repr(host)));
  }
  if (source == nullptr && torch.table != nullptr) {
    if (!look(torch, host.ptr(), seen)) throw py::error_already_set();
    view = &seen.view;
  } else if (source == nullptr) {
    Source made;
    if (ingest(host.ptr(), false, made) != Ingest::kTaken) {
      if (PyErr_Occurred() != nullptr) throw py::error_already_set();
      throw py::type_error("the tensor does not export its memory");
    }
    ingested = wrap(std::move(made), host.ptr());
    source = source_in(ingested);
  }
  if (source != nullptr) {
    if (!source->has_dtype) throw py::value_error("the source has no dtype that torch has");
    if (!source->owner.claim()) throw py::error_already_set();
    view = &source->view;
  }
  if (view->device.device_type == dlpack::kCUDA) {
    throw py::value_error("the memory is on a device, not on the host");
  }
  keep.append(source != nullptr && ingested ? ingested : host);
  return order ? permuted(*view, *order) : KeptView(*view);
}

// One array of a transfer, as Python gives it: (host, address on the device, dtype on the link,
// order of the axes on the device or None).
cuda::Leaf leaf_of(const Torch& torch, const py::handle& given, py::list& keep) {
  const auto [host, device, dtype, order] =
      py::cast<std::tuple<py::object, std::uint64_t, py::object, Order>>(given);
  const auto wire = dtype_from_torch(torch, dtype.ptr());
  if (!wire)
    throw py::type_error("not a dtype that the core knows: " + std::string(py::repr(dtype)));
  return {.host = host_view(torch, host, order, keep), .wire = *wire, .device = device};
}

std::unique_ptr<TransferHandle> start_transfer(const std::string& direction,
                                               const py::iterable& leaves, int device,
                                               std::uintptr_t stream, bool packed, bool ordered,
                                               bool on_stream, const py::object& keep_host,
                                               const py::object& keep_device) {
  const Visit visit(Visit::For::kStarting);
  drop_finished();
  if (has_ended()) {
    throw cuda::Unavailable("no transfer can be started: the interpreter is shutting down");
  }
  const Torch& torch = loaded_torch();
  const cuda::Direction way = direction_of(direction);
  cuda::Request request{.direction = way,
                        .leaves = {},
                        .packed = packed,
                        .stream = reinterpret_cast<cu::Stream>(stream),
                        .ordered = ordered};
  py::list hosts;
  for (const py::handle leaf : leaves) request.leaves.push_back(leaf_of(torch, leaf, hosts));
  std::shared_ptr<cuda::Transfer> transfer;
  {
    const Released released(Visit::For::kStarting);
    cuda::TransferEngine& engine = cuda::TransferEngine::on(device);
    transfer =
        on_stream ? engine.start_inline(std::move(request)) : engine.start(std::move(request));
  }
  if (!transfer) return nullptr;
  const py::tuple host = py::make_tuple(hosts, keep_host);
  Kept kept;
  if (way == cuda::Direction::kToHost) {
    kept.until_done = py::make_tuple(host, keep_device);
  } else {
    kept.until_read = host;
    (ordered ? kept.until_done : kept.until_submitted) = keep_device;
  }
  return std::make_unique<TransferHandle>(std::move(transfer), std::move(kept), on_stream);
}

std::uintptr_t copy_stream(int device, const std::string& direction) {
  const cuda::Direction way = direction_of(direction);
  const Released released(Visit::For::kStarting);
  return reinterpret_cast<std::uintptr_t>(cuda::TransferEngine::on(device).stream(way));
}

void check_stream(int device, std::uintptr_t stream) {
  const Released released(Visit::For::kStarting);
  cuda::TransferEngine::on(device).check(reinterpret_cast<cu::Stream>(stream));
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
  module.def("start_transfer", &start_transfer, py::arg("direction"), py::arg("leaves"),
             py::kw_only(), py::arg("device"), py::arg("stream"), py::arg("packed"),
             py::arg("ordered"), py::arg("on_stream"), py::arg("keep_host"), py::arg("keep_device"),
             "Start to copy (host, address on the device, dtype on the link) each.");
  module.def("copy_stream", &copy_stream, py::arg("device"), py::arg("direction"), py::pos_only(),
             "The stream that new destinations are allocated for.");
  module.def("check_stream", &check_stream, py::arg("device"), py::arg("stream"), py::pos_only(),
             "Raise CudaError where start_transfer would: a capture, or a context that is lost.");
  module.def("close_transfers", &close_transfers, py::arg("timeout"), py::arg("for_good"),
             py::pos_only(), "Cancel what is queued and wait for the rest, so many seconds.");
  module.def(
      "drop_finished",
      [] {
        const Visit visit(Visit::For::kStarting);
        drop_finished();
      },
      "Let go what was kept for transfers that are done by now.");
  module.def("unfinished_count", &unfinished_count,
             "How many transfers were dropped before they were done.");
  module.attr("INLINE_BYTES") = cuda::TransferEngine::kInlineBytes;
}

void bind_driver(py::module_& module) {
  module.def("install_cuda", &install_cuda, py::kw_only(), py::arg("cuda_error"),
             py::arg("driver_unavailable"), py::arg("cancelled"),
             "Give the core the exceptions for what fails on the way to the GPU.");
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
}

}  // namespace dlferry::python
