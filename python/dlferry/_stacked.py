"""Arrays of one shape -> their stack, in shared memory where a worker of a DataLoader makes it."""

from __future__ import annotations

import functools
import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from dlferry import _fresh, _modes, _sequence, _stack, _threads, _torch
from dlferry._native import NATIVE, core
from dlferry._torch import torch

LARGE_BYTES = 32 << 20
"""From here on the core stacks tensors faster than torch: it has the fresh memory cleared in huge
pages, which smaller results seldom need."""

REFUSALS = (BufferError, OverflowError, RuntimeError, TypeError, ValueError)
"""What conversions raise that have to be left to torch."""


def of_tensors(batch: Sequence[torch.Tensor]) -> torch.Tensor | None:
    """Plain tensors stacked; None where torch's own function is the one to do it."""
    first = batch[0]
    try:
        if in_worker():
            if first.is_nested or first.layout != torch.strided or first.device.type != "cpu":
                return None
            out = _shared_memory(batch)
            return None if out is None else torch.stack([*batch], out=out)
        if NATIVE and len(batch) * first.nbytes >= LARGE_BYTES and _is_simple(first):
            return core.stack(batch)
    except REFUSALS:
        pass
    return None


def _is_simple(tensor: torch.Tensor) -> bool:
    return tensor.device.type == "cpu" and tensor.is_contiguous() and not tensor.requires_grad


def of_arrays(batch: Sequence[Any]) -> torch.Tensor | None:
    """Arrays, the first one an ndarray, stacked; None where that cannot be done."""
    try:
        out = _shared_memory(batch) if in_worker() else None
        if NATIVE:
            return core.stack(batch, out=out)
        stacked = _by_numpy(batch, out)
        return _stack.stack(batch, out=out) if stacked is None else stacked
    except REFUSALS:
        return None


def _by_numpy(batch: Sequence[Any], out: torch.Tensor | None) -> torch.Tensor | None:
    """The stack of plain ndarrays of one dtype; None for others."""
    kinds = {getattr(sample, "dtype", None) for sample in batch}
    if {*map(type, batch)} != {np.ndarray} or len(kinds) > 1 or _modes.is_watched():
        return None
    first = batch[0]
    if first.dtype.name not in _sequence.NUMPY_NAMES:
        return None
    if out is None:
        dtype = _torch.dtypes()[first.dtype.name]
        out = _fresh.empty((len(batch), *first.shape), dtype)
        if not _torch.is_readable(out):  # under a mode of torch's, which makes other tensors
            return None
    np.stack(batch, out=out.numpy())
    return out


# --- shared memory ---


def in_worker() -> bool:
    """Whether this is a worker process of a DataLoader."""
    return torch.utils.data.get_worker_info() is not None


def _shared_memory(batch: Sequence[Any]) -> torch.Tensor | None:
    """Where a worker puts the stack; None where it takes no memory, or cannot be told.

    What is not in shared memory is moved there when the worker hands it over.
    """
    _share_processors()
    kinds = {getattr(sample, "dtype", None) for sample in batch}
    dtypes = {
        kind if isinstance(kind, torch.dtype) else _torch.dtypes().get(getattr(kind, "name", ""))
        for kind in kinds
    }
    shape = (len(batch), *batch[0].shape)
    if None in dtypes or 0 in shape:
        return None
    dtype = _sequence.promoted({dtype for dtype in dtypes if dtype})
    new_shared: Any = torch.UntypedStorage._new_shared
    storage = new_shared(math.prod(shape) * dtype.itemsize, device="cpu")
    return _fresh.on_storage(storage, dtype, 0, shape)


@functools.cache
def _share_processors() -> None:
    """As torch does in its workers; a forked one does so from the start."""
    _threads.share_processors()
