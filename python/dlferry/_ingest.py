"""What a call asks for, and the memory that is found in the object it is given."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np

from dlferry import _cuda_array, _sources, _torch
from dlferry._errors import UnsupportedInput
from dlferry._foreign import Pieces
from dlferry._native import core
from dlferry._policy import Fact, ReadOnly
from dlferry._torch import torch

Array = np.ndarray[Any, Any]


class Request(NamedTuple):
    """What a call asks for, checked."""

    dtype: torch.dtype | None
    device: torch.device | None
    copy: bool | None
    readonly: ReadOnly


def checked_request(dtype: object, device: object, copy: object, readonly: Any) -> Request:
    """The arguments that every conversion takes.

    Raises:
        TypeError: An argument of the wrong type.
        ValueError: `readonly` or `device` is not one there is.
    """
    if dtype is not None and not isinstance(dtype, torch.dtype):
        raise TypeError(f"dtype must be a torch.dtype such as torch.float32, not {dtype!r}")
    if copy is not None and not isinstance(copy, bool):
        raise TypeError(f"copy must be True, False or None, not {copy!r}")
    if readonly not in ("copy", "share", "error"):
        kind = ValueError if isinstance(readonly, str) else TypeError
        raise kind(f"readonly must be 'copy', 'share' or 'error', not {readonly!r}")
    return Request(
        dtype,
        None if device is None else _torch.device(device),
        copy,
        readonly,
    )


class Found(NamedTuple):
    """Memory that was found in an object: the core's source, and where it came from."""

    source: Any
    origin: object
    facts: int = 0
    """What the source does not know of itself, as bits of `Fact`."""


def check_dtype(dtype: torch.dtype | None) -> None:
    """Raise `UnsupportedInput` for a dtype that only torch's own tensors have."""
    if dtype is not None and _torch.dtype_name(dtype) not in _torch.dtypes():
        raise UnsupportedInput(
            f"nothing but a tensor is converted to {dtype}, whose elements are quantized or "
            "packed; pass another dtype=, and convert the tensor with torch"
        )


def ingested(obj: object, request: Request, *, dlpack_only: bool = False) -> Found | None:
    """The memory of an array-like; None for numbers and sequences.

    Raises:
        UnsupportedInput: Its elements, or those that are asked for, are not to be had.
        BufferError: It is malformed.
    """
    check_dtype(request.dtype)
    if isinstance(obj, core.Source):  # exported before, by the fast path that calls this one
        return Found(obj, obj.origin)
    array = obj
    if isinstance(obj, np.ndarray) and type(obj) is not np.ndarray:
        array = _sources.plain_array(obj)
    if isinstance(array, np.ndarray):
        return _in_torch_dtype(array, obj, request)
    if isinstance(obj, np.generic):
        return None if dlpack_only else _in_torch_dtype(np.asarray(obj), obj, request)
    source = core.ingest(obj, request.copy is False)
    if source is not None:
        return Found(source, obj)
    return None if dlpack_only else _from_protocols(obj, request)


def _from_protocols(obj: object, request: Request) -> Found | None:
    device_array = _cuda_array.memory_of(obj)
    if device_array is not None:
        return Found(device_array, obj)
    foreign = _sources.memory_of(
        obj, never_copy=request.copy is False, counts=request.dtype is not None
    )
    if foreign is None:
        return None
    if isinstance(foreign.memory, Pieces):
        return Found(foreign.memory, obj)
    found = _in_torch_dtype(foreign.memory, obj, request)
    mapped = Fact.MAPPED_FILE * _sources.is_mapped_file(foreign.memory)
    return found._replace(facts=found.facts | foreign.facts | mapped)


def _in_torch_dtype(array: Array, origin: object, request: Request) -> Found:
    """The memory of an ndarray; elements that torch lacks are converted where `dtype=` says so.

    Raises:
        UnsupportedInput: torch has no such elements.
    """
    source = core.ingest(array, False)
    if source is not None and source.dtype is not None:
        return Found(source, origin)
    if request.dtype is not None and array.dtype.kind in "mM":
        # The raw count, in the array's own byte order.
        return Found(core.ingest(array.view(f"{array.dtype.str[0]}i8"), False), origin)
    if request.dtype is not None and array.dtype.char in "gG":
        narrow = array.astype(np.complex128 if array.dtype.kind == "c" else np.float64)
        return Found(core.ingest(narrow, False), origin, Fact.DTYPE)
    raise UnsupportedInput(f"{described(origin)} {_unsupported_dtype(array.dtype)}")


def _unsupported_dtype(dtype: np.dtype[Any]) -> str:
    remedies = {
        "M": "pass dtype=torch.int64 for the raw count",
        "m": "pass dtype=torch.int64 for the raw count",
        "f": "pass dtype=torch.float64, which is narrower",
        "c": "pass dtype=torch.complex128, which is narrower",
        "O": "pass an array of numbers, as from array.astype(float)",
        "U": "pass numbers: parse the strings first",
        "S": "pass numbers: parse the strings, or view the bytes as uint8",
        "T": "pass numbers: parse the strings first",
        "V": "pass one of its fields, as array['name']",
    }
    remedy = remedies.get(dtype.kind, "pass an array of numbers")
    if dtype.names is None and dtype.kind == "V":
        remedy = "view it as a dtype that torch has, or convert it with astype"
    return f"holds elements ({dtype}) that torch has no dtype for; {remedy}"


def described(obj: object) -> str:
    """An object for an error: its type, and its dtype where it has one."""
    kind = type(obj)
    name = kind.__name__ if kind.__module__ == "builtins" else f"{kind.__module__}.{kind.__name__}"
    dtype = getattr(obj, "dtype", None)
    article = "an" if name[:1].lower() in "aeiou" else "a"
    return f"{article} {name}" + (f" of dtype {dtype}" if dtype is not None else "")
