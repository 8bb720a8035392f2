"""The GPU that the benchmarks run on: the one place that asks torch for it.

Every module asks `device()`. Where that is the CPU (the project's tests put it in place, having no
GPU), waiting, queueing and page-locking do nothing, and the statements still run.
"""

from __future__ import annotations

import functools
import gc
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, TypeVar

import numpy as np
import torch
from numpy.typing import NDArray

import dlferry
from benchmarks import report
from benchmarks.harness import Contestant, Settings

MIB = 2**20

NO_CUDA = 3
"""The exit status where there is no CUDA, and nothing was measured."""

ROUNDS = 21
"""How often every contestant runs, unless a module says otherwise."""

T = TypeVar("T")

_cuda: Any = torch.cuda  # some of it has no types


class NoCudaError(RuntimeError):
    """torch finds no CUDA device, so there is nothing to measure."""


# --- the device ---


def device() -> torch.device:
    """The current CUDA device.

    Raises:
        NoCudaError: There is none.
    """
    if not torch.cuda.is_available():
        raise NoCudaError(
            f"no CUDA: torch {torch.__version__} finds no device, and nothing was measured"
        )
    return _first_used(torch.cuda.current_device())


@functools.cache
def _first_used(index: int) -> torch.device:
    """The device, with dlferry's driver open, so that the description of the machine names it."""
    found = torch.device("cuda", index)
    dlferry.asarray(np.zeros(1), device=found)
    return found


def on_gpu() -> bool:
    """False for the stand-in."""
    return device().type == "cuda"


def wait() -> None:
    """Until the device has done everything it has to do."""
    if on_gpu():
        torch.cuda.synchronize()


def done(value: T) -> T:
    """`value`, once the device has done everything it has to do; on the GPU only."""
    torch.cuda.synchronize()
    return value


def names(**more: object) -> dict[str, object]:
    """What the statements of all modules name: `cuda` is the device, `done` waits for it."""
    return {
        "dlferry": dlferry,
        "torch": torch,
        "np": np,
        "cuda": device(),
        "done": done if on_gpu() else lambda value: value,
        **more,
    }


# --- memory ---


def page_locked(shape: Sequence[int], dtype: torch.dtype = torch.float32) -> torch.Tensor:
    """Fresh page-locked memory."""
    return torch.empty(tuple(shape), dtype=dtype, pin_memory=on_gpu())


def allocated_bytes() -> int:
    """Device memory that tensors hold, once what nobody needs is gone."""
    gc.collect()
    if not on_gpu():
        return 0
    torch.cuda.synchronize()
    torch.cuda.empty_cache()
    return torch.cuda.memory_allocated()


def pinned_limit(size: int, asked: float | None = None) -> tuple[Contestant, dict[str, object]]:
    """The link's own rate: as many bytes, from page-locked memory into memory that is there.

    Returns:
        The contestant, and what its statement names.
    """
    pinned = page_locked((size,), torch.uint8).fill_(1)
    there = torch.zeros(size, dtype=torch.uint8, device=device())
    contestant = Contestant(
        "done(there.copy_(pinned, non_blocking=True))",
        asked,
        limit=True,
        label="the limit: a pinned copy into memory that is there",
    )
    return contestant, {"pinned": pinned, "there": there}


# --- work ---


def spinner(seconds: float) -> Callable[[], None]:
    """What queues one kernel that keeps the current stream busy for so long."""
    if not on_gpu():
        return lambda: None
    cycles = int(seconds * _cycles_per_second())
    return lambda: _cuda._sleep(cycles)


@functools.cache
def _cycles_per_second() -> float:
    """Of the counter that `torch.cuda._sleep` reads, once the clock has risen."""
    cycles = 50_000_000
    _cuda._sleep(4 * cycles)
    return cycles / _seconds_of(lambda: _cuda._sleep(cycles))


def _seconds_of(work: Callable[[], object]) -> float:
    """How long the device works on what `work` queues."""
    start, end = (_cuda.Event(enable_timing=True) for _ in range(2))
    start.record()
    work()
    end.record()
    torch.cuda.synchronize()
    return float(start.elapsed_time(end)) / 1e3


class Queue:
    """Work of a given length that is queued on the current stream while the block runs.

    Each queue corrects the length of the next one, since the clock of a GPU changes.
    """

    def __init__(self, seconds: float, kernels: int = 20) -> None:
        self._seconds = seconds
        self._kernels = kernels
        self._correction = 1.0

    @contextmanager
    def __call__(self) -> Iterator[None]:
        if not on_gpu():
            yield
            return
        start, end = (_cuda.Event(enable_timing=True) for _ in range(2))
        cycles = int(self._correction * self._seconds * _cycles_per_second() / self._kernels)
        start.record()
        for _ in range(self._kernels):
            _cuda._sleep(cycles)
        end.record()
        try:
            yield
        finally:
            torch.cuda.synchronize()
        self._correction *= self._seconds * 1e3 / start.elapsed_time(end)


# --- checks ---


def same(x: NDArray[Any], result: Any) -> bool:
    """A tensor on the device with the numbers, the shape and the dtype of `x`."""
    if not isinstance(result, torch.Tensor) or result.device != device():
        return False
    values = result.cpu().numpy()
    return values.dtype == x.dtype.newbyteorder("=") and np.array_equal(x, values)


def same_dict(x: dict[str, NDArray[Any]], result: Any) -> bool:
    """A dict of such tensors, with the keys in the order of `x`."""
    return (
        type(result) is dict
        and list(result) == list(x)
        and all(same(array, result[key]) for key, array in x.items())
    )


# --- the command line ---


def main(
    benchmark: str,
    question: str,
    plan: Callable[[Settings], report.Agenda],
    arguments: Sequence[str] | None = None,
    rounds: int = ROUNDS,
) -> int:
    """As that of every other benchmark, but `NO_CUDA`, with a line that says so, without a GPU."""
    try:
        return report.main(f"gpu.{benchmark}", question, plan, arguments, rounds)
    except NoCudaError as error:
        print(error, file=sys.stderr)
        return NO_CUDA
