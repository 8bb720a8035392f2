"""What becomes of each array of a transfer: which way it goes, and how it arrives."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import CancelledError
from typing import Any

import numpy as np

from dlferry import _decide, _driver, _gather, _link, _torch, _torch_cuda
from dlferry._crossing import Crossing
from dlferry._errors import CudaError, DriverUnavailable, UnsupportedInput
from dlferry._ingest import Found, Request, described, ingested
from dlferry._native import core
from dlferry._queued import Queued, Resident
from dlferry._torch import torch

SMALL_BYTES = 64 << 10
"""Arrays up to this size cross the link together."""

Moving = Crossing | Queued | Resident

_NUMERIC = frozenset("biufc")


def is_array(obj: object) -> bool:
    """Whether a transfer moves it: a tensor, numeric ndarray, DLPack or CUDA array."""
    kind = type(obj)
    # By its type alone, because this is asked of each leaf; mypy does not learn from that.
    if kind is np.ndarray and obj.dtype.kind in _NUMERIC:  # type: ignore[attr-defined]
        return True
    if _torch.is_tensor(obj):
        return True
    if isinstance(obj, np.ndarray):
        dtype = obj.dtype
        return dtype.kind in _NUMERIC or dtype.type.__module__.split(".")[0] == "ml_dtypes"
    return hasattr(kind, "__dlpack__") or hasattr(kind, "__cuda_array_interface__")


class Casts:
    """Which dtype each array is to have.

    Args:
        dtype: What the caller asked for.
        exact: A bare dtype is meant for every array, not for floating ones only.
    """

    def __init__(self, dtype: Any, *, exact: bool) -> None:
        if dtype is None:
            self._target: Callable[[torch.dtype], torch.dtype] = lambda source: source
        elif isinstance(dtype, torch.dtype):
            self._target = lambda source: dtype if exact or source.is_floating_point else source
        elif isinstance(dtype, Mapping) and all(
            isinstance(each, torch.dtype) for pair in dtype.items() for each in pair
        ):
            known = dict(dtype)
            self._target = lambda source: known.get(source, source)
        else:
            raise TypeError(
                "dtype must be a torch.dtype such as torch.float32, or a mapping of such, "
                f"not {dtype!r}"
            )

    def __call__(self, source: torch.dtype) -> torch.dtype:
        """The dtype that an array of dtype `source` becomes."""
        return self._target(source)


class Arrivals:
    """The arrays of a transfer, in order: those that are there, and those that are on their way."""

    def __init__(self, count: int) -> None:
        self._values: list[Any] = [None] * count
        self._crossings: list[tuple[Moving, Sequence[int]]] = []

    def add(self, index: int, value: torch.Tensor) -> None:
        """One that has arrived."""
        self._values[index] = value

    def expect(self, crossing: Moving, indices: Sequence[int]) -> None:
        """Some that cross the link together, or that a stream orders."""
        self._crossings.append((crossing, indices))

    def done(self) -> bool:
        """Whether all copies are over."""
        return all(crossing.done() for crossing, _ in self._crossings)

    def wait(self, stream: Any) -> None:
        """Make a stream, as `_torch_cuda.stream_handle` takes it, wait for the copies."""
        for crossing, _ in self._crossings:
            crossing.wait(_torch_cuda.stream_handle(stream, crossing.device))

    def wait_until_read(self) -> None:
        """Wait until the sources may be changed."""
        for crossing, _ in self._crossings:
            crossing.wait_until_read()

    def synchronize(self, timeout: float | None) -> None:
        """Wait until all copies are over, then raise the first reason why one has failed."""
        deadline = None if timeout is None else time.monotonic() + timeout
        failure: Exception | None = None
        for crossing, _ in self._crossings:
            left = None if deadline is None else max(0.0, deadline - time.monotonic())
            try:
                done = crossing.synchronize(left)
            except (CudaError, DriverUnavailable, CancelledError) as error:
                failure = failure or error
                continue
            if not done:
                raise TimeoutError(
                    f"the transfer was not done within {timeout} s; it goes on, or call cancel()"
                )
        if failure is not None:
            raise failure

    def cancel(self) -> bool:
        """Submit no more copies; False when all had been submitted."""
        stopped = [crossing.cancel() for crossing, _ in self._crossings]  # each of them
        return any(stopped)

    def values(self) -> list[Any]:
        """All arrays: for the current stream, or complete."""
        for crossing, indices in self._crossings:
            for index, tensor in zip(indices, crossing.tensors(), strict=True):
                self._values[index] = tensor
        return self._values


def started(
    leaves: list[Any], target: torch.device, casts: Casts, *, pack: bool, aside: bool = False
) -> Arrivals:
    """Start to move arrays to where they are to be; `aside` as in `_crossing.to_new_memory`."""
    arrivals = Arrivals(len(leaves))
    batch = None
    if pack and target.type == "cuda" and _driver.serves():
        batch = core.batch_of(leaves, SMALL_BYTES)
    taken = frozenset(batch.numbers) if batch else ()
    crossings: dict[int, list[tuple[int, Any, torch.dtype]]] = {}
    queued: dict[int, torch.Tensor] = {}
    resident: dict[int, torch.Tensor] = {}
    read_late: list[torch.Tensor] = []
    for index, leaf in enumerate(leaves):
        if index in taken:
            continue
        found = leaf if _torch.is_tensor(leaf) else _memory_of(leaf)
        array = found.source if isinstance(found, Found) else found
        dtype = casts(array.dtype)
        if _link.takes(array, target):
            place = array.device.index if target.type == "cpu" else pack and _is_small(array)
            crossings.setdefault(int(place), []).append((index, array, dtype))
            continue
        if isinstance(found, Found) and target.type != "cpu":
            found = _gather.on_host(found.source)
        value = _moved(found, target, dtype)
        if target.type != "cuda":
            arrivals.add(index, value)
        elif value is found:
            resident[index] = value
        else:
            queued[index] = value
            if not isinstance(found, Found) and _torch_cuda.is_pinned(found):
                read_late.append(found)
    if resident:
        assert target.index is not None
        arrivals.expect(Resident(list(resident.values()), target.index), list(resident))
    if queued:
        assert target.index is not None
        values = list(queued.values())
        arrivals.expect(Queued(values, target.index, read_late), list(queued))
    if batch is not None:
        from dlferry import _blocks  # most processes never get here

        assert target.index is not None
        crossing = _blocks.batch_to_device(batch, casts, target.index, aside=aside)
        arrivals.expect(crossing, batch.numbers)
    # Small arrays come last in the order of places, and start first: they are soon through.
    for place in sorted(crossings, reverse=True):
        indices, arrays, dtypes = zip(*crossings[place], strict=True)
        if target.type == "cpu":
            arrivals.expect(_link.to_host(arrays, dtypes), indices)
        else:
            packed = place == 1 and len(arrays) > 1
            assert target.index is not None
            crossing = _link.to_device(arrays, dtypes, target.index, packed=packed, aside=aside)
            arrivals.expect(crossing, indices)
    return arrivals


def _memory_of(leaf: object) -> torch.Tensor | Found:
    """The memory of an array that is no tensor: on the host, or as a tensor on its device."""
    found = ingested(leaf, Request(None, None, None, "share"))
    if found is None:
        raise UnsupportedInput(f"{described(leaf)} declines to export its memory; pass an ndarray")
    if found.source.device != "cpu":
        return _gather.on_device(found)
    return found._replace(source=_gather.whole(found.source))


def _moved(found: torch.Tensor | Found, target: torch.device, dtype: torch.dtype) -> torch.Tensor:
    """As torch moves it. What is there already, or can be shared on the host, is not copied."""
    if not isinstance(found, Found):
        if found.device == target and found.dtype == dtype:
            return found
        return _torch.moved(found, target, dtype)
    source = found.source
    outcome = _decide.for_array(found, Request(dtype, None, None, "copy"))
    shares = outcome.decision.action == "share"
    return core.share(source) if shares else _gather.copied(source, dtype)


def _is_small(array: Any) -> bool:
    size: int = math.prod(array.shape) * array.dtype.itemsize
    return size <= SMALL_BYTES
