"""The mechanisms of the native core in NumPy and plain torch: slower, with the same results.

`ingest` finds the memory of an object, `share` and `copy` make a tensor of it, `array` makes an
ndarray of a tensor, `decide` chooses. Serves where there is no native core.
"""

from __future__ import annotations

import ctypes
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from dlferry import _sources, _torch
from dlferry._errors import UnsupportedInput
from dlferry._policy import Fact
from dlferry._policy import decide as decide
from dlferry._torch import torch

Array = np.ndarray[Any, Any]

DLPACK_CPU = 1
DLPACK_CUDA = 2
FLAG_IS_COPIED = 1 << 1
BEYOND_NUMPY = {(4, 16, 1), (5, 32, 1), *((code, 8, 1) for code in range(10, 15))}
"""DLPack's code, bits and lanes of bfloat16, complex32 and the float8 family."""


@dataclass(slots=True)
class Source:
    """Foreign memory on its way to a tensor; see the native core's class of this name."""

    array: Array | None
    origin: object
    device: str = "cpu"
    facts: int = 0
    dtype: torch.dtype | None = None
    shape: tuple[int, ...] = field(default=())
    strides: tuple[int, ...] = field(default=())


class _Memory:
    """Describes the memory of an array anew, and keeps the array."""

    def __init__(self, owner: Array, strides: tuple[int, ...]) -> None:
        self.owner = owner
        self.__array_interface__ = {
            "version": 3,
            "shape": owner.shape,
            "strides": strides,
            "typestr": owner.dtype.str,
            "data": (owner.ctypes.data, False),
        }


class _Export:
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


class _Exported:
    """An export that was made already, for `numpy.from_dlpack`."""

    def __init__(self, capsule: object) -> None:
        self.capsule = capsule

    def __dlpack__(self, **_: object) -> object:
        return self.capsule

    def __dlpack_device__(self) -> tuple[int, int]:
        return DLPACK_CPU, 0


def ingest(obj: object, never_copy: bool, /) -> Source | None:
    """The memory of an ndarray or DLPack object; None for anything else.

    Raises:
        UnsupportedInput: `obj` is a bare capsule, which only the native core can validate.
        BufferError: An export that NumPy's importer does not understand.
    """
    if isinstance(obj, np.ndarray):
        return _from_array(obj, obj)
    if type(obj).__name__ == "PyCapsule":
        raise UnsupportedInput(
            "a bare DLPack capsule needs the native core, which validates it; pass the object that "
            "made it"
        )
    if hasattr(type(obj), "__dlpack__"):
        return _from_producer(obj, never_copy)
    return None


def _from_array(array: Array, origin: object) -> Source:
    source = Source(array, origin, shape=array.shape, strides=array.strides)
    source.dtype = _torch.dtypes().get(array.dtype.name)
    if source.dtype is None:
        return source
    size = array.dtype.itemsize
    if array.size and any(
        n > 1 and (s < 0 or s % size) for n, s in zip(array.shape, array.strides, strict=True)
    ):
        source.facts |= Fact.STRIDES
    if not array.dtype.isnative:
        source.facts |= Fact.BYTE_ORDER
    if array.size and array.ctypes.data % _alignment(array.dtype):
        source.facts |= Fact.ALIGNMENT
    if not array.flags.writeable:
        source.facts |= Fact.READ_ONLY
    return source


def _alignment(dtype: np.dtype[Any]) -> int:
    return dtype.itemsize // 2 if dtype.kind == "c" else dtype.itemsize


def _from_producer(obj: Any, never_copy: bool) -> Source | None:
    device, index = obj.__dlpack_device__()
    if device == DLPACK_CUDA:
        return Source(None, obj, device=f"cuda:{index}")
    capsule = _export(obj, never_copy)
    if capsule is None:
        return None
    export = _Export(capsule)
    try:
        exported: Any = _Exported(capsule)
        array = np.from_dlpack(exported)
    except (RuntimeError, BufferError, ValueError) as error:
        if export.dtype in BEYOND_NUMPY:
            return None
        raise BufferError(f"the DLPack tensor is malformed: {error}") from error
    source = _from_array(array, obj)
    if export.legacy:  # says nothing of permission, so NumPy assumes the worst
        source.facts &= ~Fact.READ_ONLY
    if _sources.is_immutable(type(obj)):
        source.facts |= Fact.READ_ONLY
    if export.flags & FLAG_IS_COPIED:
        source.facts |= Fact.PRODUCER_COPY
    return source


def _export(obj: Any, never_copy: bool) -> object | None:
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
    except TypeError as error:
        if type(error) is TypeError:
            raise
        return None
    return capsule


def _versioned() -> bool:
    return np.lib.NumpyVersion(np.__version__) >= "2.1.0"


def _element_strides(array: Array, keep: bool) -> tuple[int, ...]:
    """Strides in elements that torch can have; those of the array where `keep` and possible."""
    strides: list[int] = []
    contiguous = 1
    size = array.dtype.itemsize
    for length, stride in zip(reversed(array.shape), reversed(array.strides), strict=True):
        usable = keep and array.size and stride >= 0 and stride % size == 0
        strides.append(stride // size if usable else contiguous)
        contiguous *= max(length, 1)
    return tuple(reversed(strides))


def _is_dense(array: Array) -> bool:
    expected = array.dtype.itemsize
    axes = [(s, n) for s, n in zip(array.strides, array.shape, strict=True) if n > 1]
    for stride, length in sorted(axes):
        if stride != expected:
            return False
        expected *= length
    return True


def _on_memory(array: Array, dtype: torch.dtype) -> torch.Tensor:
    """A tensor on an array in native byte order; ml_dtypes' elements go over as their bits."""
    if not array.size:
        empty: torch.Tensor = torch.empty(array.shape, dtype=dtype, device="cpu")
        return empty
    strides = tuple(s * array.dtype.itemsize for s in _element_strides(array, keep=True))
    bits = array if _sources.is_numpys_own(array.dtype) else array.view(f"u{array.dtype.itemsize}")
    tensor: torch.Tensor = torch.from_numpy(np.asarray(_Memory(bits, strides)))
    return tensor if tensor.dtype == dtype else tensor.view(dtype)


def share(source: Source, /) -> torch.Tensor:
    """A tensor on the source's memory."""
    assert source.array is not None
    assert source.dtype is not None
    return _on_memory(source.array, source.dtype)


def copy(source: Source, dtype: torch.dtype, /) -> torch.Tensor:
    """A new CPU tensor with the source's elements, cast to `dtype`."""
    assert source.array is not None
    assert source.dtype is not None
    array = source.array
    strides = _element_strides(array, keep=_is_dense(array))
    tensor: torch.Tensor = torch.empty_strided(array.shape, strides, dtype=dtype, device="cpu")
    if source.facts & (Fact.STRIDES | Fact.BYTE_ORDER | Fact.ALIGNMENT):
        array = np.array(array, dtype=array.dtype.newbyteorder("="), order="C", subok=False)
    return _torch.fill(tensor, _on_memory(array, source.dtype))


def array(tensor: torch.Tensor, /) -> Array:
    """An ndarray on a plain CPU tensor's memory, which it keeps from being resized.

    Its base is an alias of the tensor that no one else has, so `set_` or ``.data =`` on the tensor
    leaves the array's memory alone.
    """
    made: Array = tensor.detach().numpy()
    return made


def shared_blocks() -> int:
    """Not counted here: torch holds the arrays themselves."""
    return 0
