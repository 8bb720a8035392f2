"""DLPack capsules in plain Python, for the fallback: asking for one, and what it says."""

from __future__ import annotations

import ctypes
from typing import Any

import numpy as np

CPU = 1
CUDA = 2
FLAG_IS_COPIED = 1 << 1
BEYOND_NUMPY = {(4, 16, 1), (5, 32, 1), *((code, 8, 1) for code in range(10, 15))}
"""DLPack's code, bits and lanes of bfloat16, complex32 and the float8 family."""


class Content:
    """What a capsule says that NumPy's importer does not pass on: its flags and its dtype.

    The offsets are those of DLManagedTensorVersioned and DLManagedTensor.
    """

    def __init__(self, capsule: object) -> None:
        name = repr(capsule).partition('"')[2].partition('"')[0]
        if type(capsule).__name__ != "PyCapsule" or name not in ("dltensor", "dltensor_versioned"):
            raise BufferError(f"__dlpack__ returned {capsule!r}, not a DLPack capsule to be used")
        self.legacy = name == "dltensor"
        get_pointer = ctypes.pythonapi.PyCapsule_GetPointer
        get_pointer.restype = ctypes.c_void_p
        get_pointer.argtypes = [ctypes.py_object, ctypes.c_char_p]
        address = get_pointer(capsule, name.encode())
        self.flags = 0 if self.legacy else ctypes.c_uint64.from_address(address + 24).value
        dtype = address + (0 if self.legacy else 32) + 20
        self.dtype = (
            ctypes.c_uint8.from_address(dtype).value,
            ctypes.c_uint8.from_address(dtype + 1).value,
            ctypes.c_uint16.from_address(dtype + 2).value,
        )


class Exporter:
    """An export that was made already, for `numpy.from_dlpack`."""

    def __init__(self, capsule: object) -> None:
        self.capsule = capsule

    def __dlpack__(self, **_: object) -> object:
        return self.capsule

    def __dlpack_device__(self) -> tuple[int, int]:
        return CPU, 0


def export(obj: Any, never_copy: bool) -> object | None:
    """The capsule of `obj`; None when it declines to export."""
    keywords: dict[str, Any] = {"max_version": (1, 3)} if _versioned() else {}
    if never_copy:
        keywords["copy"] = False
    try:
        try:
            capsule: object = obj.__dlpack__(**keywords)
        except TypeError as error:
            if type(error) is not TypeError:
                raise
            capsule = obj.__dlpack__()
    except (BufferError, NotImplementedError):
        return None
    except (TypeError, RuntimeError) as error:
        own = type(error) not in (TypeError, RuntimeError)
        # A TypeError of the producer's own, or how XLA says that something is not supported.
        if own and (isinstance(error, TypeError) or str(error).startswith("UNIMPLEMENTED:")):
            return None
        raise
    return capsule


def _versioned() -> bool:
    return np.lib.NumpyVersion(np.__version__) >= "2.1.0"
