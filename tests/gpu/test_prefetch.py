"""prefetch and collate in front of a GPU, and graphs that are captured meanwhile."""

from __future__ import annotations

import gc
import threading
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
import torch
from hardware import LIMIT, host, keep_busy, new_stream

import dlferry
from dlferry import _producer

SMALL, BIG = 100, 3_000_000


@pytest.fixture(autouse=True)
def no_thread_is_left(nothing_stays_behind: None) -> Iterator[None]:
    yield
    gc.collect()
    for producer in [*_producer._running]:
        assert producer.join(LIMIT)


@pytest.mark.parametrize("depth", [1, 3])
@pytest.mark.parametrize("size", [SMALL, BIG])
def test_order_is_kept_and_a_buffer_may_be_filled_again(
    device: torch.device, size: int, depth: int
) -> None:
    buffer = np.zeros(size, np.float32)

    def source() -> Iterator[Any]:
        for i in range(20):
            buffer[:] = np.arange(size) + i
            yield {"x": buffer, "i": i, "name": "kept"}
        buffer[:] = -1

    expected = torch.arange(size, dtype=torch.float32, device=device)
    seen = [
        (item["i"], torch.equal(item["x"], expected + item["i"]))
        for item in dlferry.prefetch(source(), device, depth=depth)
    ]
    assert seen == [(i, True) for i in range(20)]


def test_a_page_locked_buffer_may_be_filled_again(device: torch.device) -> None:
    buffer = dlferry.empty_pinned(BIG, torch.int32)

    def source() -> Iterator[Any]:
        for i in range(10):
            buffer.fill_(i)
            yield buffer

    for i, tensor in enumerate(dlferry.prefetch(source(), device)):
        assert bool((tensor == i).all())


@pytest.mark.native
def test_batches_move_while_the_model_works(device: torch.device) -> None:
    asked = threading.Event()

    def source() -> Iterator[Any]:
        yield from (np.full(BIG, i, np.float32) for i in range(3))
        asked.set()  # all have been read

    batches = iter(dlferry.prefetch(source(), device, depth=4))
    event = keep_busy()
    assert asked.wait(LIMIT) and not event.query()
    assert [int(batch[0]) for batch in batches] == [0, 1, 2]


def test_the_stream_that_is_current_at_next_is_ordered(device: torch.device) -> None:
    streams = [new_stream(device) for _ in range(2)]
    batches = iter(dlferry.prefetch((np.full(BIG, i, np.float32) for i in range(8)), device))
    sums = []
    for i in range(8):
        with torch.cuda.stream(streams[i % 2]):
            batch = next(batches)
            sums.append(batch.sum())
            del batch
    torch.cuda.synchronize()
    assert [float(total) for total in sums] == [float(i * BIG) for i in range(8)]
    assert list(batches) == []


def test_transform_runs_on_the_device(device: torch.device) -> None:
    source = [np.full(BIG, i, np.uint8) for i in range(5)]

    def scaled(batch: torch.Tensor) -> torch.Tensor:
        assert batch.device == device
        return batch.float() / 2

    items = dlferry.prefetch(source, device, transform=scaled)
    assert [float(item[0]) for item in items] == [0, 0.5, 1, 1.5, 2]
    assert [item.dtype for item in dlferry.prefetch(source, device, dtype=torch.bfloat16)] == [
        torch.bfloat16
    ] * 5


def test_an_error_of_the_source_arrives_in_its_place(device: torch.device) -> None:
    def source() -> Iterator[Any]:
        yield np.zeros(BIG)
        yield np.ones(3)
        raise KeyError("no third one")

    batches = iter(dlferry.prefetch(source(), device, depth=3))
    assert next(batches).shape == (BIG,) and next(batches).shape == (3,)
    with pytest.raises(KeyError, match="no third one"):
        next(batches)
    assert list(batches) == []


def endless() -> Iterator[Any]:
    while True:
        yield np.zeros(BIG, np.float32)


