#include <pybind11/stl.h>

#include <utility>

#include "python/batch.h"
#include "python/bind_cuda.h"
#include "python/mechanisms.h"
#include "python/released.h"
#include "python/starts.h"

namespace py = pybind11;

namespace dlferry::python {
namespace {

std::unique_ptr<Batch> batch_of(const py::list& leaves, std::size_t most_bytes) {
  const Visit visit(Visit::For::kStarting);
  const Torch& torch = loaded_torch();
  auto batch = std::make_unique<Batch>();
  if (!batch->scan(torch, leaves.ptr(), most_bytes)) throw py::error_already_set();
  return batch->items().size() < 2 ? nullptr : std::move(batch);
}

py::list numbers_of(const Batch& batch) {
  py::list numbers(batch.items().size());
  for (std::size_t i = 0; i < numbers.size(); ++i) numbers[i] = batch.items()[i].leaf;
  return numbers;
}

py::list dtypes_of(const Batch& batch) {
  py::list dtypes;
  for (std::size_t i = 0; i < kDTypeCount; ++i) {
    if (batch.has(static_cast<DType>(i))) dtypes.append(torch_dtype(static_cast<DType>(i)));
  }
  return dtypes;
}

py::tuple run_of(const Batch::Run& run) {
  const View& view = *run.first->view;
  py::tuple shape(static_cast<std::size_t>(view.ndim));
  for (std::size_t i = 0; i < shape.size(); ++i) shape[i] = py::int_(view.shape[i]);
  return py::make_tuple(run.count, run.first->offset, run.distance, std::move(shape),
                        torch_dtype(view.dtype), torch_dtype(run.wire));
}

py::tuple place(Batch& batch, const py::dict& by_dtype) {
  Batch::Wires wires{};
  for (std::size_t i = 0; i < kDTypeCount; ++i) {
    if (batch.has(static_cast<DType>(i))) {
      wires[i] = dtype_or_raise(by_dtype[torch_dtype(static_cast<DType>(i))]);
    }
  }
  const std::size_t size = batch.place(wires);
  py::list runs;
  for (const Batch::Run& run : batch.runs()) runs.append(run_of(run));
  return py::make_tuple(size, std::move(runs));
}

std::unique_ptr<TransferHandle> start_batch(const py::object& given, std::uint64_t address,
                                            int device, std::uintptr_t stream, bool on_stream,
                                            const py::object& keep_device) {
  const Visit visit(Visit::For::kStarting);
  prepare_to_start();
  const auto& batch = py::cast<const Batch&>(given);
  const auto storages = py::reinterpret_steal<py::object>(batch.storages(loaded_torch()).release());
  if (!storages) throw py::error_already_set();
  cuda::Request request{.leaves = batch.leaves(address),
                        .packed = true,
                        .stream = reinterpret_cast<cu::Stream>(stream)};
  return started(std::move(request), device, on_stream, py::make_tuple(given, storages),
                 keep_device);
}

}  // namespace

void bind_batch(py::module_& module) {
  py::class_<Batch>(module, "Batch", py::is_final(), "The small arrays of a tree, on the host.")
      .def_property_readonly("numbers", &numbers_of, "Which of the leaves they are.")
      .def_property_readonly("dtypes", &dtypes_of, "Their own, each once.")
      .def("place", &place, py::arg("wires"), py::pos_only(),
           "Place them in one block: its bytes, and the runs of arrays of one shape and dtype.");
  module.def("batch_of", &batch_of, py::arg("leaves"), py::arg("most_bytes"), py::pos_only(),
             "The arrays up to a size that are nothing but elements in C order, if several.");
  module.def("start_batch", &start_batch, py::arg("batch"), py::arg("address"), py::kw_only(),
             py::arg("device"), py::arg("stream"), py::arg("on_stream"), py::arg("keep_device"),
             "Start to copy a batch to one block of new memory of a device.");
  module.attr("ALIGNMENT") = Batch::kAlignment;  // where packed arrays begin, in bytes
}

}  // namespace dlferry::python
