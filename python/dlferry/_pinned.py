"""Page-locked memory that users see: torch's own, or theirs, locked in place."""

from __future__ import annotations

import operator
from collections.abc import Sequence
from typing import Any, Literal

import numpy as np

from dlferry import _convert, _driver, _fresh, _page_locked, _torch, _torch_cuda
from dlferry._errors import UnsupportedInput
from dlferry._foreign import array_at
from dlferry._native import NATIVE, core
from dlferry._torch import torch

__all__ = ["empty_pinned", "memory_stats", "pin"]


def empty_pinned(shape: int | Sequence[int], dtype: torch.dtype | None = None) -> torch.Tensor:
    """Return a new CPU tensor in page-locked memory, which the GPU's link reads and writes itself.

    Fill it in place (``tensor.numpy()`` shares its memory), and a transfer needs no copy on the
    host.

    Args:
        shape: The lengths of the axes, or the one length.
        dtype: Of the elements; by default torch's default dtype.

    Returns:
        An uninitialised, contiguous tensor. The memory is torch's: its allocator keeps it for reuse
        when the tensor and all views of it are gone, and counts it in
        `torch.cuda.host_memory_stats`. Without CUDA it is ordinary memory, and ``is_pinned()`` is
        False.

    Raises:
        ValueError: A negative length.
        TypeError: `shape` or `dtype` is none.

    Example:
        >>> import dlferry, torch
        >>> batch = dlferry.empty_pinned((2, 3), torch.uint8)
        >>> batch.shape, batch.device
        (torch.Size([2, 3]), device(type='cpu'))
    """
    if dtype is not None and not isinstance(dtype, torch.dtype):
        raise TypeError(f"dtype must be a torch.dtype such as torch.float32, not {dtype!r}")
    lengths = _lengths(shape)
    tensor = _torch_cuda.empty_pinned(lengths, dtype or torch.get_default_dtype())
    if tensor.numel() and _torch_cuda.is_available():
        _page_locked.watch(tensor)
    return tensor


def pin(obj: object, /, *, readonly: Literal["error", "share"] = "error") -> torch.Tensor:
    """Return a tensor on the memory of `obj`, page-locked where it is.

    Locking takes about as long as one copy of the memory, so it pays for memory that is transferred
    again and again.

    Args:
        obj: A CPU tensor, an ndarray, a buffer, or another array whose memory a tensor can share.
        readonly: What to do with memory that must not be written: ``"error"``, or ``"share"`` it
            and do not write to the result.

    Returns:
        A tensor of the same shape, strides and dtype on the same memory, which stays locked until
        the last tensor on the result's memory is gone, and keeps the owner of the memory alive so
        long: the storage of a tensor, which can no longer be resized. dlferry's transfers wait for
        their own copies; a copy of torch's own with ``non_blocking=True`` has to be waited for
        before the result may go. Without CUDA it is an ordinary tensor, for a tensor the same one,
        and ``is_pinned()`` is False.

    Raises:
        CopyRequired: A tensor cannot share the memory.
        UnsupportedInput: `obj` is not an array on the host.
        ValueError: A tensor that requires grad.
        CudaError: The driver does not lock this memory.

    Example:
        >>> import dlferry, numpy as np
        >>> table = np.zeros((2, 3), dtype=np.float32)
        >>> tensor = dlferry.pin(table)
        >>> table[1, 2] = 7
        >>> float(tensor[1, 2])
        7.0
    """
    tensor = _host_tensor(obj, readonly)
    if tensor.numel() == 0 or not _torch_cuda.is_available():
        return tensor
    spans = zip(tensor.shape, tensor.stride(), strict=True)
    size = (sum((n - 1) * stride for n, stride in spans) + 1) * tensor.dtype.itemsize
    owner = _registration(tensor, size, readonly == "share")
    byte = np.dtype(np.uint8)
    memory = array_at(tensor.data_ptr(), byte, (size,), readonly=False, owner=owner)
    source = core.ingest(memory, False)
    assert source is not None
    block = core.share(source)
    return _fresh.on_storage(
        block.untyped_storage(), tensor.dtype, 0, tensor.shape, tensor.stride()
    )


def memory_stats() -> dict[str, int]:
    """Return what dlferry has page-locked for itself and by `pin`.

    The keys are those of `torch.cuda.host_memory_stats`, which counts the memory of `empty_pinned`.

    Returns:
        A dict, sorted by key. Blocks are the staging memory of each device and the ranges of `pin`;
        requests are their users. ``allocations`` and ``allocated_bytes`` count blocks,
        ``active_requests`` and ``active_bytes`` requests, each as ``.current``, ``.peak``,
        ``.allocated`` and ``.freed`` (both since the process started). ``host_alloc_time`` and
        ``host_free_time`` are in microseconds; ``num_host_alloc`` and ``num_host_free`` count the
        driver's calls. All are 0 where dlferry has locked nothing.

    Example:
        >>> import dlferry
        >>> dlferry.memory_stats()["allocated_bytes.current"] >= 0
        True
    """
    return dict(sorted(core.pinned_stats().items()))


# --- parts ---


def _lengths(shape: int | Sequence[int]) -> tuple[int, ...]:
    lengths = tuple(operator.index(n) for n in (shape if isinstance(shape, Sequence) else (shape,)))
    if any(length < 0 for length in lengths):
        raise ValueError(f"shape {lengths} has a negative length")
    return lengths


def _host_tensor(obj: object, readonly: Any) -> torch.Tensor:
    if readonly not in ("error", "share"):
        kind = ValueError if isinstance(readonly, str) else TypeError
        raise kind(f"readonly must be 'error' or 'share', not {readonly!r}")
    if not _torch.is_tensor(obj):
        tensor = _convert.asarray(obj, copy=False, readonly=readonly)
    elif not _torch.is_readable(obj) or obj.layout != torch.strided or obj.is_quantized:
        raise UnsupportedInput(f"a {_torch.kind(obj)} tensor has no memory of its own to page-lock")
    else:
        tensor = obj
    if tensor.device.type != "cpu":
        raise UnsupportedInput(f"only memory on the host is page-locked, not on {tensor.device}")
    if tensor.requires_grad:
        raise ValueError("the tensor requires grad; pass tensor.detach(), which has its memory too")
    if tensor.is_conj() or tensor.is_neg():
        raise UnsupportedInput(
            "the tensor's conj or neg bit says that its memory holds other values; pass "
            "tensor.resolve_conj().resolve_neg()"
        )
    return tensor


def _registration(tensor: torch.Tensor, size: int, read_only: bool) -> object:
    """What keeps the memory page-locked, and its owner alive: the storage, which stays as it is.

    The tensor itself may be given another one by ``.data =`` or `set_`.
    """
    storage = tensor.untyped_storage()
    if storage.resizable():
        # Nothing else in torch marks a storage as one whose memory is not to be replaced.
        _fresh.on_storage(storage, torch.uint8, 0, (storage.nbytes(),)).numpy()
    if NATIVE and _torch_cuda.is_nvidia():
        _driver.require()
        device = _torch_cuda.current_device()
        return core.PinnedRange(tensor.data_ptr(), size, read_only, device, storage)
    return _torch_cuda.Registration(tensor.data_ptr(), size, storage)
