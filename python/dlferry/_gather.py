"""Tensors with the elements of memory that was found: on it, or copies."""

from __future__ import annotations

from typing import Any

from dlferry import _fresh, _torch
from dlferry._cuda_array import CudaArray, memory_of
from dlferry._errors import UnsupportedInput
from dlferry._foreign import Pieces
from dlferry._ingest import Found, described
from dlferry._native import core
from dlferry._policy import Decision, Fact
from dlferry._torch import torch


def on_device(found: Found) -> torch.Tensor:
    """A tensor on memory of a CUDA device.

    Raises:
        DriverUnavailable: torch cannot use CUDA.
        UnsupportedInput: Neither torch nor `__cuda_array_interface__` has a way to its layout.
    """
    source = found.source
    if not isinstance(source, CudaArray):
        # torch ends the process over negative strides, and misaligned elements end the context.
        if not source.facts & (Fact.STRIDES | Fact.ALIGNMENT):
            _torch.require_cuda()
            return core.share(source)
        source = memory_of(found.origin)
        if source is None:
            raise UnsupportedInput(
                f"{described(found.origin)} has a layout that torch does not take from DLPack "
                "(negative strides, or misaligned); pass a copy, made on its device"
            )
    return source.tensor()


def on_host(source: Any) -> torch.Tensor:
    """A tensor of elements on the host, on their memory where possible; it is only read."""
    decision = Decision(*core.decide(source.facts, None, "share"))
    return core.share(source) if decision.action == "share" else copied(source, source.dtype)


def whole(source: Any) -> Any:
    """A source for memory in one piece: what came in several pieces is put together."""
    return (
        core.ingest(copied(source, source.dtype), False) if isinstance(source, Pieces) else source
    )


def copied(source: Any, dtype: torch.dtype) -> torch.Tensor:
    """A new CPU tensor with the elements of a source or of `Pieces`, cast to `dtype`."""
    if not isinstance(source, Pieces):
        if dtype != source.dtype and torch.complex32 in (dtype, source.dtype):
            # Beyond the core's casts.
            return _torch.converted(on_host(source), torch.device("cpu"), dtype)
        return core.copy(source, dtype)
    out = _fresh.empty(source.shape, dtype)
    rest = out.view(-1)
    for array in source.arrays():
        _torch.fill(rest[: array.size], on_host(core.ingest(array, False)))
        rest = rest[array.size :]
    return out
