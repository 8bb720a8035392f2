// Numbers, lists and tuples -> one tensor.
//
// Lists of Python numbers are written as they are read, in one pass; whatever else goes in two
// steps (leaves.h): scan (shape, dtype, leaves), fill (any memory). Values, dtypes and shapes are
// those of `_sequence.py`, which takes all that is not plain and words every refusal.
#pragma once

#include "python/doors.h"

namespace dlferry::python {

struct SequenceRequest {
  PyObject* dtype = Py_None;
  bool on_cpu = false;  // asked for; otherwise torch's default device holds
};

// A bool, int, float, complex, list or tuple, exactly. Anything else may have its own ways.
[[nodiscard]] bool is_plain_sequence(PyObject* object) noexcept;

// A new tensor of a plain sequence. Null without an error: for the general route.
[[nodiscard]] PyObject* tensor_of_sequence(const Torch& torch, PyObject* object,
                                           const SequenceRequest& request);

// A new tensor of arrays in a list or tuple; on the CPU, unless they are all numbers. `out`, if
// any, is written instead and returned. Null without an error, with nothing written: for the
// general route.
[[nodiscard]] PyObject* stack_of_sequence(const Torch& torch, PyObject* arrays,
                                          const SequenceRequest& request, PyObject* out);

}  // namespace dlferry::python
