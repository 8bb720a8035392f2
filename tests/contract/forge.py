"""DLPack structures and capsules made by hand, right and wrong, with a count of deleter calls."""

from __future__ import annotations

import ctypes
import gc
import sys
from typing import Any

import numpy as np

CPU, CUDA, CUDA_HOST, MANAGED = 1, 2, 3, 13
INT, UINT, FLOAT, OPAQUE, BFLOAT, COMPLEX, BOOL = range(7)
READ_ONLY, IS_COPIED, PADDED = 1, 2, 4
KIND_CODES = {"i": INT, "u": UINT, "f": FLOAT, "c": COMPLEX, "b": BOOL}


class Device(ctypes.Structure):
    _fields_ = [("type", ctypes.c_int32), ("id", ctypes.c_int32)]


class DataType(ctypes.Structure):
    _fields_ = [("code", ctypes.c_uint8), ("bits", ctypes.c_uint8), ("lanes", ctypes.c_uint16)]


class Tensor(ctypes.Structure):
    _fields_ = [
        ("data", ctypes.c_void_p),
        ("device", Device),
        ("ndim", ctypes.c_int32),
        ("dtype", DataType),
        ("shape", ctypes.POINTER(ctypes.c_int64)),
        ("strides", ctypes.POINTER(ctypes.c_int64)),
        ("byte_offset", ctypes.c_uint64),
    ]


Deleter: Any = ctypes.CFUNCTYPE(None, ctypes.c_void_p)


class Legacy(ctypes.Structure):
    _fields_ = [("tensor", Tensor), ("context", ctypes.c_void_p), ("deleter", Deleter)]


class Versioned(ctypes.Structure):
    _fields_ = [
        ("major", ctypes.c_uint32),
        ("minor", ctypes.c_uint32),
        ("context", ctypes.c_void_p),
        ("deleter", Deleter),
        ("flags", ctypes.c_uint64),
        ("tensor", Tensor),
    ]


_api = ctypes.pythonapi
_new = ctypes.PYFUNCTYPE(ctypes.py_object, ctypes.c_void_p, ctypes.c_char_p, ctypes.c_void_p)(
    ("PyCapsule_New", _api)
)
_is_valid = ctypes.PYFUNCTYPE(ctypes.c_int, ctypes.c_void_p, ctypes.c_char_p)(
    ("PyCapsule_IsValid", _api)
)
_pointer = ctypes.PYFUNCTYPE(ctypes.c_void_p, ctypes.py_object, ctypes.c_char_p)(
    ("PyCapsule_GetPointer", _api)
)
_rename = ctypes.PYFUNCTYPE(ctypes.c_int, ctypes.py_object, ctypes.c_char_p)(
    ("PyCapsule_SetName", _api)
)

LEGACY_NAME, VERSIONED_NAME = b"dltensor", b"dltensor_versioned"
USED_NAMES = (b"used_dltensor", b"used_dltensor_versioned")

# Names, callbacks and structures of forged exports stay for the whole run: a capsule keeps only a
# pointer to its name, and a library that is wrong may call a deleter late or twice.
_kept: list[Any] = []
_alive: dict[int, Export] = {}


def take(capsule: Any, name: bytes = LEGACY_NAME) -> int:
    """Consumes a capsule as an importer would, and returns its managed tensor."""
    pointer = _pointer(capsule, name)
    assert pointer
    used = USED_NAMES[name == VERSIONED_NAME]
    assert _rename(capsule, used) == 0
    return int(pointer)


def tensor_in(capsule: Any) -> Any:
    """The DLTensor of a capsule that nobody has used."""
    if _is_valid(id(capsule), LEGACY_NAME):
        return Legacy.from_address(_pointer(capsule, LEGACY_NAME)).tensor
    return Versioned.from_address(_pointer(capsule, VERSIONED_NAME)).tensor


def is_unused(capsule: Any) -> bool:
    """Whether a capsule still holds a managed tensor that somebody must free."""
    return any(_is_valid(id(capsule), name) for name in (LEGACY_NAME, VERSIONED_NAME))


def is_used(capsule: Any) -> bool:
    """Whether an importer has consumed a capsule."""
    return any(_is_valid(id(capsule), name) for name in USED_NAMES)


