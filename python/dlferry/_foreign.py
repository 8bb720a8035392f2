"""What is found in objects that are no arrays of NumPy's or DLPack's: memory, or pieces of it."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from dlferry._errors import UnsupportedInput
from dlferry._policy import Fact

if TYPE_CHECKING:
    from dlferry._torch import torch

Array = np.ndarray[Any, Any]
ARROW = ("__arrow_c_array__", "__arrow_c_stream__")
"""The protocols of Arrow's columns, in the order in which they are tried."""


class Pieces(NamedTuple):
    """Elements that only a copy can make a tensor of: packed bits, or several blocks of memory.

    Has what the core's `Source` says of itself.
    """

    dtype: torch.dtype
    shape: tuple[int, ...]
    strides: tuple[int, ...]
    facts: int
    arrays: Callable[[], Iterator[Array]]
    """The elements in order, as one-dimensional arrays; called at most once."""
    device: str = "cpu"


class Foreign(NamedTuple):
    """What a protocol handed over."""

    memory: Array | Pieces
    facts: int = 0
    """What an array alone does not show, as bits of `Fact`."""


class _Described:
    """Describes memory to NumPy, and keeps its owner."""

    def __init__(self, owner: object, interface: dict[str, Any]) -> None:
        self.base = owner
        self.__array_interface__ = interface


def array_at(
    address: int,
    dtype: np.dtype[Any],
    shape: tuple[int, ...],
    *,
    strides: tuple[int, ...] | None = None,
    readonly: bool,
    owner: object,
) -> Array:
    """An ndarray on memory at an address, which lives as long as its `owner`.

    Raises:
        BufferError: There are elements, and the address is null.
        ValueError: NumPy finds something wrong with the description.
    """
    if 0 in shape:
        return np.empty(shape, dtype)
    if address == 0:
        raise BufferError(f"the memory of {shape} elements is at a null address")
    interface = {
        "version": 3,
        "shape": shape,
        "strides": strides,
        "typestr": dtype.str,
        "data": (address, readonly),
    }
    return np.asarray(_Described(owner, interface))


def attribute(obj: object, name: str) -> Any:
    """A protocol's attribute, of the type or of the object itself; None when there is none."""
    if hasattr(type(obj), name) or name in getattr(obj, "__dict__", ()):
        return getattr(obj, name, None)
    return None


def exported(made: object, again: Callable[[], object] | None) -> Foreign:
    """What a protocol gave.

    Args:
        made: An ndarray; anything else is malformed.
        again: Asks a second time, to find out whether the array is a copy: memory that is handed
            out twice is the object's own.

    Raises:
        BufferError: It is no ndarray.
        UnsupportedInput: It is masked somewhere.
    """
    array = checked(made)
    if again is None or _same_place(array, checked(again())):
        return Foreign(array)
    return Foreign(array, Fact.PRODUCER_COPY)


def checked(made: object) -> Array:
    """A protocol's result as a plain ndarray."""
    if not isinstance(made, np.ndarray):
        raise BufferError(f"__array__ returned a {type(made).__name__}, not an ndarray")
    return plain_array(made)


def _same_place(one: Array, other: Array) -> bool:
    return one.size == 0 or one.ctypes.data == other.ctypes.data


HELD_IN_PLACE = frozenset("biufcmMV")
"""The kinds of NumPy dtypes whose elements lie in the array; ml_dtypes' are V, too."""


def plain_array(array: Array) -> Array:
    """An instance of an ndarray subclass as an ndarray of its own class, on the same memory.

    Raises:
        UnsupportedInput: `array` is masked somewhere, and the mask would vanish.
    """
    if isinstance(array, np.ma.MaskedArray):
        if np.ma.is_masked(array):
            raise UnsupportedInput(
                "a masked array with masked elements: a tensor has no mask; pass array.filled(...) "
                "or array.compressed(), and array.mask beside it"
            )
        array = array.data
    plain = np.asarray(array)
    is_kept = plain is array or plain.base is array
    if is_kept or plain.dtype.kind not in HELD_IN_PLACE or plain.dtype.names:
        return plain
    # NumPy bases a view on what it is a view of, and lets go of what stood in between.
    place, element = plain.ctypes.data, np.dtype(plain.dtype.str)
    kept = array_at(
        place, element, plain.shape, strides=plain.strides, readonly=not plain.flags.writeable,
        owner=array,
    )  # fmt: skip
    return kept.view(plain.dtype)
