"""Page-locked memory from torch's allocator: for results, within a cap, and known to the core."""

from __future__ import annotations

import math
import os
import weakref
from collections.abc import Callable, Sequence
from typing import Any

from dlferry import _fresh, _layout, _torch_cuda
from dlferry._native import NATIVE, core
from dlferry._torch import torch


def result_cap() -> int:
    """How many bytes of results may be page-locked at once: 4 GiB, or an eighth of the memory."""
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    return min(4 << 30, memory // 8)


class Results:
    """Page-locked memory for what comes from a device, as much as the cap allows at once."""

    def __init__(self) -> None:
        self.cap = result_cap()
        self.in_use = 0
        """Bytes of results that somebody still has."""

    def empty(
        self, shape: Sequence[int], dtype: torch.dtype, strides: Sequence[int] | None = None
    ) -> torch.Tensor:
        """New memory: page-locked within the cap, pageable beyond it."""
        nbytes = math.prod(shape) * dtype.itemsize
        if nbytes == 0 or self.in_use + nbytes > self.cap or not _torch_cuda.is_available():
            return _fresh.empty(shape, dtype, strides)
        self.in_use += nbytes  # before others look
        try:
            tensor = _torch_cuda.empty_pinned(shape, dtype, strides)
            watch(tensor, lambda: self._return(nbytes))
        except BaseException as error:
            self._return(nbytes)
            if not isinstance(error, RuntimeError):
                raise
            return _fresh.empty(shape, dtype, strides)  # the system locks no more
        return tensor

    def _return(self, nbytes: int) -> None:
        self.in_use -= nbytes


results = Results()


_watches: dict[int, Any] = {}


def watch(tensor: torch.Tensor, when_gone: Callable[[], None] | None = None) -> None:
    """Tells the core that a tensor's memory is page-locked, for as long as anybody has it.

    A storage's object in Python lives as long as the storage, whoever holds that.
    """
    storage = tensor.untyped_storage()
    known = core.KnownRange(storage.data_ptr(), storage.nbytes()) if NATIVE else None

    def forget(reference: weakref.ref[Any], watches: dict[int, Any] = _watches) -> None:
        watches.pop(id(reference), None)
        if when_gone is not None:
            when_gone()

    reference = weakref.ref(storage, forget)
    _watches[id(reference)] = (reference, known)


def goes_direct(tensor: torch.Tensor, wire: torch.dtype) -> bool:
    """Whether the link reads a CPU tensor's memory itself."""
    is_whole = tensor.dtype == wire and _layout.is_dense(tensor)
    return is_whole and bool(core.is_pinned(tensor.data_ptr(), tensor.nbytes))