def test_iterations_that_are_left_leave_nothing(device: torch.device) -> None:
    for _ in range(5):
        for _item in dlferry.prefetch(endless(), device, depth=3):
            break
    with dlferry.prefetch(endless(), device) as batches:
        next(iter(batches))
    prefetcher = dlferry.prefetch(endless(), device)
    iterator = iter(prefetcher)
    next(iterator)
    prefetcher.close()
    assert list(iterator) == []
    with pytest.raises(KeyboardInterrupt), dlferry.prefetch(endless(), device) as batches:
        for _item in batches:
            raise KeyboardInterrupt
    assert threading.active_count() < 50


# --- collate ---


class Samples(torch.utils.data.Dataset[Any]):
    """Made in worker processes; hence at the top of a module."""

    def __len__(self) -> int:
        return 24

    def __getitem__(self, index: int) -> dict[str, Any]:
        return {"image": np.full((3, 64, 64), index, np.uint8)[:, ::-1], "label": index}


@pytest.mark.parametrize("workers", [0, 2])
@pytest.mark.parametrize("pin_memory", [False, True])
@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # of fork, from a process with threads
def test_a_loader_with_collate(device: torch.device, workers: int, pin_memory: bool) -> None:
    loader: torch.utils.data.DataLoader[Any] = torch.utils.data.DataLoader(
        Samples(), batch_size=4, num_workers=workers, pin_memory=pin_memory,
        collate_fn=dlferry.collate, persistent_workers=False,
    )  # fmt: skip
    for _ in range(2):
        labels = []
        for batch in dlferry.prefetch(loader, device):
            assert batch["image"].shape == (4, 3, 64, 64) and batch["image"].device == device
            assert torch.equal(host(batch["image"][:, 0, 0, 0]).long(), host(batch["label"]))
            labels += host(batch["label"]).tolist()
        assert labels == list(range(24))


# --- graphs ---


@pytest.mark.native
def test_captures_are_refused_and_survive(device: torch.device) -> None:
    there, out = torch.zeros(BIG, device=device), torch.zeros(10, device=device)
    small, big = np.ones(10, np.float32), np.ones(BIG, np.float32)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        out += 1
        for start in (
            lambda: dlferry.transfer(small, device),
            lambda: dlferry.asarray(big, device=device),
            lambda: dlferry.stack([big, big], device=device),
            lambda: dlferry.copyto(there, big),
            lambda: dlferry.to_host([there]),
            lambda: dlferry.to_numpy(out),
        ):
            with pytest.raises(dlferry.CudaError, match="captur"):
                start()
        out += 1
    graph.replay()
    graph.replay()
    assert host(out).tolist() == [4] * 10
    dlferry.copyto(there, big).synchronize(LIMIT)
    assert bool((there == 1).all())
    del graph


@pytest.mark.native
def test_threads_of_ours_leave_a_capture_alone(device: torch.device) -> None:
    inside, moved = threading.Event(), threading.Event()

    def source() -> Iterator[Any]:
        yield np.full(BIG, 1, np.float32)
        assert inside.wait(LIMIT)
        for i in (2, 3):  # sizes that torch has to ask the driver for
            yield np.full(i * BIG, i, np.float32)
        moved.set()

    out = torch.zeros(10, device=device)
    batches = iter(dlferry.prefetch(source(), device, depth=4))
    assert int(next(batches)[0]) == 1
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        out += 1
        inside.set()
        assert moved.wait(LIMIT)
        out += 1
    assert [int(batch[-1]) for batch in batches] == [2, 3]
    graph.replay()
    assert host(out).tolist() == [2] * 10
    del graph


@pytest.mark.native
def test_other_threads_transfer_during_a_capture(device: torch.device) -> None:
    out, results = torch.zeros(10, device=device), []

    def work() -> None:
        for size in (10, BIG):
            there = dlferry.asarray(np.full(size, 3, np.float32), device=device)
            results.append(float(dlferry.to_host(there).mean()))

    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph, capture_error_mode="thread_local"):
        out += 1
        thread = threading.Thread(target=work)
        thread.start()
        thread.join(LIMIT)
        out += 1
    assert results == [3, 3]
    graph.replay()
    assert host(out).tolist() == [2] * 10
    del graph
