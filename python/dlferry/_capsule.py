"""DLPack capsules in plain Python, for the fallback: asking for one, and what it says."""

from __future__ import annotations

import ctypes
import math
from typing import Any

import numpy as np

CPU = 1
CUDA = 2
FLAG_IS_COPIED = 1 << 1
BEYOND_NUMPY = {(4, 16, 1), (5, 32, 1), *((code, 8, 1) for code in range(10, 15))}
"""DLPack's code, bits and lanes of bfloat16, complex32 and the float8 family."""


MAX_DIMS = 64
BEYOND = 1 << 63


class _Tensor(ctypes.Structure):
    """DLTensor."""

    data: int | None
    ndim: int
    code: int
    bits: int
    lanes: int
    shape: Any
    strides: Any
    byte_offset: int

    _fields_ = (
        ("data", ctypes.c_void_p),
        ("device", ctypes.c_int32 * 2),
        ("ndim", ctypes.c_int32),
        ("code", ctypes.c_uint8),
        ("bits", ctypes.c_uint8),
        ("lanes", ctypes.c_uint16),
        ("shape", ctypes.POINTER(ctypes.c_int64)),
        ("strides", ctypes.POINTER(ctypes.c_int64)),
        ("byte_offset", ctypes.c_uint64),
    )


class Content:
    """What a capsule says that NumPy's importer does not pass on: its flags and its dtype.

    The offsets are those of DLManagedTensorVersioned and DLManagedTensor.

    Raises:
        BufferError: It is no capsule to be used, or describes memory that cannot exist.
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
        major = 1 if self.legacy else ctypes.c_uint32.from_address(address).value
        if major != 1:
            raise BufferError(
                f"the DLPack tensor has major version {major}, and only version 1 is understood; "
                "ask its producer for max_version=(1, 3)"
            )
        tensor = _Tensor.from_address(address + (0 if self.legacy else 32))
        self.dtype = (tensor.code, tensor.bits, tensor.lanes)
        flaw = _flaw(tensor)
        if flaw is not None:
            raise BufferError(f"the DLPack tensor has {flaw}; ask its producer for a valid export")


def _flaw(tensor: _Tensor) -> str | None:
    """Why the memory cannot exist, as the core says it; NumPy's importer would read it."""
    if tensor.ndim < 0:
        return "a negative number of dimensions"
    if tensor.ndim > MAX_DIMS:
        return "more than 64 dimensions"
    if tensor.ndim and not tensor.shape:
        return "a null shape"
    shape = tensor.shape[: tensor.ndim]
    size = (tensor.bits * tensor.lanes + 7) // 8
    if any(length < 0 for length in shape):
        return "a negative length in its shape"
    if math.prod(max(length, 1) for length in shape) * size >= BEYOND:
        return "a shape whose size overflows 64 bits"
    steps = tensor.strides[: tensor.ndim] if tensor.strides else []
    spans = [(n - 1) * step * size for n, step in zip(shape, steps, strict=False) if n > 1]
    below = sum(-span for span in spans if span < 0)
    above = sum(span for span in spans if span > 0) + size
    if max(below, above) >= BEYOND or any(abs(step * size) >= BEYOND for step in steps if spans):
        return "strides that overflow 64 bits"
    if 0 in shape:
        return None
    if not tensor.data:
        return "a null data pointer"
    start = tensor.data + tensor.byte_offset
    if tensor.byte_offset >= BEYOND or start < below or start + above >= BEYOND:
        return "elements outside the address space"
    return None


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
