#include <optional>
#include <utility>

#include "cuda/engine.h"
#include "python/bind_cuda.h"
#include "python/exchange.h"
#include "python/mechanisms.h"
#include "python/released.h"
#include "python/starts.h"
#include "tensor/host_copy.h"

namespace py = pybind11;

namespace dlferry::python {
namespace {

// What crosses the link; empty where the general route has to see to it.
std::optional<DType> wire_of(const Torch& torch, const View& view, PyObject* asked) {
  const auto target = asked == Py_None ? view.dtype : dtype_from_torch(torch, asked);
  if (!target || !can_copy(*target, view.dtype)) return std::nullopt;
  const DType wire = item_size(*target) < item_size(view.dtype) ? *target : view.dtype;
  if (torch.dtypes[static_cast<std::size_t>(wire)] == nullptr) return std::nullopt;
  return wire;
}

bool is_little(const View& view, DType wire) noexcept {
  const auto count = static_cast<std::size_t>(element_count(view));
  return count > 0 && is_contiguous(view) &&
         count <= cuda::TransferEngine::kLittleBytes / item_size(wire);
}

py::tuple shape_of(const View& view) {
  py::tuple shape(static_cast<std::size_t>(view.ndim));
  for (std::size_t i = 0; i < shape.size(); ++i) shape[i] = py::int_(view.shape[i]);
  return shape;
}

bool is_taken(cuda::Request request, int device) {
  const Released released(Visit::For::kStarting);
  return cuda::TransferEngine::on(device).start_inline(std::move(request)) != nullptr;
}

// Nothing has to be kept: the array has been read at the end, and the new memory belongs to the
// stream that it is written on.
py::object little_to_device(const py::object& array, const py::object& dtype, int device,
                            std::uintptr_t stream, const py::object& allocate) {
  const Visit visit(Visit::For::kStarting);
  const Torch& torch = loaded_torch();
  TensorView seen;
  if (torch.table == nullptr || !look_on_host(torch, array.ptr(), seen)) return py::none();
  const auto wire = wire_of(torch, seen.view, dtype.ptr());
  if (!wire || !is_little(seen.view, *wire)) return py::none();
  prepare_to_start();
  const DType source = seen.view.dtype;
  const py::tuple shape = shape_of(seen.view);
  py::object made = allocate(shape, torch_dtype(*wire), device, stream);
  const auto address = py::cast<std::uint64_t>(made.attr("data_ptr")());
  // Torch may have run anybody's code meanwhile.
  if (address == 0 || !look_on_host(torch, array.ptr(), seen) || seen.view.dtype != source ||
      !is_little(seen.view, *wire) || !shape.equal(shape_of(seen.view))) {
    return py::none();
  }
  cuda::Request request{.stream = reinterpret_cast<cu::Stream>(stream)};
  request.leaves.push_back({.host = KeptView(seen.view), .wire = *wire, .device = address});
  return is_taken(std::move(request), device) ? std::move(made) : py::none();
}

}  // namespace

void bind_little(py::module_& module) {
  module.def("little_to_device", &little_to_device, py::arg("array"), py::arg("dtype"),
             py::arg("device"), py::arg("stream"), py::arg("allocate"), py::pos_only(),
             "A small array in new memory of a stream, as it crosses the link; None for the "
             "general route.");
}

}  // namespace dlferry::python
