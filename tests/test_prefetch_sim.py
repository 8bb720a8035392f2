"""prefetch on the simulated driver: buffers that are filled again, streams, and errors."""

from __future__ import annotations

import ctypes
import gc
import threading
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
import torch
from sim_torch import SimDoor, block_of, read

import dlferry
from dlferry import _producer, _torch_cuda

pytestmark = pytest.mark.native

LIMIT = 60.0  # seconds after which something hangs
SMALL, LARGE = 100, 3_000_000
"""Numbers of float32 elements: for the current stream itself, and through the staging memory."""


@pytest.fixture(autouse=True)
def no_thread_is_left(gpu: SimDoor) -> Iterator[None]:
    yield
    gc.collect()
    for producer in [*_producer._running]:
        assert producer.join(LIMIT)


def arrived(gpu: SimDoor, tensor: torch.Tensor) -> torch.Tensor:
    """What a tensor holds once the current stream has come so far."""
    assert gpu.sim.stream_wait(gpu.current_stream(0)) == 0
    return read(tensor)


@pytest.mark.parametrize("count", [SMALL, LARGE])
@pytest.mark.parametrize("depth", [1, 3])
def test_a_generator_may_refill_one_buffer(gpu: SimDoor, count: int, depth: int) -> None:
    buffer = np.zeros(count, np.float32)

    def source() -> Iterator[Any]:
        for i in range(8):
            buffer[:] = np.arange(count) + i
            yield {"x": buffer, "i": i}
        buffer[:] = -1

    got = 0
    for item in dlferry.prefetch(source(), "cuda", depth=depth):
        expected = torch.arange(count, dtype=torch.float32) + item["i"]
        assert torch.equal(arrived(gpu, item["x"]), expected)
        got += 1
    assert got == 8


def test_the_stream_that_is_current_at_next_is_ordered(gpu: SimDoor) -> None:
    iterator = iter(dlferry.prefetch([np.full(LARGE, i, np.float32) for i in range(3)], "cuda"))
    for i in range(3):
        gpu.current[0] = gpu.new_stream()
        tensor = next(iterator)
        assert gpu.current[0] in block_of(tensor).recorded
        assert bool((arrived(gpu, tensor) == i).all())
        del tensor


def test_copies_do_not_wait_for_the_model(gpu: SimDoor) -> None:
    read_all = threading.Event()

    def source() -> Iterator[Any]:
        yield from (np.full(LARGE, i, np.float32) for i in range(3))
        read_all.set()

    iterator = iter(dlferry.prefetch(source(), "cuda", depth=4))
    gate = gpu.sim.gate(gpu.current_stream(0))
    try:
        assert read_all.wait(LIMIT)
    finally:
        gpu.sim.open(gate)
    assert [int(arrived(gpu, tensor)[0]) for tensor in iterator] == [0, 1, 2]


def test_an_iteration_that_is_dropped_leaves_nothing_on_the_device(gpu: SimDoor) -> None:
    def source() -> Iterator[Any]:
        while True:
            yield np.zeros(LARGE, np.float32)

    for _ in range(5):
        for _item in dlferry.prefetch(source(), "cuda", depth=3):
            break
    with dlferry.prefetch(source(), "cuda") as items:
        next(iter(items))


def test_a_graph_is_captured_meanwhile(gpu: SimDoor, monkeypatch: pytest.MonkeyPatch) -> None:
    exchange = ctypes.CDLL(str(gpu.sim.path)).cuThreadExchangeStreamCaptureMode
    empty, modes = gpu.empty, []

    def allocate(*wanted: Any) -> torch.Tensor:
        mode = ctypes.c_uint(2)
        assert exchange(ctypes.byref(mode)) == 0
        modes.append(mode.value)
        assert exchange(ctypes.byref(mode)) == 0
        return empty(*wanted)

    monkeypatch.setattr(_torch_cuda, "empty", allocate)
    assert len(list(dlferry.prefetch([np.ones(LARGE), np.ones(SMALL)], "cuda"))) == 2
    assert modes == [2, 2]  # relaxed, as is what torch does to allocate
    dlferry.to_device(np.ones(SMALL), "cuda")
    assert modes == [2, 2, 0]  # a thread of the user's is as it was


@pytest.mark.parametrize("count", [SMALL, LARGE])
def test_the_consumers_stream_is_captured_meanwhile(gpu: SimDoor, count: int) -> None:
    captured = threading.Event()

    def source() -> Iterator[Any]:
        yield np.zeros(count)
        assert captured.wait(LIMIT)
        yield np.ones(count)

    iterator = iter(dlferry.prefetch(source(), "cuda", depth=1))
    next(iterator)
    stream = gpu.current_stream(0)
    assert gpu.sim.capture_begin(stream, 0) == 0
    captured.set()
    handle = iterator._producer.arrivals.get(timeout=LIMIT)  # started during the capture
    iterator._producer.arrivals.put(handle)
    assert gpu.sim.capture_end(stream, None) == 0
    assert bool((arrived(gpu, next(iterator)) == 1).all())


def test_an_error_of_the_driver_ends_the_iteration(gpu: SimDoor) -> None:
    iterator = iter(dlferry.prefetch((np.ones(LARGE) for _ in range(9)), "cuda", depth=1))
    assert next(iterator).shape == (LARGE,)
    gpu.sim.fail_call("cuMemcpyHtoDAsync", 1, 700)
    with pytest.raises(dlferry.CudaError):
        for _ in range(9):
            next(iterator)
    assert list(iterator) == []
