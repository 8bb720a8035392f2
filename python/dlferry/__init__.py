"""dlferry moves arrays between libraries, and between host and GPU, for PyTorch users."""

from __future__ import annotations

import importlib
import typing

from dlferry import (
    _convert,
    _driver,
    _native,
    _numbers,
    _sequence,
    _sources,
    _stack,
    _to_numpy,
    _torch,
)
from dlferry._config import show_config
from dlferry._errors import CopyRequired, CudaError, DriverUnavailable, UnsupportedInput
from dlferry._guard import copy_guard
from dlferry._threads import configure as _configure_threads
from dlferry._version import __version__

if typing.TYPE_CHECKING:
    from dlferry._collate import collate
    from dlferry._copyto import copyto
    from dlferry._explain import Plan, explain
    from dlferry._pinned import empty_pinned, memory_stats, pin
    from dlferry._prefetch import Prefetcher, prefetch
    from dlferry._transfer import Transfer, to_device, to_host, transfer

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

# Imported when they are first asked for: who converts arrays does not wait for the rest.
_LATER = {
    "Plan": "_explain",
    "Prefetcher": "_prefetch",
    "Transfer": "_transfer",
    "collate": "_collate",
    "copyto": "_copyto",
    "empty_pinned": "_pinned",
    "explain": "_explain",
    "memory_stats": "_pinned",
    "pin": "_pinned",
    "prefetch": "_prefetch",
    "to_device": "_transfer",
    "to_host": "_transfer",
    "transfer": "_transfer",
}

asarray = _convert.asarray
from_dlpack = _convert.from_dlpack
to_numpy = _to_numpy.to_numpy
stack = _stack.stack

if _native.NATIVE:
    _native.core.install(
        torch_names=_torch.names_for_core,
        asarray=_convert.asarray,
        from_dlpack=_convert.from_dlpack,
        to_numpy=_to_numpy.to_numpy,
        stack=_stack.stack,
        is_mapped_file=_sources.is_mapped_file,
        is_immutable=_sources.is_immutable,
        leaf=_convert.leaf,
        promoted=_sequence.promoted,
        float_limit=_numbers.float_limit,
    )
    # The builtins themselves: a Python function in front would cost more than what they do.
    asarray = _native.core.asarray
    from_dlpack = _native.core.from_dlpack
    to_numpy = _native.core.to_numpy
    stack = _native.core.stack

_configure_threads()
_driver.configure()


def __getattr__(name: str) -> object:
    module = _LATER.get(name)
    if module is None:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value: object = getattr(importlib.import_module(f"{__name__}.{module}"), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return __all__
