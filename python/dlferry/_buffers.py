"""Objects that describe their own memory: the buffer protocol and `__array_interface__`."""

from __future__ import annotations

import ctypes
import operator
import struct
from typing import Any

import numpy as np

from dlferry._errors import UnsupportedInput
from dlferry._foreign import Array, Foreign, array_at, attribute, exported

NUMBERS = "?bBhHiIlLqQefd"
"""The formats of `struct` that stand for numbers, as NumPy understands them too."""
COMPLEX = {"Zf": 8, "Zd": 16, "Zg": 2 * np.dtype(np.longdouble).itemsize}
"""Formats that only NumPy knows, and the sizes of their items."""
BY_BYTES: dict[str, Any] = {"n": np.intp, "N": np.uintp, "g": np.longdouble}
"""Formats that NumPy does not know in each of their spellings."""


def from_buffer(obj: Any) -> Array | None:
    """The memory of a buffer, which stays exported as long as the array lives.

    Raises:
        UnsupportedInput: The items are no numbers.
        BufferError: The format contradicts the size of the items.
        ValueError: A memoryview that was released.
    """
    try:
        view = memoryview(obj)
    except (TypeError, BufferError):
        return None
    kind = view.format.lstrip("@=<>!^")
    if view.suboffsets:
        raise UnsupportedInput(
            "a buffer of pointers to its rows (suboffsets) is no block of memory; copy it first, "
            "as with memoryview(...).tobytes()"
        )
    if kind in BY_BYTES and view.c_contiguous and view.format[0] not in ">!":
        whole: Array = np.asarray(view.cast("B")).view(BY_BYTES[kind])
        return whole.reshape(view.shape or ())
    if kind not in COMPLEX and (len(kind) != 1 or kind not in NUMBERS):
        raise UnsupportedInput(
            f"a buffer of the format {view.format!r} has items that torch has no dtype for; pass "
            "numbers, or its bytes as memoryview(...).cast('B')"
        )
    # ctypes misstates the sizes of some, and NumPy knows.
    if not isinstance(view.obj, (ctypes.Array, ctypes._SimpleCData)):
        size = COMPLEX.get(kind) or struct.calcsize(view.format.replace("^", "="))
        if size != view.itemsize:
            raise BufferError(
                f"the buffer is malformed: items of the format {view.format!r} have {size} bytes, "
                f"and it says {view.itemsize}"
            )
    return np.asarray(view)


def from_array_interface(obj: object, never_copy: bool) -> Foreign | None:
    """The memory that an `__array_interface__` describes; None without.

    Args:
        obj: The object.
        never_copy: Find out whether the memory is made for each description anew.

    Raises:
        UnsupportedInput: It has a mask.
        BufferError: It is malformed.
    """
    interface = attribute(obj, "__array_interface__")
    if interface is None:
        return None

    def again() -> Array:
        return _described(obj, attribute(obj, "__array_interface__"))

    return exported(_described(obj, interface), again if never_copy else None)


def _described(obj: object, interface: Any) -> Array:
    """The array that an `__array_interface__` describes; its base keeps `obj` and the buffer."""
    malformed = "the __array_interface__ is malformed: "
    if not isinstance(interface, dict):
        raise BufferError(f"{malformed}it is a {type(interface).__name__}, not a dict")
    if interface.get("mask") is not None:
        raise UnsupportedInput(
            "an __array_interface__ with a mask: a tensor has none; fill or drop what is masked"
        )
    try:
        dtype = np.dtype(interface["typestr"])
        shape = tuple(operator.index(length) for length in interface["shape"])
        strides, data = interface.get("strides"), interface.get("data")
        if isinstance(data, tuple):
            address, readonly = operator.index(data[0]), bool(data[1])
            if any(length < 0 for length in shape) or address < 0:
                raise ValueError(f"a shape of {shape} at {address}")
            return array_at(address, dtype, shape, strides=strides, readonly=readonly, owner=obj)
        # The array of bytes keeps the buffer exported; the outer one checks that it fits in.
        buffer: Any = obj if data is None else data
        raw = np.asarray(memoryview(buffer).cast("B"))
        array: Array = np.ndarray(shape, dtype, raw, interface.get("offset", 0), strides)
        return array
    except (KeyError, IndexError, TypeError, ValueError, OverflowError) as error:
        raise BufferError(f"{malformed}{error!r}") from error