@Deleter  # type: ignore[untyped-decorator, unused-ignore]
def _count(pointer: int) -> None:
    _alive[pointer].deleted += 1


class Export:
    """One managed tensor over the memory of an ndarray; any field can be set before `capsule`.

    Attributes:
        tensor: the DLTensor inside.
        managed: the `Legacy` or `Versioned` structure.
        deleted: how often the deleter has been called.
        made: the capsules so far.
    """

    def __init__(self, array: np.ndarray[Any, Any] | None = None, versioned: bool = True) -> None:
        array = np.arange(6, dtype=np.float32).reshape(2, 3) if array is None else array
        self.array = array
        self.versioned = versioned
        self.deleted = 0
        self.made: list[Any] = []
        self.managed: Any = Versioned() if versioned else Legacy()
        self.tensor: Any = self.managed.tensor
        if versioned:
            self.managed.major, self.managed.minor = 1, 0
            self.managed.flags = 0 if array.flags.writeable else READ_ONLY
        self.managed.deleter = _count
        self.tensor.data = array.__array_interface__["data"][0]
        self.tensor.device.type, self.tensor.device.id = CPU, 0
        self.set_dtype(KIND_CODES.get(array.dtype.kind, OPAQUE), array.itemsize * 8)
        self.set_shape(array.shape, [step // array.itemsize for step in array.strides])
        _alive[ctypes.addressof(self.managed)] = self
        _kept.append(self)

    def set_dtype(self, code: int, bits: int, lanes: int = 1) -> Export:
        """Sets the element type."""
        dtype = self.tensor.dtype
        dtype.code, dtype.bits, dtype.lanes = code, bits, lanes
        return self

    def set_shape(self, shape: Any, strides: Any = None) -> Export:
        """Sets shape and strides (in elements); `None` leaves the strides NULL."""
        self.tensor.ndim = len(shape)
        self.tensor.shape = (ctypes.c_int64 * len(shape))(*shape)
        self.tensor.strides = None if strides is None else (ctypes.c_int64 * len(shape))(*strides)
        return self

    def capsule(self, name: bytes | None = None) -> Any:
        """A new capsule of the managed tensor.

        It has no destructor: `count` does a destructor's work. (One written in Python would run
        while an error is on its way, and spoil it.)
        """
        default = VERSIONED_NAME if self.versioned else LEGACY_NAME
        buffer = ctypes.create_string_buffer(name or default)
        _kept.append(buffer)
        address = ctypes.addressof(self.managed)
        capsule = _new(address, ctypes.cast(buffer, ctypes.c_char_p), None)
        self.made.append(capsule)
        return capsule

    @property
    def capsules(self) -> int:
        """How many capsules were made; each must lead to one call of the deleter."""
        return len(self.made)

    def count(self) -> int:
        """Deleter calls so far, with those of capsules that nobody used and nobody holds."""
        gc.collect()
        # Three references are ours: the list's, the variable's and the call's.
        unused = sum(is_unused(made) and sys.getrefcount(made) == 3 for made in self.made)
        return self.deleted + unused


class Producer:
    """A foreign object with nothing but `__dlpack__`, over a forged export."""

    def __init__(self, export: Export, device: tuple[int, int] = (CPU, 0)) -> None:
        self.export = export
        self.device = device
        self.requests: list[dict[str, Any]] = []

    def __dlpack_device__(self) -> tuple[int, int]:
        return self.device

    def __dlpack__(self, **request: Any) -> Any:
        self.requests.append(request)
        return self.export.capsule()


class LegacyProducer(Producer):
    """A producer from before version 1.0: `stream` is the only keyword it knows."""

    def __dlpack__(self, stream: Any = None) -> Any:  # type: ignore[override]
        return super().__dlpack__(stream=stream)


class BareProducer(Producer):
    """A producer that knows no keyword at all."""

    def __dlpack__(self) -> Any:  # type: ignore[override]
        return super().__dlpack__()


class ArrayProducer:
    """A foreign object that hands every request on to an ndarray, and is not one itself."""

    def __init__(self, array: np.ndarray[Any, Any]) -> None:
        self.array = array

    def __dlpack_device__(self) -> tuple[int, int]:
        return self.array.__dlpack_device__()

    def __dlpack__(self, **request: Any) -> Any:
        return self.array.__dlpack__(**request)
