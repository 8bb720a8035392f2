"""Memory that ends where no one may read, and arrays of any layout in it."""

from __future__ import annotations

import ctypes
import mmap
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np

PAGE = mmap.PAGESIZE
SIZE = 1 << 20
NO_ACCESS = 0  # PROT_NONE
_libc = ctypes.CDLL(None, use_errno=True)
_libc.mprotect.argtypes = [ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int]


def _guarded(size: int) -> np.ndarray[Any, Any]:
    """Bytes between two pages that end the process when they are touched."""
    pages = np.frombuffer(mmap.mmap(-1, size + 2 * PAGE), np.uint8)
    start = pages.__array_interface__["data"][0]
    for address in (start, start + PAGE + size):
        assert _libc.mprotect(address, PAGE, NO_ACCESS) == 0
    return pages[PAGE : PAGE + size]


_memory = _guarded(SIZE)


class Axis(NamedTuple):
    """One axis of an array to be laid out: see `place`."""

    length: int
    step: int
    """How many times the pitch of the axes below it; negative runs backwards, 0 repeats."""


def place(
    axes: Sequence[Axis], order: Sequence[int], dtype: np.dtype[Any], gap: int, *, at_end: bool
) -> np.ndarray[Any, Any]:
    """An array of the given layout that touches the first or the last byte of the guarded memory.

    Args:
        axes: From the outermost to the innermost as the array shows them.
        order: The axes from the innermost to the outermost as they lie in memory.
        dtype: Of the elements, of any byte order.
        gap: Bytes between an element and the next.
        at_end: Whether the last element ends where the memory does; else the first begins there.
    """
    strides = [0] * len(axes)
    pitch = dtype.itemsize + gap
    low = high = 0
    for index in order:
        length, step = axes[index]
        strides[index] = pitch * step
        reach = (max(length, 1) - 1) * strides[index]
        low, high = low + min(reach, 0), high + max(reach, 0)
        pitch = max(pitch, abs(strides[index]) * max(length, 1))
    size = high - low + dtype.itemsize
    first = SIZE - size if at_end else 0
    assert first >= 0
    shape = tuple(axis.length for axis in axes)
    return np.ndarray(shape, dtype, _memory, first - low, tuple(strides))


def scramble(rng: np.random.Generator, a: np.ndarray[Any, Any]) -> None:
    """Fills an array with any bits at all (0 and 1 for bool)."""
    bits = rng.integers(0, 256, (*a.shape, a.itemsize), np.uint8)
    if a.dtype == np.bool_:
        bits &= 1
    a[...] = bits.view(a.dtype)[..., 0]
