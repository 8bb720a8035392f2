"""The general route of `stack`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from dlferry import _convert, _layout, _move, _sequence, _torch
from dlferry._errors import UnsupportedInput
from dlferry._ingest import Request, check_dtype, checked_request, described
from dlferry._torch import torch

if TYPE_CHECKING:
    from collections.abc import Sequence

    from torch.types import Device


def stack(
    arrays: Sequence[Any],
    /,
    *,
    dtype: torch.dtype | None = None,
    device: Device = None,
    out: torch.Tensor | None = None,
) -> torch.Tensor:
    """Stack arrays along a new leading axis, in one pass over their memory.

    Args:
        arrays: A list, tuple or other sequence, not empty, of arrays of one shape: tensors,
            ndarrays, or whatever else `asarray` takes, mixed as you like and of any strides.
        dtype: Of the result; by default the dtypes of the arrays, promoted as torch promotes them.
            Conversions follow C casts as in torch.
        device: Where the result is to be; by default where the arrays are, and torch's default
            device for Python numbers.
        out: A tensor of the shape ``(len(arrays), *shape)`` to write into, on any device. Its dtype
            must hold the promoted one in torch's sense (``torch.can_cast``), unless `dtype` names
            it. It may overlap the arrays. Whatever is refused leaves it as it was.

    Returns:
        A new contiguous tensor, or `out`. Arrays that require grad are stacked by torch's own
        operations, and the result is differentiable.

    Raises:
        ValueError: No array at all; shapes that differ, with the place; arrays on several devices
            and no `device`; an `out` of another shape, or that contradicts `dtype` or `device`,
            has elements that share memory, would take part in autograd, or is for inference mode
            alone.
        UnsupportedInput: `arrays` is no sequence, or holds something that is no array.
        OverflowError: A Python number is outside the dtype.
        DriverUnavailable: `device` is a CUDA device, and there is none.

    Example:
        >>> import numpy as np, dlferry
        >>> images = [np.zeros((3, 32, 32), dtype=np.uint8) for _ in range(8)]
        >>> dlferry.stack(images).shape
        torch.Size([8, 3, 32, 32])
    """
    request = checked_request(dtype, device, None, "copy")
    check_dtype(dtype)
    if out is not None:
        _check_out(out, request)
    items = _items(arrays)
    if out is None and request.device is not None:
        stacked = _move.stacked(items, request.device, dtype)
        if stacked is not None:
            return stacked
    leaves, shape = _sequence.scan(items, lambda item: _convert.leaf(item, dtype), "arrays")
    made_of = _sequence.promoted(leaves.kinds) if dtype is None else dtype
    tensors = leaves.tensors()
    if out is None:
        return _joined(leaves, shape, made_of, request.device or _device_of(tensors))
    _check_fit(out, shape, made_of)
    _check_grad(out, tensors)
    # Made apart first, so that a number out of range, or an overlap, does no harm to `out`.
    return _torch.fill(out, _joined(leaves, shape, out.dtype, out.device))


def _items(arrays: object) -> list[object]:
    """The arrays, in a list of their own: converting one may run code that changes `arrays`."""
    is_array = _torch.is_tensor(arrays) or isinstance(arrays, np.ndarray)
    is_number = isinstance(arrays, (bool, int, float, complex, np.generic))
    if is_array or is_number or not _sequence.is_sequence(arrays):
        raise UnsupportedInput(
            f"stack takes a list, tuple or other sequence of arrays, not {described(arrays)}"
        )
    items = [*arrays]  # type: ignore[misc]  # is_sequence has looked
    if not items:
        raise ValueError("stack needs at least one array; the shape of none is not known")
    return items


def _joined(
    leaves: _sequence.Leaves, shape: tuple[int, ...], dtype: torch.dtype, device: torch.device
) -> torch.Tensor:
    """The stack, put together where the arrays are."""
    tensors = leaves.tensors()
    on_host = all(tensor.device.type == "cpu" for tensor in tensors)
    if on_host and all(tuple(tensor.shape) == shape[1:] for tensor in tensors):
        stacked = _move.stacked(tensors, device, dtype) if len(tensors) == shape[0] else None
        if stacked is not None:
            return stacked
    made = _sequence.joined(leaves, shape, dtype, torch.device("cpu") if on_host else device)
    return made if made.device == device else _move.moved(made, device, dtype)


def _device_of(tensors: list[torch.Tensor]) -> torch.device:
    """The one device that the arrays are on; torch's default for numbers alone."""
    devices = {tensor.device for tensor in tensors} or {_torch.default_device()}
    if len(devices) > 1:
        names = ", ".join(sorted(str(device) for device in devices))
        raise ValueError(f"the arrays are on several devices ({names}); pass device=")
    return devices.pop()


def _check_out(out: object, request: Request) -> None:
    if not _torch.is_tensor(out):
        raise TypeError(f"out must be a tensor, not {type(out).__name__}")
    if out.is_inference() and not torch.is_inference_mode_enabled():
        raise ValueError(
            "out is an inference tensor, which is written to in inference mode only; enter "
            "torch.inference_mode(), or pass out.clone()"
        )
    if request.dtype is not None and request.dtype != out.dtype:
        raise ValueError(f"dtype={request.dtype} contradicts the dtype {out.dtype} of out")
    if request.device is not None and request.device != out.device:
        raise ValueError(
            f"device={str(request.device)!r} contradicts the device {out.device} of out"
        )


def _check_fit(out: torch.Tensor, shape: tuple[int, ...], dtype: torch.dtype) -> None:
    if tuple(out.shape) != shape:
        raise ValueError(f"out has shape {tuple(out.shape)}, and the stack has {shape}")
    if dtype != out.dtype and not torch.can_cast(dtype, out.dtype):
        raise ValueError(
            f"the arrays are {dtype} together, which {out.dtype}, the dtype of out, does not hold; "
            f"pass dtype={out.dtype} to convert"
        )
    if _layout.repeats(out):
        raise ValueError(
            "out has elements that share memory, as from expand; pass out.contiguous()"
        )


def _check_grad(out: torch.Tensor, tensors: list[torch.Tensor]) -> None:
    needed = out.requires_grad or any(tensor.requires_grad for tensor in tensors)
    if torch.is_grad_enabled() and needed:
        raise ValueError(
            "out= takes no part in autograd, and a tensor requires grad; leave out= away, or call "
            "stack under torch.no_grad()"
        )
