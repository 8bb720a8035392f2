"""Numbers, nested lists and tuples, and lists of arrays -> one tensor: scan, then fill.

The dtype is torch's: numbers count as bool, int64, the default dtype or its complex partner, arrays
as what they are, and all are promoted as torch promotes dtypes. uint16, uint32 and uint64, which
torch does not promote, follow NumPy.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Set
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, cast

import numpy as np

from dlferry import _torch
from dlferry._errors import UnsupportedInput

if TYPE_CHECKING:
    import torch

MAX_DIMS = 64
Number = bool | int | float | complex
Shape = tuple[int, ...]


@dataclass
class Leaves:
    """What a scan finds: the elements in order, all numbers or arrays of one shape each."""

    as_tensor: Callable[[object], torch.Tensor | None]
    values: list[Number | torch.Tensor] = field(default_factory=list)
    kinds: set[torch.dtype] = field(default_factory=set)
    has_tensors: bool = False
    needs_grad: bool = False


def is_sequence(obj: object) -> bool:
    """Whether `obj` is a number or a sequence that `tensor_from` takes, by its type alone."""
    if isinstance(obj, (bool, int, float, complex, np.generic, list, tuple, range)):
        return True
    if isinstance(obj, (str, bytes, bytearray, Mapping, Set, type)):
        return False
    return hasattr(type(obj), "__getitem__") and hasattr(type(obj), "__len__")


def tensor_from(
    obj: object,
    dtype: torch.dtype | None,
    as_tensor: Callable[[object], torch.Tensor | None],
) -> torch.Tensor:
    """A new CPU tensor with the elements of a number or nested sequence.

    Args:
        obj: What `is_sequence` accepts.
        dtype: Of the result; inferred when None.
        as_tensor: Makes a tensor of an array-like leaf; None for what is not one.

    Raises:
        ValueError: Ragged or too deeply nested input; the text names the place.
        UnsupportedInput: A leaf is neither a number nor an array.
        OverflowError: A Python number is outside the dtype.
    """
    leaves = Leaves(as_tensor)
    shape = _scan(obj, "obj", 0, leaves)
    if dtype is None:
        dtype = _promoted(leaves.kinds)
    if leaves.needs_grad:
        return _stacked(leaves, shape, dtype)
    if leaves.has_tensors:
        return _filled(leaves, shape, dtype)
    return _numbers(cast("list[Number]", leaves.values), shape, dtype)


def _scan(obj: object, place: str, depth: int, leaves: Leaves) -> Shape:
    """The shape of `obj`; its leaves are appended in order."""
    if isinstance(obj, (bool, int, float, complex)) and not isinstance(obj, np.generic):
        leaves.values.append(obj)
        leaves.kinds.add(_dtype_of_number(obj))
        return ()
    tensor = None if isinstance(obj, (list, tuple, range)) else leaves.as_tensor(obj)
    if tensor is not None:
        leaves.values.append(tensor)
        leaves.kinds.add(tensor.dtype)
        leaves.has_tensors = True
        leaves.needs_grad |= tensor.requires_grad
        return tuple(tensor.shape)
    if not is_sequence(obj):
        raise UnsupportedInput(
            f"{place} is {_article(type(obj).__name__)}, which is neither a number nor an array; "
            "pass numbers, arrays, or nested lists of them"
        )
    if depth == MAX_DIMS:
        raise ValueError(f"the input is nested deeper than {MAX_DIMS} levels at {place}")
    return _scan_items(list(cast("list[object]", obj)), place, depth, leaves)


def _scan_items(items: list[object], place: str, depth: int, leaves: Leaves) -> Shape:
    first: Shape = ()
    for index, item in enumerate(items):
        shape = _scan(item, f"{place}[{index}]", depth + 1, leaves)
        if index == 0:
            first = shape
        elif shape != first:
            raise ValueError(
                f"ragged input: {place}[{index}] has shape {shape}, and {place}[0] has {first}; "
                "pad the items to one shape, or convert them one by one"
            )
    return (len(items), *first)


def _article(name: str) -> str:
    return f"{'an' if name[:1].lower() in 'aeiou' else 'a'} {name}"


def _dtype_of_number(value: Number) -> torch.dtype:
    torch = _torch.module()
    if isinstance(value, bool):
        return cast("torch.dtype", torch.bool)
    if isinstance(value, int):
        return cast("torch.dtype", torch.int64)
    default = torch.get_default_dtype()
    return cast("torch.dtype", default if isinstance(value, float) else default.to_complex())


def _promoted(kinds: set[torch.dtype]) -> torch.dtype:
    torch = _torch.module()
    if not kinds:
        return cast("torch.dtype", torch.get_default_dtype())
    ordered = sorted(kinds, key=str)
    result = ordered[0]
    for kind in ordered[1:]:
        result = promote(result, kind)
    return result


def promote(a: torch.dtype, b: torch.dtype) -> torch.dtype:
    """The dtype that holds both: torch's answer, or NumPy's where torch has none."""
    try:
        return cast("torch.dtype", _torch.module().promote_types(a, b))
    except RuntimeError:
        names = _torch.dtype_name(a), _torch.dtype_name(b)
        return _torch.dtypes()[np.promote_types(*names).name]


def _numbers(values: list[Number], shape: Shape, dtype: torch.dtype) -> torch.Tensor:
    torch = _torch.module()
    try:
        flat: torch.Tensor = torch.tensor(values, dtype=dtype, device="cpu")
    except (RuntimeError, ValueError, OverflowError):
        _check_range(values, dtype)
        raise
    _check_range(values, dtype)
    return flat.reshape(shape)


def _check_range(values: list[Number], dtype: torch.dtype) -> None:
    """Raise OverflowError for the first number that `dtype` cannot hold."""
    if dtype == _torch.module().bool or not values:
        return
    holds = _holds_float(dtype) if dtype.is_floating_point or dtype.is_complex else _holds_int(dtype)
    for value in values:
        if isinstance(value, complex) and not dtype.is_complex:
            raise TypeError(
                f"the complex number {value!r} does not convert to {dtype}; pass its real part"
            )
        if not holds(value):
            raise OverflowError(
                f"the number {value!r} is outside {dtype}; pass a wider dtype="
            )


def _holds_float(dtype: torch.dtype) -> Callable[[Any], bool]:
    torch = _torch.module()
    limit = torch.finfo(dtype).max

    def holds(value: Any) -> bool:
        try:
            parts = (value.real, value.imag) if isinstance(value, complex) else (float(value),)
        except OverflowError:
            return False
        return all(not math.isfinite(part) or abs(part) <= limit for part in parts)

    return holds


def _holds_int(dtype: torch.dtype) -> Callable[[Any], bool]:
    limits = _torch.module().iinfo(dtype)
    low, high = limits.min, limits.max

    def holds(value: Any) -> bool:
        if isinstance(value, float):
            return math.isfinite(value) and low <= math.trunc(value) <= high
        return bool(low <= value <= high)

    return holds


def _filled(leaves: Leaves, shape: Shape, dtype: torch.dtype) -> torch.Tensor:
    torch = _torch.module()
    out: torch.Tensor = torch.empty(shape, dtype=dtype, device="cpu")
    rows = out.reshape(len(leaves.values), *_leaf_shape(leaves))
    for row, value in zip(rows, leaves.values, strict=True):
        _torch.fill(row, _tensor(value, dtype))
    return out


def _stacked(leaves: Leaves, shape: Shape, dtype: torch.dtype) -> torch.Tensor:
    """By torch's own operations, so that the result stays differentiable."""
    torch = _torch.module()
    cpu = torch.device("cpu")
    rows = [_torch.converted(_tensor(value, dtype), cpu, dtype) for value in leaves.values]
    stacked: torch.Tensor = torch.stack(rows)
    return stacked.reshape(shape)


def _leaf_shape(leaves: Leaves) -> Shape:
    first = leaves.values[0]
    return () if isinstance(first, (bool, int, float, complex)) else tuple(first.shape)


def _tensor(value: Number | torch.Tensor, dtype: torch.dtype) -> torch.Tensor:
    if isinstance(value, (bool, int, float, complex)):
        return _numbers([value], (), dtype)
    return value
