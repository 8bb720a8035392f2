// ingest_producer: objects that export themselves, by the C exchange table or by `__dlpack__`.
#include <array>
#include <string_view>
#include <utility>

#include "python/doors.h"
#include "python/ingest.h"

namespace dlferry::python {
namespace {

// What is known of a producer's type. Looked up once a type; the types stay alive on purpose.
struct Producer {
  PyTypeObject* type = nullptr;
  const dlpack::ExchangeTable* table = nullptr;
  bool immutable = false;  // exports writable memory that it does not mean to be written
  bool on_host = false;    // has exported memory that only the host works on
  bool elsewhere = false;  // has exported other memory
};

const dlpack::ExchangeTable* table_of(PyTypeObject* type) {
  const Ref capsule =
      Ref::steal(PyObject_GetAttr(reinterpret_cast<PyObject*>(type), names().exchange_api));
  if (!capsule || PyCapsule_CheckExact(capsule.get()) == 0) {
    PyErr_Clear();
    return nullptr;
  }
  return exchange_table(capsule.get());
}

// Null with a Python error set. A few types are remembered; beyond that each call looks anew, and
// `fresh` is what it finds.
Producer* producer_of(PyTypeObject* type, Producer& fresh) {
  static std::array<Producer, 16> known;
  std::size_t count = 0;
  for (; count < known.size() && known[count].type != nullptr; ++count) {
    if (known[count].type == type) return &known[count];
  }
  const Ref immutable =
      Ref::steal(PyObject_CallOneArg(installed().is_immutable, reinterpret_cast<PyObject*>(type)));
  if (!immutable) return nullptr;
  fresh = {type, table_of(type), immutable.get() == Py_True};
  if (count == known.size() || known[count].type != nullptr) return &fresh;
  Py_INCREF(type);
  known[count] = fresh;
  return &known[count];
}

// Whether the error set is XLA's way to say that something is not supported.
bool is_xla_unimplemented() {
  if (PyErr_Occurred() == PyExc_RuntimeError || PyErr_ExceptionMatches(PyExc_RuntimeError) == 0) {
    return false;
  }
  PyObject *type, *value, *traceback;
  PyErr_Fetch(&type, &value, &traceback);
  const Ref text = Ref::steal(value == nullptr ? nullptr : PyObject_Str(value));
  const char* words = text ? PyUnicode_AsUTF8(text.get()) : nullptr;
  constexpr std::string_view kStatus = "UNIMPLEMENTED:";
  const bool found = words != nullptr && std::string_view(words).starts_with(kStatus);
  PyErr_Restore(type, value, traceback);
  return found;
}

// A producer says "not like this": by the two classes the protocol names, or by a subclass of
// TypeError of its own, or as XLA does. A bare TypeError is about the call, and not clear.
bool declines() {
  if (PyErr_ExceptionMatches(PyExc_BufferError) != 0 ||
      PyErr_ExceptionMatches(PyExc_NotImplementedError) != 0) {
    return true;
  }
  if (PyErr_ExceptionMatches(PyExc_TypeError) != 0) return PyErr_Occurred() != PyExc_TypeError;
  return is_xla_unimplemented();
}

// `__dlpack__` with the keywords of DLPack 1.x, then without. Null without an error: declined.
PyObject* call_dlpack(PyObject* object, bool never_copy) {
  PyObject* args[] = {nullptr, object, names().dlpack_version, Py_False};
  const auto call = [&](PyObject* keywords) {
    return PyObject_VectorcallMethod(names().dlpack, args + 1, 1 | PY_VECTORCALL_ARGUMENTS_OFFSET,
                                     keywords);
  };
  PyObject* capsule = call(never_copy ? names().for_version_and_copy : names().for_version);
  if (capsule == nullptr && PyErr_Occurred() == PyExc_TypeError) {
    PyErr_Clear();
    capsule = call(nullptr);
  }
  if (capsule == nullptr && declines()) PyErr_Clear();
  return capsule;
}

// Protocols are looked up on the type, as Python looks up its own: a class is not an array.
bool has_dlpack(PyObject* object) {
  auto* type = reinterpret_cast<PyObject*>(Py_TYPE(object));
  const Ref method = Ref::steal(PyObject_GetAttr(type, names().dlpack));
  if (!method) PyErr_Clear();
  return static_cast<bool>(method);
}

bool is_on_host(const Source& source) noexcept {
  return source.view.device.device_type == dlpack::kCPU;
}

Ingest ingest_table(const dlpack::ExchangeTable& table, PyObject* object, Source& source) {
  dlpack::ManagedTensorVersioned* managed = nullptr;
  if (table.managed_tensor_from_py_object_no_sync(object, &managed) == 0 && managed != nullptr) {
    return ingest_managed(managed, source);
  }
  if (!declines()) return Ingest::kFailed;
  PyErr_Clear();
  return Ingest::kDeclined;
}

// What `__dlpack__` returned; null where it declined or, with an error set, failed.
Ingest ingest_export(Ref capsule, PyObject* object, Source& source) {
  if (!capsule) {
    return PyErr_Occurred() != nullptr ? Ingest::kFailed : Ingest::kDeclined;
  }
  if (PyCapsule_CheckExact(capsule.get()) == 0) {
    PyErr_Format(PyExc_BufferError, "%s.__dlpack__ returned %s, not a capsule",
                 Py_TYPE(object)->tp_name, Py_TYPE(capsule.get())->tp_name);
    return Ingest::kFailed;
  }
  const Ingest result = ingest_capsule(capsule.get(), source);
  drop_keeping_error(capsule.release());
  return result;
}

// Types that have exported nothing but memory of the host are asked for that again, without a
// stream, because to ask where it is takes JAX half as long as to export it. Should it be elsewhere
// for once, the export is let go, and Python asks for one in order with the work on the memory.
Ingest ingest_dlpack(Producer& producer, PyObject* object, bool never_copy, Source& source) {
  if (producer.on_host && !producer.elsewhere) {
    const Ingest result =
        ingest_export(Ref::steal(call_dlpack(object, never_copy)), object, source);
    if (result != Ingest::kTaken || is_on_host(source)) return result;
    source.owner = Owner();
  }
  PyObject* args[] = {nullptr, object, never_copy ? Py_True : Py_False};
  Ref capsule = Ref::steal(PyObject_Vectorcall(installed().exported, args + 1,
                                               2 | PY_VECTORCALL_ARGUMENTS_OFFSET, nullptr));
  if (capsule.get() == Py_None) capsule = Ref();
  const Ingest result = ingest_export(std::move(capsule), object, source);
  if (result == Ingest::kTaken) {
    (is_on_host(source) ? producer.on_host : producer.elsewhere) = true;
  }
  return result;
}

}  // namespace

Ingest ingest_producer(PyObject* object, bool never_copy, Source& source) {
  Producer fresh;
  Producer* const producer = producer_of(Py_TYPE(object), fresh);
  if (producer == nullptr) return Ingest::kFailed;
  Ingest result = Ingest::kDeclined;
  if (producer->table != nullptr) result = ingest_table(*producer->table, object, source);
  if (result == Ingest::kTaken && !is_on_host(source)) {  // tables know nothing of streams
    source.owner = Owner();
    result = Ingest::kDeclined;
  }
  if (result == Ingest::kDeclined && has_dlpack(object)) {
    result = ingest_dlpack(*producer, object, never_copy, source);
  }
  if (result == Ingest::kTaken && producer->immutable) source.facts |= kReadOnly;
  return result;
}

}  // namespace dlferry::python
