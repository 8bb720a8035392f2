"""Copies on their way across the link, and the tensors that they go to."""

from __future__ import annotations

import math
import threading
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

from dlferry import _layout, _torch_cuda
from dlferry._native import core
from dlferry._torch import torch


class NewMemory(NamedTuple):
    """Where arrays land on a device."""

    tensors: list[torch.Tensor]
    blocks: list[torch.Tensor]
    """Those that own the memory."""
    stream: int
    """That it was allocated for."""


def allocated(
    shape: Sequence[int],
    dtype: torch.dtype,
    device: int,
    stream: int,
    strides: Sequence[int] | None = None,
) -> torch.Tensor:
    """New memory on a device, which belongs to a stream.

    Raises:
        CudaError: The context is lost, or the stream is being captured.
        RuntimeError: torch has none.
    """
    try:
        return _torch_cuda.empty(shape, dtype, device, stream, strides)
    except RuntimeError:
        core.check_stream(device, stream)
        raise


def new_memory(
    hosts: Sequence[Any], wires: Sequence[torch.dtype], device: int, stream: int, packed: bool
) -> NewMemory:
    """Memory on a device for arrays of these shapes and strides, of the dtypes `wires`."""
    core.drop_finished()  # what that lets go may serve again
    strides = [_layout.strides_of(host) for host in hosts]
    if not packed:
        tensors = [
            allocated(host.shape, wire, device, stream, steps)
            for host, wire, steps in zip(hosts, wires, strides, strict=True)
        ]
        return NewMemory(tensors, tensors, stream)
    offsets, end = [], 0
    for host, wire in zip(hosts, wires, strict=True):
        offsets.append(-(-end // core.ALIGNMENT) * core.ALIGNMENT)
        end = offsets[-1] + math.prod(host.shape) * wire.itemsize
    block = allocated((end,), torch.uint8, device, stream)
    tensors = [
        _torch_cuda.carve(block, offset, host.shape, wire, steps)
        for host, offset, wire, steps in zip(hosts, offsets, wires, strides, strict=True)
    ]
    return NewMemory(tensors, [block], stream)


class Crossing:
    """Copies on their way, and the tensors they go to."""

    __slots__ = (
        "_cast_on", "_casting", "_dtypes", "_handle", "_landed", "_memory", "_results", "device",
    )  # fmt: skip

    def __init__(
        self,
        handle: core.Transfer,
        landed: Sequence[torch.Tensor],
        dtypes: Sequence[torch.dtype] | None,
        device: int,
        memory: NewMemory | None = None,
    ) -> None:
        self._handle = handle
        self._landed = landed
        self._dtypes = dtypes
        self.device = device
        self._memory = memory
        self._results: Sequence[torch.Tensor] | None = None
        self._cast_on = 0
        self._casting = threading.Lock()

    def done(self) -> bool:
        """Whether all is copied, or has failed: nothing touches source or destination any more."""
        return self._handle.done()

    def cancel(self) -> bool:
        """Submit no more of it; False when all had been submitted, and the transfer goes on."""
        return self._handle.cancel()

    def synchronize(self, timeout: float | None = None) -> bool:
        """Wait until done; False when that takes more than `timeout` seconds.

        Raises:
            CudaError: A call of the driver failed.
            concurrent.futures.CancelledError: The transfer was cancelled.
        """
        return self._handle.synchronize(timeout)

    def wait_until_read(self) -> None:
        """Wait until the source may be changed."""
        self._handle.wait_until_read()

    def wait(self, stream: int | None = None) -> None:
        """Make a stream, by default the current one, wait for the copies and keep their memory."""
        if stream is None:
            stream = _torch_cuda.current_stream(self.device)
        self._handle.wait(stream)
        if self._memory is not None and stream != self._memory.stream:
            for tensor in self._memory.blocks:
                _torch_cuda.record(tensor, self.device, stream)

    def tensors(self) -> Sequence[torch.Tensor]:
        """The results: for the current stream on a device, ready to read on the host.

        The same ones each time. What the device has to cast, it casts once, on the stream that is
        current at the first call; other streams wait for that one.

        Raises:
            CudaError: As `synchronize`, and where the device would have to cast on a stream that is
                being captured: the graph would, each time, and nobody before.
        """
        if self._landed[0].device.type == "cpu":
            self.synchronize()
            return list(self._landed)
        stream = _torch_cuda.current_stream(self.device)
        self.wait(stream)
        with self._casting:
            if self._results is None:
                self._results = self._cast(stream)
                self._cast_on = stream
        if stream != self._cast_on:
            cast = [r for r, t in zip(self._results, self._landed, strict=True) if r is not t]
            if cast:
                _torch_cuda.follow(self.device, stream, self._cast_on)
            for tensor in cast:
                _torch_cuda.record(tensor, self.device, stream)
        return self._results

    def _cast(self, stream: int) -> Sequence[torch.Tensor]:
        dtypes = self._dtypes or [tensor.dtype for tensor in self._landed]
        if all(tensor.dtype == dtype for tensor, dtype in zip(self._landed, dtypes, strict=True)):
            return self._landed
        core.check_stream(self.device, stream)
        return [
            tensor if tensor.dtype == dtype else _torch_cuda.converted(tensor, dtype)
            for tensor, dtype in zip(self._landed, dtypes, strict=True)
        ]


def to_new_memory(
    inline: bool,
    dtypes: Sequence[torch.dtype] | None,
    device: int,
    new: Callable[[int], NewMemory],
    start: Callable[[NewMemory, int, bool], Any],
    *,
    aside: bool = False,
) -> Crossing:
    """Little goes on the current stream itself where it can, and all else by the copies' own.

    Args:
        inline: Whether to try the current stream itself.
        dtypes: Of the results; None where nothing is to be cast.
        device: Its index.
        new: Makes the memory, for the stream that it is given.
        start: Given the memory, the current stream, and whether to copy on that one itself. Makes
            the handle, or None where that is not to be had.
        aside: Whether to leave the current stream out of it, for threads of ours: its owner may
            begin a capture at any time.
    """
    current = core.copy_stream(device, "h2d") if aside else _torch_cuda.current_stream(device)
    if inline and not aside:
        memory = new(current)
        handle = start(memory, current, True)
        if handle is not None:
            return Crossing(handle, memory.tensors, dtypes, device, memory)
    core.check_stream(device, current)  # before torch is asked for memory, which ends a capture
    memory = new(core.copy_stream(device, "h2d"))
    return Crossing(start(memory, current, False), memory.tensors, dtypes, device, memory)
