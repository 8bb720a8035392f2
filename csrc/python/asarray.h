// The hot functions, bound raw (METH_FASTCALL | METH_KEYWORDS): they are the public builtins.
//
// Each takes the common cases in one go and hands everything else, arguments as they came, to the
// general route in Python, which also words every refusal.
#pragma once

#include "python/object.h"

namespace dlferry::python {

// `asarray`, `from_dlpack`, `to_numpy` and `stack`, null-terminated, for PyModule_AddFunctions.
[[nodiscard]] PyMethodDef* hot_functions() noexcept;

// Counts the copy guards in force, in any thread or task. While there is one, implicit copies go
// the general route, which knows whose it is.
void watch_copies(int change) noexcept;

// Appends the docstring, which is written once, in Python, to a function's text signature.
// False when there is no such function.
[[nodiscard]] bool document(const char* name, const char* text);

}  // namespace dlferry::python
