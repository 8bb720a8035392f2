"""Numbers, nested lists and tuples, and lists of arrays -> one tensor: scan, then fill.

The dtype is torch's: numbers count as bool, int64, the default dtype or its complex partner, arrays
as what they are, and all are promoted as torch promotes dtypes. uint16, uint32 and uint64, which
torch does not promote, follow NumPy.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from collections.abc import Set as AbstractSet
from typing import cast

import numpy as np

from dlferry import _fresh, _numbers, _torch
from dlferry._errors import UnsupportedInput
from dlferry._numbers import Number, Shape
from dlferry._torch import torch

MAX_DIMS = 64
NO_ELEMENTS = "a meta tensor has no elements; pass one that has memory"
NUMPY_NAMES = set(_torch.DTYPE_NAMES[:9]) | {
    "float16", "float32", "float64", "complex64", "complex128",
}  # fmt: skip


class Leaves:
    """What a scan finds: the elements in order, all numbers or arrays of one shape each."""

    def __init__(self, as_tensor: Callable[[object], torch.Tensor | None]) -> None:
        self.as_tensor = as_tensor
        self.values: list[Number | torch.Tensor] = []
        self.kinds: set[torch.dtype] = set()
        self.has_tensors = False
        self.needs_torch = False
        """A leaf requires grad, or wraps another tensor: only torch's own operations will do."""

    def tensors(self) -> list[torch.Tensor]:
        """The leaves that are arrays."""
        return [value for value in self.values if _torch.is_tensor(value)]

    def numbers(self) -> list[Number]:
        """The other ones."""
        return [value for value in self.values if isinstance(value, (int, float, complex))]


def is_sequence(obj: object) -> bool:
    """Whether `obj` is a number or a sequence that `tensor_from` takes, by its type alone."""
    if isinstance(obj, (bool, int, float, complex, np.generic, list, tuple, range)):
        return True
    if isinstance(obj, (str, bytes, bytearray, Mapping, AbstractSet, type)):
        return False
    kind = type(obj)
    return issubclass(kind, Sequence) or all(
        hasattr(kind, name) for name in ("__getitem__", "__len__", "__iter__")
    )


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
    leaves, shape = scan(obj, as_tensor)
    return joined(leaves, shape, dtype or promoted(leaves.kinds), torch.device("cpu"))


def scan(
    obj: object, as_tensor: Callable[[object], torch.Tensor | None], place: str = "obj"
) -> tuple[Leaves, Shape]:
    """The leaves of a number or nested sequence, and the shape that they make.

    Args:
        obj: What `is_sequence` accepts.
        as_tensor: As for `tensor_from`.
        place: What errors call `obj`.

    Raises:
        ValueError, UnsupportedInput: As `tensor_from`.
    """
    leaves = Leaves(as_tensor)
    return leaves, _scan(obj, place, 0, leaves)


def joined(leaves: Leaves, shape: Shape, dtype: torch.dtype, device: torch.device) -> torch.Tensor:
    """One new tensor of all leaves.

    Raises:
        OverflowError: A Python number is outside the dtype.
        TypeError: A Python number is complex, and the dtype is not.
        ValueError: An array has changed since the scan.
        UnsupportedInput: An array has no elements.
    """
    tensors = leaves.tensors() if leaves.has_tensors else []
    numbers = len(leaves.values) - len(tensors)
    if tensors and numbers + sum(tensor.numel() for tensor in tensors) != math.prod(shape):
        raise ValueError(
            "an array of the sequence was changed while the others were converted; convert them "
            "one by one first"
        )
    if device.type != "meta" and any(tensor.is_meta for tensor in tensors):
        raise UnsupportedInput(NO_ELEMENTS)
    if leaves.needs_torch or device.type != "cpu":
        return _stacked(leaves, shape, dtype, device)
    if leaves.has_tensors:
        return _filled(leaves, shape, dtype)
    return _numbers.tensor_of(cast("list[Number]", leaves.values), shape, dtype)


def _scan(obj: object, place: str, depth: int, leaves: Leaves) -> Shape:
    """The shape of `obj`; its leaves are appended in order."""
    if isinstance(obj, (bool, int, float, complex)) and not isinstance(obj, np.generic):
        leaves.values.append(obj)
        leaves.kinds.add(_numbers.dtype_of(obj))
        return ()
    tensor = None if isinstance(obj, (list, tuple, range)) else leaves.as_tensor(obj)
    if tensor is not None:
        if not _torch.is_strided(tensor):
            raise UnsupportedInput(
                f"{place} is a {_torch.kind(tensor)} tensor; pass a dense one, as from "
                "tensor.to_dense(), tensor.dequantize() or tensor.unbind()"
            )
        leaves.values.append(tensor)
        leaves.kinds.add(tensor.dtype)
        leaves.has_tensors = True
        leaves.needs_torch |= tensor.requires_grad or not _torch.is_readable(tensor)
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


def promoted(kinds: Iterable[torch.dtype]) -> torch.dtype:
    """The dtype that holds all of these; torch's default dtype for none."""
    if not kinds:
        return torch.get_default_dtype()
    ordered = sorted(kinds, key=str)
    result = ordered[0]
    for kind in ordered[1:]:
        result = promote(result, kind)
    return result


def promote(a: torch.dtype, b: torch.dtype) -> torch.dtype:
    """The dtype that holds both: torch's answer, or NumPy's where torch has none.

    Raises:
        UnsupportedInput: Neither has one, as for float8 beside anything else.
    """
    try:
        return torch.promote_types(a, b)
    except RuntimeError:
        names = {_torch.dtype_name(a), _torch.dtype_name(b)}
        if names <= NUMPY_NAMES:
            return _torch.dtypes()[np.result_type(*names).name]
        raise UnsupportedInput(
            f"torch promotes {a} and {b} to no common dtype; pass the dtype= of the result"
        ) from None


def _filled(leaves: Leaves, shape: Shape, dtype: torch.dtype) -> torch.Tensor:
    out = _fresh.empty(shape, dtype)
    flat = out.view(-1)
    start = 0
    for value in leaves.values:
        tensor = _tensor(value, dtype)
        end = start + tensor.numel()
        _torch.fill(flat[start:end].view(tensor.shape), tensor)
        start = end
    return out


def _stacked(
    leaves: Leaves, shape: Shape, dtype: torch.dtype, device: torch.device
) -> torch.Tensor:
    """By torch's own operations, so that the result stays differentiable."""
    rows = [_torch.converted(_tensor(value, dtype), device, dtype) for value in leaves.values]
    flat: torch.Tensor = torch.cat([row.reshape(-1) for row in rows])
    return flat.reshape(shape)


def _tensor(value: Number | torch.Tensor, dtype: torch.dtype) -> torch.Tensor:
    if isinstance(value, (bool, int, float, complex)):
        return _numbers.tensor_of([value], (), dtype)
    return value
