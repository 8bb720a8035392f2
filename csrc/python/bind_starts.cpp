#include <pybind11/stl.h>

#include <algorithm>
#include <memory>
#include <optional>
#include <string>
#include <tuple>
#include <utility>
#include <vector>

#include "cuda/engine.h"
#include "python/bind_cuda.h"
#include "python/exchange.h"
#include "python/ingest.h"
#include "python/leaves.h"
#include "python/mechanisms.h"
#include "python/released.h"
#include "python/starts.h"

namespace py = pybind11;

namespace dlferry::python {

py::object torch_dtype(DType dtype) {
  return py::reinterpret_borrow<py::object>(loaded_torch().dtypes[static_cast<std::size_t>(dtype)]);
}

void prepare_to_start() {
  drop_finished();
  if (has_ended()) {
    throw cuda::Unavailable("no transfer can be started: the interpreter is shutting down");
  }
}

std::unique_ptr<TransferHandle> started(cuda::Request request, int device, bool on_stream,
                                        const py::object& keep_host,
                                        const py::object& keep_device) {
  for (const cuda::Leaf& leaf : request.leaves) {
    if (leaf.device == 0 && leaf.bytes() > 0) {
      throw py::buffer_error("a tensor on the device has no memory: it is fake or functional");
    }
  }
  Kept kept;
  if (request.direction == cuda::Direction::kToHost) {
    kept.until_done = py::make_tuple(keep_host, keep_device);
  } else {
    kept.until_read = keep_host;
    (request.ordered ? kept.until_done : kept.until_submitted) = keep_device;
  }
  std::shared_ptr<cuda::Transfer> transfer;
  {
    const Released released(Visit::For::kStarting);
    cuda::TransferEngine& engine = cuda::TransferEngine::on(device);
    transfer =
        on_stream ? engine.start_inline(std::move(request)) : engine.start(std::move(request));
  }
  if (!transfer) return nullptr;
  return std::make_unique<TransferHandle>(std::move(transfer), std::move(kept));
}

namespace {

cuda::Direction direction_of(const std::string& name) {
  if (name == "h2d") return cuda::Direction::kToDevice;
  if (name == "d2h") return cuda::Direction::kToHost;
  throw py::value_error("direction must be 'h2d' or 'd2h'");
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
  if (const char* reason = unreachable_reason(*view)) throw py::buffer_error(reason);
  keep.append(source != nullptr && ingested ? ingested : host);
  return order ? permuted(*view, *order) : KeptView(*view);
}

// One array of a transfer, as Python gives it: (host, address on the device, dtype on the link,
// order of the axes on the device or None).
cuda::Leaf leaf_of(const Torch& torch, const py::handle& given, py::list& keep) {
  const auto [host, device, dtype, order] =
      py::cast<std::tuple<py::object, std::uint64_t, py::object, Order>>(given);
  const DType wire = dtype_or_raise(dtype);
  return {.host = host_view(torch, host, order, keep), .wire = wire, .device = device};
}

bool goes_inline(const py::iterable& leaves, bool packed) {
  const Torch& torch = loaded_torch();
  cuda::Request request{.packed = packed};
  py::list hosts;
  for (const py::handle leaf : leaves) request.leaves.push_back(leaf_of(torch, leaf, hosts));
  const Released released(Visit::For::kStarting);
  return cuda::TransferEngine::goes_inline(std::move(request));
}

std::unique_ptr<TransferHandle> start_transfer(const std::string& direction,
                                               const py::iterable& leaves, int device,
                                               std::uintptr_t stream, bool packed, bool ordered,
                                               bool on_stream, const py::object& keep_host,
                                               const py::object& keep_device) {
  const Visit visit(Visit::For::kStarting);
  prepare_to_start();
  const Torch& torch = loaded_torch();
  cuda::Request request{.direction = direction_of(direction),
                        .packed = packed,
                        .stream = reinterpret_cast<cu::Stream>(stream),
                        .ordered = ordered};
  py::list hosts;
  for (const py::handle leaf : leaves) request.leaves.push_back(leaf_of(torch, leaf, hosts));
  return started(std::move(request), device, on_stream, py::make_tuple(hosts, keep_host),
                 keep_device);
}

// --- a list of arrays ---

// The Python class `Arrays`.
struct Arrays {
  Leaves leaves;
  DType dtype = DType::kBool;  // together
};

bool torch_has_dtypes(const Torch& torch, const Arrays& arrays) noexcept {
  for (std::size_t i = 0; i < kDTypeCount; ++i) {
    const auto dtype = static_cast<DType>(i);
    const bool met = dtype == arrays.dtype || arrays.leaves.has(dtype);
    if (met && torch.dtypes[i] == nullptr) return false;
  }
  return true;
}

std::unique_ptr<Arrays> arrays_of(const py::object& sequence, const py::object& dtype) {
  const Visit visit(Visit::For::kStarting);
  const Torch& torch = loaded_torch();
  auto arrays = std::make_unique<Arrays>(Leaves(torch, dtype.ptr(), Leaves::For::kTransfer));
  std::optional<DType> together;
  if (arrays->leaves.scan(sequence.ptr()) && arrays->leaves.has_arrays()) {
    together = arrays->leaves.dtype();
  }
  if (PyErr_Occurred() != nullptr) throw py::error_already_set();
  if (!together.has_value() || !arrays->leaves.cast_to(*together)) return nullptr;
  arrays->dtype = *together;
  return torch_has_dtypes(torch, *arrays) ? std::move(arrays) : nullptr;
}

py::list dtypes_of(const Arrays& arrays) {
  py::list dtypes;
  for (std::size_t i = 0; i < kDTypeCount; ++i) {
    const auto dtype = static_cast<DType>(i);
    if (arrays.leaves.has(dtype)) dtypes.append(torch_dtype(dtype));
  }
  return dtypes;
}

py::tuple shape_of(const Arrays& arrays) {
  const Shape& shape = arrays.leaves.shape();
  py::tuple result(static_cast<std::size_t>(shape.ndim));
  for (std::size_t i = 0; i < result.size(); ++i) result[i] = py::int_(shape.lengths[i]);
  return result;
}

std::unique_ptr<TransferHandle> start_stack(const py::object& arrays, std::uint64_t address,
                                            const py::object& dtype, int device,
                                            std::uintptr_t stream, bool on_stream,
                                            const py::object& keep_device) {
  const Visit visit(Visit::For::kStarting);
  prepare_to_start();
  const DType wire = dtype_or_raise(dtype);
  Leaves& leaves = py::cast<Arrays&>(arrays).leaves;
  const auto storages = py::reinterpret_steal<py::object>(leaves.storages().release());
  if (!storages || !leaves.look_again()) throw py::error_already_set();
  // All of the destination is new, and what lies between two arrays is nobody's: nothing does.
  cuda::Request request{.packed = true, .stream = reinterpret_cast<cu::Stream>(stream)};
  leaves.for_each_array([&](const View& view, std::size_t first) {
    request.leaves.push_back(
        {.host = KeptView(view),
         .wire = wire,
         .device = address + static_cast<cu::DevicePtr>(first * item_size(wire))});
  });
  return started(std::move(request), device, on_stream, py::make_tuple(arrays, storages),
                 keep_device);
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

}  // namespace

void bind_starts(py::module_& module) {
  module.def("start_transfer", &start_transfer, py::arg("direction"), py::arg("leaves"),
             py::kw_only(), py::arg("device"), py::arg("stream"), py::arg("packed"),
             py::arg("ordered"), py::arg("on_stream"), py::arg("keep_host"), py::arg("keep_device"),
             "Start to copy (host, address on the device, dtype on the link) each.");
  module.def("goes_inline", &goes_inline, py::arg("leaves"), py::arg("packed"), py::pos_only(),
             "Whether start_transfer takes them to the device on the current stream, as a rule.");
  py::class_<Arrays>(module, "Arrays", py::is_final(), "The arrays of a list, on the host.")
      .def_property_readonly("shape", &shape_of, "Of all of them together.")
      .def_property_readonly(
          "dtype", [](const Arrays& arrays) { return torch_dtype(arrays.dtype); },
          "Of all of them together: asked for, or promoted.")
      .def_property_readonly("dtypes", &dtypes_of, "Their own.");
  module.def("arrays_of", &arrays_of, py::arg("sequence"), py::arg("dtype"), py::pos_only(),
             "The arrays of a nested list or tuple; None for the general route.");
  module.def("start_stack", &start_stack, py::arg("arrays"), py::arg("address"), py::arg("dtype"),
             py::kw_only(), py::arg("device"), py::arg("stream"), py::arg("on_stream"),
             py::arg("keep_device"),
             "Start to copy arrays to new memory of a device, one after another.");
  module.def("copy_stream", &copy_stream, py::arg("device"), py::arg("direction"), py::pos_only(),
             "The stream that new destinations are allocated for.");
  module.def("check_stream", &check_stream, py::arg("device"), py::arg("stream"), py::pos_only(),
             "Raise CudaError where start_transfer would: a capture, or a context that is lost.");
  bind_batch(module);
  bind_little(module);
  module.attr("INLINE_BYTES") = cuda::TransferEngine::kInlineBytes;
  module.attr("LITTLE_BYTES") = cuda::TransferEngine::kLittleBytes;
}

}  // namespace dlferry::python
