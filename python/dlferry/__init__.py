"""dlferry moves arrays between libraries, and between host and GPU, for PyTorch users."""

from __future__ import annotations

from dlferry import (
    _convert,
    _doors,
    _driver,
    _export,
    _modes,
    _native,
    _numbers,
    _sequence,
    _sources,
    _stack,
    _to_numpy,
)
from dlferry._collate import collate
from dlferry._config import show_config
from dlferry._copyto import copyto
from dlferry._errors import CopyRequired, CudaError, DriverUnavailable, UnsupportedInput
from dlferry._explain import Plan, explain
from dlferry._guard import copy_guard
from dlferry._pinned import empty_pinned, memory_stats, pin
from dlferry._prefetch import Prefetcher, prefetch
from dlferry._threads import configure as _configure_threads
from dlferry._transfer import Transfer, to_device, to_host, transfer
from dlferry._version import __version__

# No `__getattr__`, by which some of these could be imported later: of a module that has one, Python
# does not learn where its names are, and takes 50 ns to find `dlferry.asarray` each time.

__all__ = [
    "CopyRequired",
    "CudaError",
    "DriverUnavailable",
    "Plan",
    "Prefetcher",
    "Transfer",
    "UnsupportedInput",
    "__version__",
    "asarray",
    "collate",
    "copy_guard",
    "copyto",
    "empty_pinned",
    "explain",
    "from_dlpack",
    "memory_stats",
    "pin",
    "prefetch",
    "show_config",
    "stack",
    "to_device",
    "to_host",
    "to_numpy",
    "transfer",
]

asarray = _convert.asarray
from_dlpack = _convert.from_dlpack
to_numpy = _to_numpy.to_numpy
stack = _stack.stack

if _native.NATIVE:
    _native.core.install(
        torch_names=_doors.names_for_core,
        asarray=_convert.asarray,
        from_dlpack=_convert.from_dlpack,
        to_numpy=_to_numpy.to_numpy,
        stack=_stack.stack,
        is_mapped_file=_sources.is_mapped_file,
        is_immutable=_sources.is_immutable,
        exported=_export.exported,
        leaf=_convert.leaf,
        promoted=_sequence.promoted,
        float_limit=_numbers.float_limit,
        hidden_empty=_modes.hidden_empty,
    )
    # The builtins themselves: a Python function in front would cost more than what they do.
    asarray = _native.core.asarray
    from_dlpack = _native.core.from_dlpack
    to_numpy = _native.core.to_numpy
    stack = _native.core.stack

_configure_threads()
_driver.configure()


def __dir__() -> list[str]:
    return __all__
