#include "python/request.h"

namespace dlferry::python {
namespace {

bool is_name(PyObject* name, PyObject* interned) {
  return name == interned || PyUnicode_Compare(name, interned) == 0;
}

bool equals(PyObject* text, const char* expected) {
  return PyUnicode_CheckExact(text) != 0 && PyUnicode_CompareWithASCIIString(text, expected) == 0;
}

bool names_the_cpu(const Torch& torch, PyObject* device) {
  if (device == Py_None || equals(device, "cpu")) return true;
  if (Py_TYPE(device) != Py_TYPE(torch.cpu)) return false;
  const int same = PyObject_RichCompareBool(device, torch.cpu, Py_EQ);
  if (same < 0) PyErr_Clear();
  return same == 1;
}

bool parse_copy(PyObject* value, CopyPolicy& copy) {
  if (value == Py_None)
    copy = CopyPolicy::kIfNeeded;
  else if (value == Py_True)
    copy = CopyPolicy::kAlways;
  else if (value == Py_False)
    copy = CopyPolicy::kNever;
  else
    return false;
  return true;
}

bool parse_readonly(PyObject* value, ReadOnlyPolicy& readonly) {
  if (equals(value, "copy"))
    readonly = ReadOnlyPolicy::kCopy;
  else if (equals(value, "share"))
    readonly = ReadOnlyPolicy::kShare;
  else if (equals(value, "error"))
    readonly = ReadOnlyPolicy::kError;
  else
    return false;
  return true;
}

}  // namespace

bool parse(const Torch& torch, const Call& call, Signature signature, Request& request) {
  if (call.nargs != 1) return false;
  const Py_ssize_t count = call.keywords == nullptr ? 0 : PyTuple_GET_SIZE(call.keywords);
  if (count > kMostKeywords) return false;
  for (Py_ssize_t i = 0; i < count; ++i) {
    PyObject* name = PyTuple_GET_ITEM(call.keywords, i);
    PyObject* value = call.args[1 + i];
    bool plain = false;
    if (is_name(name, names().dtype)) {
      request.dtype = value;
      plain = signature != Signature::kFromDlpack;
    } else if (is_name(name, names().device)) {
      plain = names_the_cpu(torch, value);
      request.on_cpu = value != Py_None;
    } else if (signature == Signature::kStack) {
      plain = is_name(name, names().out);
      request.out = value;
    } else if (is_name(name, names().copy)) {
      plain = parse_copy(value, request.copy);
    } else if (is_name(name, names().readonly)) {
      plain = parse_readonly(value, request.readonly);
    } else if (is_name(name, names().requires_grad)) {
      plain = signature == Signature::kAsarray && (value == Py_None || value == Py_False);
    }
    if (!plain) return false;
  }
  return true;
}

}  // namespace dlferry::python
