"""The general routes of `asarray`, `from_dlpack` and `to_numpy`, written on the core's mechanisms.

In the native core they take over whatever its fast paths leave; without it they are the functions
themselves. Every refusal is worded here.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from dlferry import _decide, _gather, _move, _sequence, _torch
from dlferry._errors import UnsupportedInput
from dlferry._ingest import Found, Request, checked_request, described, ingested
from dlferry._native import core
from dlferry._policy import Fact, ReadOnly, Subject, refusal
from dlferry._torch import torch

if TYPE_CHECKING:
    from torch.types import Device


def asarray(
    obj: object,
    /,
    *,
    dtype: torch.dtype | None = None,
    device: Device = None,
    copy: bool | None = None,
    requires_grad: bool | None = None,
    readonly: ReadOnly = "copy",
) -> torch.Tensor:
    """Return `obj` as a tensor, without a copy wherever its memory can be shared.

    Args:
        obj: A tensor, ndarray, DLPack object or capsule, `__cuda_array_interface__`, buffer,
            `__array_interface__`, Arrow column without nulls, pandas object, object with
            `__array__`, number, or nested sequence of these. Any shape of up to 64 axes.
        dtype: The dtype of the result; by default that of an array or tensor, and torch's
            inference for numbers. Conversions follow C casts as in torch.
        device: Where the result is to be; by default where an array or tensor is, and torch's
            default device for numbers and sequences.
        copy: ``False`` shares the memory or raises; ``True`` never overlaps it; ``None`` shares
            where a tensor can represent the memory, and copies once where it cannot.
        requires_grad: ``None`` inherits from a tensor, and is ``False`` otherwise. `obj` itself is
            never changed.
        readonly: What to do with memory that must not be written: ``"copy"`` it, ``"share"`` it
            (and do not write to the result), or ``"error"``. A read-only mapped file is not copied
            by default.

    Returns:
        The tensor itself where nothing is to be done. A tensor on shared memory keeps the owner of
        the memory alive exactly as long as it lives. A copy is ordinary torch memory, with the
        strides of a dense source and contiguous otherwise.

    Raises:
        CopyRequired: `copy` or `readonly` forbids the copy that is needed; ``.reasons`` says why
            it is.
        UnsupportedInput: `obj` is not an array that a tensor could hold.
        BufferError: A malformed DLPack export.
        ValueError: Ragged input, or an argument's value.
        OverflowError: A Python number is outside the dtype.
        DriverUnavailable: `device` is a CUDA device, and there is none.

    Example:
        >>> import numpy as np, dlferry
        >>> image = np.zeros((2, 3), dtype=np.uint8)
        >>> tensor = dlferry.asarray(image)
        >>> tensor[0, 0] = 7
        >>> int(image[0, 0])
        7
    """
    request = checked_request(dtype, device, copy, readonly)
    if requires_grad is not None and not isinstance(requires_grad, bool):
        raise TypeError(f"requires_grad must be True, False or None, not {requires_grad!r}")
    result = None
    if request.device is not None and request.device.type == "cuda" and copy is not False:
        result = _move.little(obj, request.device, dtype)
    if result is None and _torch.is_tensor(obj):
        result = from_tensor(obj, request)
    elif result is None:
        found = ingested(obj, request)
        result = from_sequence(obj, request) if found is None else from_array(found, request)
    return with_grad(result, obj, requires_grad)


def from_dlpack(
    x: object,
    /,
    *,
    device: Device = None,
    copy: bool | None = None,
    readonly: ReadOnly = "copy",
) -> torch.Tensor:
    """Return a new tensor on the memory of a DLPack object, tensor, ndarray or capsule.

    Args:
        x: The producer. A capsule is used up, unless the call is refused.
        device: Where the result is to be; by default where `x` is.
        copy: As in `asarray`.
        readonly: As in `asarray`.

    Returns:
        A tensor object of its own, also for a tensor. The owner of the memory lives as long as it.

    Raises:
        CopyRequired: `copy` or `readonly` forbids the copy that is needed.
        BufferError: A malformed export, or a tensor that requires grad or is not strided.
        UnsupportedInput: `x` does not take part in DLPack.
        DriverUnavailable: `device` is a CUDA device, and there is none.

    Example:
        >>> import numpy as np, dlferry
        >>> dlferry.from_dlpack(np.arange(3)).shape
        torch.Size([3])
    """
    request = checked_request(None, device, copy, readonly)
    if _torch.is_tensor(x):
        return from_exported_tensor(x, request)
    found = ingested(x, request, dlpack_only=True)
    if found is None and hasattr(type(x), "__dlpack__"):
        raise BufferError(
            f"{described(x)} declined to export its memory through DLPack; use asarray, which "
            "tries other protocols, or a copy of it"
        )
    if found is None:
        raise UnsupportedInput(
            f"{described(x)} has no __dlpack__; pass an array library's array, or use asarray"
        )
    return from_array(found, request)


def from_array(found: Found, request: Request) -> torch.Tensor:
    """A tensor on memory that was found, shared or copied."""
    source = found.source
    if source.device != "cpu":
        return from_tensor(_gather.on_device(found), request, found)
    outcome = _decide.for_array(found, request)
    decision = outcome.enforce()
    if decision.action == "share":
        return core.share(source)
    if outcome.device.type == "cpu":
        return _gather.copied(source, outcome.dtype)
    return _move.moved(source, outcome.device, outcome.dtype)


def from_tensor(tensor: torch.Tensor, request: Request, found: Found | None = None) -> torch.Tensor:
    """A tensor as asked, by torch's own operations: the same object where nothing is to be done.

    `found` is the device memory that the tensor was made of.
    """
    outcome = _decide.for_tensor(tensor, request, found)
    if outcome.enforce().action == "share":
        return tensor
    return _move.moved(tensor, outcome.device, outcome.dtype)


def from_exported_tensor(tensor: torch.Tensor, request: Request) -> torch.Tensor:
    """What an export and an import of the tensor through DLPack would give."""
    if tensor.requires_grad:
        raise BufferError(
            "a tensor that requires grad is not exported through DLPack; pass tensor.detach()"
        )
    if not _torch.is_strided(tensor) or tensor.is_meta:
        raise BufferError(
            f"DLPack has no tensors like this {_torch.kind(tensor)} one; pass a dense one, as from "
            "tensor.to_dense() or tensor.dequantize()"
        )
    result = from_tensor(tensor, request)
    return result.detach().as_subclass(torch.Tensor) if result is tensor else result


def from_sequence(obj: object, request: Request) -> torch.Tensor:
    """A new tensor from numbers and sequences of them, or of arrays."""
    _decide.check_sequence(obj)
    if request.copy is False:
        raise refusal(Fact.SEQUENCE, Subject(described(obj), None, "cpu"))
    device = request.device or _torch.default_device()
    if isinstance(obj, (list, tuple)):
        stacked = _move.stacked(obj, device, request.dtype)
        if stacked is not None:
            return stacked
    tensor = _sequence.tensor_from(obj, request.dtype, lambda item: leaf(item, request.dtype))
    return tensor if device.type == "cpu" else _move.moved(tensor, device, tensor.dtype)


def leaf(item: object, dtype: torch.dtype | None) -> torch.Tensor | None:
    """An array-like inside a sequence, on its own memory where possible; it is only read.

    `dtype` matters to elements that torch lacks, and to nothing else.
    """
    if _torch.is_tensor(item):
        return item
    found = ingested(item, Request(dtype, None, None, "share"))
    if found is None:
        return None
    if found.source.device != "cpu":
        return _gather.on_device(found)
    return _gather.on_host(found.source)


def with_grad(result: torch.Tensor, obj: object, requires_grad: bool | None) -> torch.Tensor:
    """The result with the asked `requires_grad`, without ever changing `obj`."""
    if requires_grad is None or result.requires_grad is requires_grad:
        return result
    if not requires_grad:
        return result.detach()
    if not (result.is_floating_point() or result.is_complex()):
        raise ValueError(
            f"requires_grad=True needs floating point or complex elements, not {result.dtype}; "
            "pass dtype= as well"
        )
    return (result.detach() if result is obj else result).requires_grad_()
