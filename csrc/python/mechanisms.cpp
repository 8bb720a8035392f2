#include "python/mechanisms.h"

#include <pybind11/stl.h>

#include <memory>
#include <string>
#include <utility>

#include "python/asarray.h"
#include "python/exchange.h"
#include "python/ingest.h"
#include "tensor/workers.h"

namespace py = pybind11;

namespace dlferry::python {

const Torch& loaded_torch() {
  const Torch* found = torch();
  if (found == nullptr) throw py::error_already_set();
  return *found;
}

DType dtype_or_raise(py::handle dtype) {
  const auto found = dtype_from_torch(loaded_torch(), dtype.ptr());
  if (!found)
    throw py::type_error("not a dtype that the core knows: " + std::string(py::repr(dtype)));
  return *found;
}

namespace {

py::object owned_or_raise(PyObject* object) {
  if (object == nullptr) throw py::error_already_set();
  return py::reinterpret_steal<py::object>(object);
}

// The Python class `Source`: used up by the one tensor that is made of it.
struct Found {
  Source source;
  py::object origin;
  bool used = false;

  [[nodiscard]] Source& use() {
    if (std::exchange(used, true)) throw py::value_error("this source has been used");
    return source;
  }
};

std::unique_ptr<Found> ingest_object(const py::object& object, bool never_copy) {
  auto found = std::make_unique<Found>(Found{{}, object});
  switch (ingest(object.ptr(), never_copy, found->source)) {
    case Ingest::kFailed:
      throw py::error_already_set();
    case Ingest::kDeclined:
      return nullptr;
    case Ingest::kTaken:
      break;
  }
  return found;
}

py::object dtype_of(const Found& found) {
  const Source& source = found.source;
  if (!source.has_dtype) return py::none();
  PyObject* dtype = loaded_torch().dtypes[static_cast<std::size_t>(source.view.dtype)];
  return dtype == nullptr ? py::none() : py::reinterpret_borrow<py::object>(dtype);
}

std::string device_of(const Found& found) {
  const dlpack::Device device = found.source.view.device;
  return device.device_type == dlpack::kCUDA ? "cuda:" + std::to_string(device.device_id) : "cpu";
}

py::tuple tuple_of(const std::int64_t* values, int count) {
  py::tuple result(static_cast<std::size_t>(count));
  for (int i = 0; i < count; ++i) result[static_cast<std::size_t>(i)] = py::int_(values[i]);
  return result;
}

CopyPolicy copy_policy(const std::optional<bool>& copy) {
  if (!copy) return CopyPolicy::kIfNeeded;
  return *copy ? CopyPolicy::kAlways : CopyPolicy::kNever;
}

ReadOnlyPolicy readonly_policy(const std::string& readonly) {
  if (readonly == "copy") return ReadOnlyPolicy::kCopy;
  if (readonly == "share") return ReadOnlyPolicy::kShare;
  if (readonly == "error") return ReadOnlyPolicy::kError;
  throw py::value_error("readonly must be 'copy', 'share' or 'error'");
}

py::tuple decide_policy(Facts facts, std::optional<bool> copy, const std::string& readonly) {
  const Plan plan = decide(facts, copy_policy(copy), readonly_policy(readonly));
  static constexpr const char* kActions[] = {"share", "copy", "refuse"};
  return py::make_tuple(kActions[static_cast<std::size_t>(plan.action)], plan.reasons,
                        plan.implicit);
}

// Owned references in `Installed` live as long as the process.
PyObject* immortal(const py::object& object) { return py::object(object).release().ptr(); }

void install(const py::object& torch_names, const py::object& asarray,
             const py::object& from_dlpack, const py::object& to_numpy, const py::object& stack,
             const py::object& is_mapped_file, const py::object& is_immutable,
             const py::object& exported, const py::object& leaf, const py::object& promoted,
             const py::object& float_limit, const py::object& hidden_empty) {
  installed() = {immortal(torch_names),  immortal(asarray),     immortal(from_dlpack),
                 immortal(to_numpy),     immortal(stack),       immortal(is_mapped_file),
                 immortal(is_immutable), immortal(exported),    immortal(leaf),
                 immortal(promoted),     immortal(float_limit), immortal(hidden_empty)};
  for (const py::object& function : {asarray, from_dlpack, to_numpy, stack}) {
    const auto name = function.attr("__name__").cast<std::string>();
    const auto text = py::module_::import("inspect").attr("getdoc")(function).cast<std::string>();
    if (!document(name.c_str(), text.c_str())) throw py::value_error("no builtin named " + name);
  }
}

}  // namespace

py::object wrap(Source source, PyObject* origin) {
  auto found =
      std::make_unique<Found>(Found{std::move(source), py::reinterpret_borrow<py::object>(origin)});
  return py::cast(std::move(found));
}

Source* source_in(py::handle object) {
  if (!py::isinstance<Found>(object)) return nullptr;
  return &py::cast<Found&>(object).source;
}

void bind_mechanisms(py::module_& module) {
  const auto shape = [](const Found& found) {
    return tuple_of(found.source.view.shape, found.source.view.ndim);
  };
  const auto strides = [](const Found& found) {
    return tuple_of(found.source.view.strides, found.source.view.ndim);
  };
  const auto facts = [](const Found& found) { return found.source.facts; };
  py::class_<Found>(module, "Source", py::is_final(),
                    "Foreign memory on its way to a tensor; used up by one use.")
      .def_property_readonly("dtype", &dtype_of, "The torch dtype; None where torch has none.")
      .def_property_readonly("device", &device_of, "As torch writes it.")
      .def_property_readonly("shape", shape, "Lengths of the axes.")
      .def_property_readonly("strides", strides, "Bytes from one element of an axis to the next.")
      .def_property_readonly("facts", facts, "What is known of the memory, as bits of `Fact`.")
      .def_readonly("origin", &Found::origin, "The object that the memory was found in.");
  module.def("install", &install, py::kw_only(), py::arg("torch_names"), py::arg("asarray"),
             py::arg("from_dlpack"), py::arg("to_numpy"), py::arg("stack"),
             py::arg("is_mapped_file"), py::arg("is_immutable"), py::arg("exported"),
             py::arg("leaf"), py::arg("promoted"), py::arg("float_limit"), py::arg("hidden_empty"),
             "Give the core the Python callables that it needs.");
  module.def("ingest", &ingest_object, py::arg("obj"), py::arg("never_copy"), py::pos_only(),
             "The memory of an ndarray, capsule or DLPack object; None for anything else.");
  module.def(
      "share", [](Found& found) { return owned_or_raise(share(loaded_torch(), found.use())); },
      py::arg("source"), py::pos_only(), "A tensor on the source's memory.");
  module.def(
      "copy",
      [](Found& found, const py::object& dtype) {
        const DType target = dtype_or_raise(dtype);
        return owned_or_raise(copy(loaded_torch(), found.use(), target));
      },
      py::arg("source"), py::arg("dtype"), py::pos_only(),
      "A new CPU tensor with the source's elements, cast to `dtype`.");
  module.def(
      "array",
      [](const py::object& tensor) {
        return owned_or_raise(first_array_on(loaded_torch(), tensor.ptr()));
      },
      py::arg("tensor"), py::pos_only(),
      "An ndarray on a plain CPU tensor's memory, which it keeps from being resized.");
  module.def("set_worker_count", &set_worker_count, py::arg("count"), py::pos_only(),
             "How many threads share a large copy; 0 for as many as there are processors.");
  module.def("worker_count", &worker_count, "How many threads share a large copy.");
  module.def("watch_copies", &watch_copies, py::arg("change"), py::pos_only(),
             "Count the copy guards in force.");
  module.def("decide", &decide_policy, py::arg("facts"), py::arg("copy"), py::arg("readonly"),
             py::pos_only(), "Share, copy or refuse: (action, reasons, implicit).");
}

}  // namespace dlferry::python
