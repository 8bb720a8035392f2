"""Python's own numbers -> elements of a tensor."""

from __future__ import annotations

import math
import sys
from typing import Any, cast

from dlferry._torch import torch

Number = bool | int | float | complex
Shape = tuple[int, ...]


def dtype_of(value: Number) -> torch.dtype:
    """The dtype that torch infers for a number."""
    if isinstance(value, bool):
        return torch.bool
    if isinstance(value, int):
        return torch.int64
    default = torch.get_default_dtype()
    return default if isinstance(value, float) else default.to_complex()


def tensor_of(values: list[Number], shape: Shape, dtype: torch.dtype) -> torch.Tensor:
    """A new CPU tensor of Python numbers.

    Raises:
        OverflowError: A number is outside the dtype.
        TypeError: A number is complex, and the dtype is not.
    """
    plain = converted(values, dtype)
    parts = dtype
    if dtype == torch.complex32:  # which torch warns about when it is asked for by name
        plain = [part for value in plain for part in (value.real, value.imag)]
        parts = torch.float16
    flat: torch.Tensor = torch.tensor(plain, dtype=parts, device="cpu")
    return flat.view(dtype).reshape(shape)


def converted(values: list[Number], dtype: torch.dtype) -> list[Any]:
    """The numbers as Python's own that torch takes for elements of a dtype.

    Raises:
        OverflowError, TypeError: As `tensor_of`.
    """
    if not dtype.is_complex and any(isinstance(value, complex) for value in values):
        raise TypeError(f"complex numbers do not convert to {dtype}; pass their real parts")
    if dtype.is_floating_point or dtype.is_complex:
        return [_as_float(value, dtype) for value in values]
    if dtype == torch.bool:
        return [bool(value) for value in values]
    return _as_integers(values, dtype)


def _as_float(value: Number, dtype: torch.dtype) -> float | complex:
    try:
        converted = value if isinstance(value, complex) else float(value)
    except OverflowError:
        raise _outside(value, dtype) from None
    limit = float_limit(dtype)
    for part in (converted.real, converted.imag):
        if limit <= abs(part) < math.inf:
            raise _outside(value, dtype)
    return converted


def float_limit(dtype: torch.dtype) -> float:
    """The smallest magnitude that rounds to something beyond the largest finite element."""
    info = torch.finfo(dtype)
    largest = float(info.max)
    if largest == sys.float_info.max:
        return math.inf
    last_place = 2.0 ** math.floor(math.log2(largest)) * float(info.eps)
    return largest + last_place / 2


def _as_integers(values: list[Number], dtype: torch.dtype) -> list[int]:
    """Truncated towards zero, as a C cast does; each must fit."""
    limits = torch.iinfo(dtype)
    integers = []
    for value in values:
        if isinstance(value, float) and not math.isfinite(value):
            raise _outside(value, dtype)
        integer = int(cast("float", value))
        if not limits.min <= integer <= limits.max:
            raise _outside(value, dtype)
        integers.append(integer)
    return integers


def _outside(value: Number, dtype: torch.dtype) -> OverflowError:
    huge = isinstance(value, int) and abs(value) >= 1 << 256
    shown = "a huge integer" if huge else repr(value)
    return OverflowError(f"{shown} is outside {dtype}; pass a wider dtype=")
