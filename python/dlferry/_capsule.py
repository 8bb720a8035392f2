"""DLPack capsules in plain Python, for the fallback: what one says, and to whom it may go."""

from __future__ import annotations

import ctypes
import math
from typing import Any

import numpy as np

from dlferry._export import CPU as CPU
from dlferry._export import CUDA as CUDA
from dlferry._torch import torch

FLAG_READ_ONLY = 1 << 0
FLAG_IS_COPIED = 1 << 1
BEYOND_NUMPY = {(4, 16, 1), (5, 32, 1), *((code, 8, 1) for code in range(10, 15))}
"""DLPack's code, bits and lanes of bfloat16, complex32 and the float8 family."""


MAX_DIMS = 64
BEYOND = 1 << 63


class _Tensor(ctypes.Structure):
    """DLTensor."""

    data: int | None
    device: Any
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
        self.kind, self.device = tensor.device
        flaw = _flaw(tensor)
        if flaw is not None:
            raise BufferError(f"the DLPack tensor has {flaw}; ask its producer for a valid export")
        steps = tensor.strides[: tensor.ndim] if tensor.strides else ()
        lengths = tensor.shape[: tensor.ndim] if tensor.ndim else ()
        self.is_reversed = any(n > 1 and s < 0 for n, s in zip(lengths, steps, strict=False))


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


def is_versioned(kind: int) -> bool:
    """Whether those who import here understand DLPack 1: torch for CUDA, and NumPy for the host."""
    if kind == CUDA:
        return hasattr(torch._C, "_to_dlpack_versioned")
    return np.lib.NumpyVersion(np.__version__) >= "2.1.0"
