"""The public transfers on the simulated driver: trees, both directions, and who waits for whom."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import threading
import weakref
from concurrent.futures import CancelledError, ThreadPoolExecutor
from typing import Any, NamedTuple

import numpy as np
import pytest
import torch
from sim_torch import SimDoor, SimTensor, block_of, read

import dlferry
from dlferry import _torch_cuda
from dlferry._native import core

pytestmark = pytest.mark.native

SOON = 20.0  # longer than any of this takes


class Pair(NamedTuple):
    x: Any
    y: Any


def arrived(gpu: SimDoor, tensor: torch.Tensor) -> torch.Tensor:
    """What a tensor holds once the current stream has come so far."""
    assert isinstance(tensor, SimTensor)
    assert gpu.sim.stream_wait(gpu.current_stream(0)) == 0
    return read(tensor)


def test_a_tree_goes_there_and_back(gpu: SimDoor, rng: np.random.Generator) -> None:
    tree = {
        "image": rng.random((3, 500, 700), dtype=np.float32)[:, ::-1],
        "ids": Pair(np.arange(7, dtype=">i4"), torch.arange(100_000)),
        "name": "kept",
        "empty": np.zeros((0, 4)),
    }
    there = dlferry.to_device(tree, "cuda")
    assert there["name"] == "kept" and type(there["ids"]) is Pair
    assert torch.equal(arrived(gpu, there["image"]), torch.from_numpy(tree["image"].copy()))
    back = dlferry.to_host({key: there[key] for key in ("image", "ids", "name")})
    assert np.array_equal(back["image"].numpy(), tree["image"])
    assert back["ids"].x.tolist() == list(range(7))
    assert torch.equal(back["ids"].y, tree["ids"].y)


def test_small_arrays_cross_as_one(gpu: SimDoor, rng: np.random.Generator) -> None:
    arrays = {str(i): rng.random(1 + 37 * i) for i in range(60)}
    moved = dlferry.to_device(arrays, "cuda")
    for key, array in arrays.items():
        assert torch.equal(arrived(gpu, moved[key]), torch.from_numpy(array))
        assert moved[key].data_ptr() % 256 == 0
    assert gpu.sim.count("h2d_copies") == 1
    assert len({id(block_of(tensor)) for tensor in moved.values()}) == 1
    apart = dlferry.to_device(arrays, "cuda", pack=False)
    assert len({id(block_of(tensor)) for tensor in apart.values()}) == len(arrays)
    for key, array in arrays.items():
        assert torch.equal(arrived(gpu, apart[key]), torch.from_numpy(array))


@pytest.mark.parametrize("count", [10, 3_000_000])
def test_the_narrower_dtype_crosses(gpu: SimDoor, rng: np.random.Generator, count: int) -> None:
    pixels, reals = rng.integers(0, 256, count).astype(np.uint8), rng.random(count)
    wide = dlferry.to_device([pixels], "cuda", dtype={torch.uint8: torch.float32})[0]
    assert torch.equal(arrived(gpu, wide), torch.from_numpy(pixels).float())
    assert gpu.sim.count("h2d_bytes") == count
    narrow = dlferry.to_device([reals], "cuda", dtype=torch.bfloat16)[0]
    assert torch.equal(arrived(gpu, narrow), torch.from_numpy(reals).bfloat16())
    assert gpu.sim.count("h2d_bytes") == 3 * count


def test_the_source_is_free_when_to_device_returns(gpu: SimDoor) -> None:
    for size in (10, 5_000_000):
        source = np.ones(size, np.float32)
        moved = dlferry.to_device([source], "cuda")[0]
        source[:] = 7
        assert torch.equal(arrived(gpu, moved), torch.ones(size))


def test_a_busy_stream_keeps_nobody_waiting(gpu: SimDoor) -> None:
    gate = gpu.sim.gate(gpu.current_stream(0))
    moved = [dlferry.to_device(np.full(n, n), "cuda") for n in (3, 40_000, 900_000)]
    handle = dlferry.transfer(np.ones(5), "cuda")
    handle.synchronize(SOON) if handle.done() else handle.wait()
    gpu.sim.open(gate)
    for tensor in moved:
        assert torch.equal(arrived(gpu, tensor), torch.full(tensor.shape, tensor.numel()))


@pytest.mark.parametrize("count", [3, 60_000, 900_000])
def test_a_busy_stream_keeps_page_locked_sources_from_nobody(gpu: SimDoor, count: int) -> None:
    source = dlferry.empty_pinned(count, torch.float32).fill_(5)
    gate = gpu.sim.gate(gpu.current_stream(0))
    opening = threading.Timer(SOON, gpu.sim.open, [gate])  # so that a failure ends
    opening.start()
    moved = dlferry.to_device(source, "cuda")
    assert not gpu.sim.stream_is_idle(gpu.current_stream(0))
    source.zero_()
    opening.cancel()
    gpu.sim.open(gate)
    assert torch.equal(arrived(gpu, moved), torch.full((count,), 5.0))


def test_results_on_the_host_wait_for_what_produces_them(gpu: SimDoor) -> None:
    tensor = dlferry.to_device(np.zeros(1000, np.uint8), "cuda")
    gate = gpu.sim.gate(gpu.current_stream(0))
    gpu.sim.fill(gpu.current_stream(0), tensor.data_ptr(), 9, 1000)
    handle = dlferry.transfer(tensor, "cpu")
    assert not handle.done()
    with pytest.raises(TimeoutError, match="goes on"):
        handle.result(timeout=0.01)
    gpu.sim.open(gate)
    assert handle.result(SOON).unique().tolist() == [9]
    assert handle.result() is handle.result()


def test_a_handle_that_is_dropped_keeps_both_sides(gpu: SimDoor) -> None:
    source = torch.arange(3_000_000)
    assert gpu.sim.stall(0, 0, 1) == 0
    handle = dlferry.transfer([source], "cuda")
    storage = weakref.ref(source.untyped_storage())
    del source, handle
    gc.collect()
    assert storage() is not None
    assert gpu.sim.stall(0, 0, 0) == 0


@pytest.mark.parametrize("count", [3, 900_000])
def test_memory_that_nobody_has_any_more_is_let_go_at_once(gpu: SimDoor, count: int) -> None:
    for start in (dlferry.to_device, lambda *given: dlferry.transfer(*given).result()):
        stalled = core.copy_stream(0, "h2d") if count > 3 else gpu.current_stream(0)
        moved = start(np.ones(count), "cuda")
        gate = gpu.sim.gate(stalled)  # the copies may well be done, but nobody was told
        gone = weakref.ref(moved.untyped_storage())
        del moved
        is_gone = gone() is None
        gpu.sim.open(gate)
        assert is_gone
    assert core.unfinished_count() == 0


def test_memory_is_let_go_before_more_is_taken(
    gpu: SimDoor, monkeypatch: pytest.MonkeyPatch
) -> None:
    empty, at_once = gpu.empty, []

    def next_empty(*given: Any) -> torch.Tensor:
        at_once.append(gone() is None)
        return empty(*given)

    gate = gpu.sim.gate(core.copy_stream(0, "h2d"))
    dropped, other = [dlferry.transfer(np.ones(900_000), "cuda") for _ in range(2)]
    gone = weakref.ref(dropped._arrivals._crossings[0][0]._landed[0].untyped_storage())
    del dropped
    gpu.sim.open(gate)
    other.synchronize(SOON)
    monkeypatch.setattr(_torch_cuda, "empty", next_empty)
    dlferry.to_device(np.ones(900_000), "cuda")
    assert at_once == [True]


def test_a_cancelled_transfer(gpu: SimDoor) -> None:
    tensor = dlferry.to_device(np.zeros(500_000), "cuda")
    gate = gpu.sim.gate(gpu.current_stream(0))
    handle = dlferry.transfer({"x": tensor}, "cpu")
    assert handle.cancel()
    with pytest.raises(CancelledError):
        handle.result(SOON)
    assert handle.done() and not handle.cancel()
    gpu.sim.open(gate)


def test_awaiting(gpu: SimDoor) -> None:
    tensor = dlferry.to_device(np.arange(500_000), "cuda")

    async def main() -> None:
        gate = gpu.sim.gate(gpu.current_stream(0))
        first, second = dlferry.transfer([tensor], "cpu"), dlferry.transfer([tensor], "cpu")
        task = asyncio.ensure_future(_result_of(second))
        await asyncio.sleep(0)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        gpu.sim.open(gate)
        assert (await first)[0].tolist() == list(range(500_000))
        cancelled = dlferry.transfer([tensor], "cpu")
        if cancelled.cancel():
            with pytest.raises(asyncio.CancelledError):
                await cancelled

    asyncio.run(main())


async def _result_of(handle: dlferry.Transfer) -> Any:
    return await handle


def test_an_error_of_the_driver_reaches_its_transfer(gpu: SimDoor) -> None:
    gpu.sim.fail_call("cuMemcpyHtoDAsync", 1, 1)
    handle = dlferry.transfer([np.ones(2_000_000)], "cuda")
    with pytest.raises(dlferry.CudaError, match=r"cuMemcpyHtoDAsync failed: .*\(1\)"):
        handle.synchronize(SOON)
    with pytest.raises(dlferry.CudaError, match="cuMemcpyHtoDAsync"):
        handle.result()
    again = dlferry.to_device([np.ones(2_000_000)], "cuda")[0]
    assert torch.equal(arrived(gpu, again), torch.ones(2_000_000, dtype=torch.float64))


def test_what_is_there_already_is_ordered_for_other_streams(gpu: SimDoor) -> None:
    tensor = dlferry.to_device(np.zeros(1000, np.uint8), "cuda")
    before = gpu.current_stream(0)
    handle = dlferry.transfer({"x": tensor}, "cuda")
    gpu.sim.fill(before, tensor.data_ptr(), 7, 1000)
    assert handle.done() and not handle.cancel()
    gpu.current[0] = gpu.new_stream()
    assert handle.result()["x"] is tensor
    assert gpu.sim.stream_is_idle(before)  # the door waits where a stream would
    assert gpu.current[0] in block_of(tensor).recorded


def test_threads_get_the_same_tensors(gpu: SimDoor, monkeypatch: pytest.MonkeyPatch) -> None:
    both, convert = threading.Barrier(2), gpu.converted

    def converted(tensor: torch.Tensor, dtype: torch.dtype) -> torch.Tensor:
        with contextlib.suppress(threading.BrokenBarrierError):
            both.wait(0.2)  # the other thread is to get as far, if it can
        return convert(tensor, dtype)

    monkeypatch.setattr(_torch_cuda, "converted", converted)
    handle = dlferry.transfer(np.arange(100, dtype=np.uint8), "cuda", dtype=torch.float32)
    with ThreadPoolExecutor() as pool:
        first, second = pool.map(lambda _: handle.result(), range(2))
    assert first is second
    assert torch.equal(arrived(gpu, first), torch.arange(100.0))


def test_what_is_there_already_stays(gpu: SimDoor) -> None:
    tensor = dlferry.to_device(np.ones(3), "cuda")
    assert dlferry.to_device({"x": tensor}, "cuda")["x"] is tensor
    assert dlferry.to_device(tensor, torch.device("cuda", 0)) is tensor


def test_a_capture_is_refused_before_torch_is_asked_for_memory(
    gpu: SimDoor, monkeypatch: pytest.MonkeyPatch
) -> None:
    there = dlferry.to_device(np.ones(3_000_000), "cuda")
    asked = []
    for name in ("empty", "empty_pinned"):
        monkeypatch.setattr(_torch_cuda, name, lambda *arguments: asked.append(arguments))
    stream = gpu.current_stream(0)
    assert gpu.sim.capture_begin(stream, 0) == 0
    for start in (
        lambda: dlferry.to_device(np.ones(3_000_000), "cuda"),
        lambda: dlferry.stack([np.ones(3_000_000)] * 2, device="cuda"),
        lambda: dlferry.to_host([there]),
        lambda: dlferry.copyto(there, np.ones(3_000_000)),
    ):
        with pytest.raises(dlferry.CudaError, match="captured"):
            start()
    assert gpu.sim.capture_end(stream, None) == 0
    assert asked == []


def test_a_capture_is_refused_before_torch_queues_anything(
    gpu: SimDoor, monkeypatch: pytest.MonkeyPatch
) -> None:
    there = dlferry.to_device(np.ones(1000), "cuda")
    queued = []
    for name in ("converted", "dense"):
        monkeypatch.setattr(_torch_cuda, name, lambda *arguments: queued.append(arguments))
    stream = gpu.current_stream(0)
    assert gpu.sim.capture_begin(stream, 0) == 0
    for start in (
        lambda: dlferry.copyto(torch.zeros(1000), there),
        lambda: dlferry.copyto(np.zeros(500), there[::2]),
        lambda: dlferry.to_numpy(there, out=np.zeros(1000)),
    ):
        with pytest.raises(dlferry.CudaError, match="captured"):
            start()
    assert gpu.sim.capture_end(stream, None) == 0
    assert queued == []


@pytest.mark.parametrize("count", [3, 20_000, 60_000, 900_000])
def test_torch_is_asked_for_new_memory_once(
    gpu: SimDoor, monkeypatch: pytest.MonkeyPatch, count: int
) -> None:
    empty, asked = gpu.empty, []

    def counted(*given: Any) -> torch.Tensor:
        asked.append(given)
        return empty(*given)

    monkeypatch.setattr(_torch_cuda, "empty", counted)
    page_locked = dlferry.empty_pinned(count, torch.float32).fill_(5)
    for source in (page_locked, page_locked.numpy(), torch.full((count,), 5.0)):
        moved = dlferry.to_device(source, "cuda")
        assert torch.equal(arrived(gpu, moved), torch.full((count,), 5.0))
    assert len(asked) == 3


def test_the_core_speaks_for_torch_where_the_context_is_lost(
    gpu: SimDoor, monkeypatch: pytest.MonkeyPatch
) -> None:
    dlferry.to_device(np.ones(3), "cuda")

    def refuse(*_: object) -> None:
        raise RuntimeError("CUDA error: an illegal memory access was encountered")

    monkeypatch.setattr(_torch_cuda, "empty", refuse)
    for size in (3, 3_000_000):
        with pytest.raises(RuntimeError, match="illegal memory"):
            dlferry.to_device(np.ones(size), "cuda")
    gpu.sim.poison(0, 700)
    for size in (3, 3_000_000):
        with pytest.raises(dlferry.CudaError) as caught:
            dlferry.to_device(np.ones(size), "cuda")
        assert caught.value.code == 700 and caught.value.call.startswith("cu")
    del caught
    gpu.sim.reset()
    assert core.close_transfers(10.0, False)
