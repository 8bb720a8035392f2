// Any Python object that describes array memory -> Source.
#pragma once

#include <optional>

#include "python/numpy_api.h"
#include "python/source.h"

namespace dlferry::python {

enum class Ingest {
  kTaken,     // `source` is filled in
  kDeclined,  // not an array of this kind, or one that declined to export: try the next protocol
  kFailed,    // a Python error is set
};

// Fills `source` from an ndarray: its shape and strides as they are now, the array as owner. Arrays
// whose dtype torch lacks are taken with `has_dtype` false. Never fails for memory NumPy could
// make.
void ingest_ndarray(PyArrayObject* array, Source& source) noexcept;

// Takes a capsule over: it is consumed, and its tensor owned by `source`. BufferError when it is
// malformed or was used before; a malformed tensor's deleter is called, as DLPack asks.
[[nodiscard]] Ingest ingest_capsule(PyObject* capsule, Source& source);

// Takes a managed tensor over, and releases it by its deleter when it is malformed.
[[nodiscard]] Ingest ingest_managed(dlpack::ManagedTensorVersioned* managed, Source& source);

// By the C exchange table of the exact type, else by `__dlpack__`; memory that is not the host's
// alone by the latter, in order with the work on it. `never_copy` is passed on to producers that
// understand it. Only TypeError makes it try a plainer call; BufferError,
// NotImplementedError and a producer's own subclass of TypeError decline.
[[nodiscard]] Ingest ingest_producer(PyObject* object, bool never_copy, Source& source);

// The three above by the type of `object`; ndarray subclasses included.
[[nodiscard]] Ingest ingest(PyObject* object, bool never_copy, Source& source);

}  // namespace dlferry::python
