"""Dense memory in another order than C's, which copies keep as torch's do."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, NamedTuple

from dlferry import _torch
from dlferry._torch import torch


class Layout(NamedTuple):
    """How the elements lie in memory without gaps."""

    strides: tuple[int, ...]
    """In elements."""
    order: tuple[int, ...]
    """The axes, the outermost in memory first."""


def layout_of(array: Any) -> Layout | None:
    """The layout of dense memory; None for that of C, and where there are gaps.

    None means that copies are contiguous. The strides of axes of length 1 are part of a layout.

    Args:
        array: A tensor, or what `core.ingest` found.
    """
    if not _torch.is_tensor(array):
        return _layout(array.shape, array.strides, array.dtype.itemsize)
    if array.is_contiguous() and 1 not in array.shape:
        return None
    return _layout(array.shape, array.stride(), 1)


def strides_of(array: Any) -> tuple[int, ...] | None:
    """The strides of a copy, in elements; None for those of C order."""
    layout = layout_of(array)
    return layout.strides if layout else None


def is_dense(tensor: torch.Tensor) -> bool:
    """Whether a tensor's elements lie in memory without gaps, in whatever order."""
    return tensor.is_contiguous() or layout_of(tensor) is not None


def repeats(array: Any) -> bool:
    """Whether two elements of a tensor or ndarray touch one place in memory.

    torch refuses to write to such memory only where a stride is 0, and does not look further.
    """
    if isinstance(array, torch.Tensor):
        return _repeats(array.shape, array.stride())
    strides = [abs(stride) for stride in array.strides]
    return _repeats([*array.shape, array.itemsize], [*strides, 1])


def _repeats(shape: Sequence[int], strides: Sequence[int]) -> bool:
    if 0 in shape:
        return False
    reach = 0  # of the axes with smaller strides
    is_nested = True
    for stride, length in sorted(zip(strides, shape, strict=True)):
        if length == 1:
            continue
        if stride == 0:
            return True
        is_nested = is_nested and stride > reach
        reach += stride * (length - 1)
    if is_nested:
        return False
    places: torch.Tensor = torch.zeros(reach + 1, dtype=torch.bool, device="cpu")
    places.as_strided(shape, strides).fill_(True)
    return int(places.count_nonzero()) < math.prod(shape)


def _layout(shape: Sequence[int], strides: Sequence[int], unit: int) -> Layout | None:
    """`unit` is the stride from one element to the next."""
    if 0 in shape:
        return None
    long = [axis for axis, length in enumerate(shape) if length > 1]
    order = sorted(long, key=lambda axis: -strides[axis])
    step = unit
    for axis in reversed(order):
        if strides[axis] != step:
            return None
        step *= shape[axis]
    kept, contiguous, step = list(strides), list(strides), unit
    for axis in reversed(range(len(shape))):
        contiguous[axis] = step
        if kept[axis] < 0 or kept[axis] % unit:  # of an axis with nowhere to go
            kept[axis] = step
        step *= shape[axis]
    if kept == contiguous:
        return None
    short = [axis for axis, length in enumerate(shape) if length == 1]
    return Layout(tuple(stride // unit for stride in kept), (*short, *order))
