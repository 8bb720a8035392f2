"""Objects that are no arrays of NumPy's or DLPack's, brought to one: an ndarray on their memory.

Written once for both cores. Whatever keeps the memory alive is in the base of the array.
"""

from __future__ import annotations

import mmap
from typing import Any

import numpy as np

from dlferry import _buffers, _pandas, _torch
from dlferry._foreign import ARROW, Foreign, Pieces, checked, exported
from dlferry._foreign import plain_array as plain_array
from dlferry._policy import Fact

MOST_BASES = 100
"""How far `is_mapped_file` looks: whoever has a `base` of another meaning may have it for ever."""


def memory_of(obj: object, *, never_copy: bool, counts: bool) -> Foreign | None:
    """The memory of an object by the first protocol that it has and does not decline.

    Args:
        obj: Anything but an ndarray, tensor or DLPack object.
        never_copy: Find out whether the memory is a copy made for this call, and make none.
        counts: Whether Arrow's dates and times are taken, as the integers they are stored as.

    Returns:
        None when `obj` has none of the protocols.

    Raises:
        UnsupportedInput: Its elements are none that a tensor could hold, or some are missing.
        BufferError: What it exports is malformed.
    """
    if isinstance(obj, (str, list, tuple, range, dict, set, frozenset, type)):
        return None
    if _pandas.is_pandas(type(obj)):
        return _pandas.memory_of(obj, never_copy)
    array = _buffers.from_buffer(obj)
    if array is not None:
        return Foreign(array)
    return (
        _buffers.from_array_interface(obj, never_copy)
        or _from_arrow(obj, counts)
        or _from_dunder_array(obj, never_copy)
    )


def _from_arrow(obj: object, counts: bool) -> Foreign | None:
    if not any(hasattr(type(obj), name) for name in ARROW):
        return None
    from dlferry import _arrow  # its structures take a tenth of the whole import

    return _arrow.memory_of(obj, counts)


def _from_dunder_array(obj: Any, never_copy: bool) -> Foreign | None:
    if not hasattr(type(obj), "__array__"):
        return None
    try:
        made = obj.__array__(copy=False) if never_copy else obj.__array__()
    except (BufferError, NotImplementedError):
        return None
    except TypeError as error:
        if not never_copy or type(error) is not TypeError:
            raise
        return exported(obj.__array__(), obj.__array__)  # without the keyword, as before NumPy 2
    except ValueError:  # how NumPy has it say that it cannot but copy
        if not never_copy:
            raise
        unread = _unread(obj)
        return unread or Foreign(checked(obj.__array__()), Fact.PRODUCER_COPY)
    return exported(made, (lambda: obj.__array__(copy=False)) if never_copy else None)


def _unread(obj: Any) -> Foreign | None:
    """An object that can only be read, as from a file, by what it says of itself; to be refused."""
    declared = getattr(obj, "dtype", None)
    dtype = _torch.dtypes().get(declared.name) if isinstance(declared, np.dtype) else None
    if dtype is None:
        return None
    return Foreign(Pieces(dtype, (), (), Fact.PRODUCER_COPY, lambda: iter(())))


def is_numpys_own(dtype: np.dtype[Any]) -> bool:
    """Whether the elements are NumPy's: those of ml_dtypes go over to torch as their bits."""
    return dtype.type.__module__ == "numpy"


def is_mapped_file(obj: object) -> bool:
    """Whether memory is the pages of a mapped file, by the chain of bases that hold it."""
    for _ in range(MOST_BASES):
        if isinstance(obj, mmap.mmap):
            return True
        if obj is None:
            break
        obj = obj.obj if isinstance(obj, memoryview) else getattr(obj, "base", None)
    return False


def is_immutable(kind: type) -> bool:
    """Whether arrays of this type must not be written, though their export does not say so."""
    library = kind.__module__.partition(".")[0]
    return library in ("jax", "jaxlib") or (
        library == "pyarrow" and kind.__name__.endswith("Array")
    )
