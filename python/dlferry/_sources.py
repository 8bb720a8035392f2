"""Objects that are not arrays of NumPy's or DLPack's, brought to one: an ndarray on their memory.

Written once for both cores. Each function holds whatever keeps the memory alive in the base of the
array that it returns.
"""

from __future__ import annotations

import mmap
from typing import Any

import numpy as np

from dlferry._errors import UnsupportedInput


def plain_array(array: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
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
        return np.asarray(array.data)
    return np.asarray(array)


def array_from_protocols(obj: object) -> np.ndarray[Any, Any] | None:
    """An ndarray by the first protocol that `obj` has; None when it has none of them."""
    if isinstance(obj, (str, list, tuple, range, dict, set, frozenset)):
        return None
    view = _buffer(obj)
    if view is not None:
        return np.asarray(view)
    kind = type(obj)
    if hasattr(kind, "__array_interface__") or hasattr(kind, "__array__"):
        return plain_array(np.asarray(obj))
    return None


def _buffer(obj: object) -> memoryview | None:
    try:
        return memoryview(obj)  # type: ignore[arg-type]  # the very question is whether it may
    except (TypeError, BufferError):
        return None


def is_numpys_own(dtype: np.dtype[Any]) -> bool:
    """Whether the elements are NumPy's: those of ml_dtypes go over to torch as their bits."""
    return dtype.type.__module__ == "numpy"


def is_mapped_file(obj: object) -> bool:
    """Whether memory is the pages of a mapped file, by the chain of bases that hold it."""
    while obj is not None:
        if isinstance(obj, mmap.mmap):
            return True
        obj = obj.obj if isinstance(obj, memoryview) else getattr(obj, "base", None)
    return False


def is_immutable(kind: type) -> bool:
    """Whether arrays of this type must not be written, though their export does not say so."""
    return kind.__module__.partition(".")[0] in ("jax", "jaxlib")
