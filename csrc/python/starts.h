// What all starts of transfers have in common.
#pragma once

#include <pybind11/pybind11.h>

#include <memory>

#include "cuda/engine.h"
#include "python/transfer_handle.h"

namespace dlferry::python {

[[nodiscard]] pybind11::object torch_dtype(DType dtype);

// Before each start: lets go what is done, and refuses when the interpreter shuts down.
void prepare_to_start();

// Starts what `request` says, for as long as which the owners are kept; null where a transfer on
// the caller's stream itself is not to be had.
[[nodiscard]] std::unique_ptr<TransferHandle> started(cuda::Request request, int device,
                                                      bool on_stream,
                                                      const pybind11::object& keep_host,
                                                      const pybind11::object& keep_device);

}  // namespace dlferry::python
