"""Ray Data: batches of a cluster on this machine, through `prefetch`.

Ray is large and its start takes long: `make test-ray` installs it and runs this file alone.
"""

from __future__ import annotations

import logging
import threading
import weakref
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
import ray
import ray.data
import torch
from sim_torch import SimDoor, read

import dlferry

LIMIT = 60.0  # seconds after which something hangs

# Ray sets options of its own that it has deprecated.
pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning:ray")


@pytest.fixture(scope="module", autouse=True)
def cluster() -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("RAY_USAGE_STATS_ENABLED", "0")
        ray.init(
            num_cpus=1,
            include_dashboard=False,
            object_store_memory=100 << 20,
            logging_level=logging.ERROR,
        )
        ray.data.DataContext.get_current().enable_progress_bars = False
        yield
        ray.shutdown()


@pytest.fixture(autouse=True)
def no_thread_is_left() -> Iterator[None]:
    yield
    for thread in threading.enumerate():
        if thread.name.startswith(("dlferry-prefetch", "StreamingExecutor")):
            thread.join(LIMIT)
            assert not thread.is_alive(), thread.name


def rows(count: int) -> ray.data.Dataset:
    return ray.data.from_items(
        [
            {"i": i, "x": np.full((2, 3), i, np.float32), "name": str(i), "ragged": [i] * (i % 3)}
            for i in range(count)
        ],
        override_num_blocks=4,
    )


def numbers(prefetched: Any) -> list[list[int]]:
    return [batch["i"].tolist() for batch in prefetched]


def test_batches_are_trees_of_tensors_and_of_what_has_no_dtype() -> None:
    [batch] = dlferry.prefetch(rows(4).iter_batches(batch_size=4), "cpu", dtype=torch.float64)
    assert batch["x"].shape == (4, 2, 3) and batch["x"].dtype == torch.float64
    assert batch["x"][:, 1, 2].tolist() == [0, 1, 2, 3]
    assert batch["i"].dtype == torch.int64
    assert batch["name"].tolist() == ["0", "1", "2", "3"]  # an array of objects
    assert [[*each] for each in batch["ragged"]] == [[], [1], [2, 2], []]


def test_order_is_kept_and_each_iteration_starts_anew() -> None:
    prefetched = dlferry.prefetch(rows(64).iter_batches(batch_size=8), "cpu")
    for _ in range(2):
        assert numbers(prefetched) == [[*range(i, i + 8)] for i in range(0, 64, 8)]


def test_an_error_of_a_task_arrives() -> None:
    def fail(batch: dict[str, Any]) -> dict[str, Any]:
        if 3 in batch["i"]:
            raise ValueError("mine")
        return batch

    failing = rows(8).map_batches(fail, batch_size=2).iter_batches(batch_size=2)
    iterator = iter(dlferry.prefetch(failing, "cpu"))
    with pytest.raises(ray.exceptions.RayTaskError, match="mine"):
        numbers(iterator)
    assert list(iterator) == []


def test_an_iteration_that_is_left_ends_that_of_ray() -> None:
    prefetched = dlferry.prefetch(rows(64).iter_batches(batch_size=2), "cpu")
    for batch in prefetched:  # dropped
        assert batch["i"].tolist() == [0, 1]
        break
    with prefetched:  # closed
        assert next(iter(prefetched))["i"].tolist() == [0, 1]


@pytest.mark.parametrize("depth", [1, 3])
def test_memory_is_let_go_with_its_batch(depth: int) -> None:
    owners: list[weakref.ref[Any]] = []

    def watched() -> Iterator[Any]:
        for batch in rows(64).iter_batches(batch_size=8):
            owners.append(weakref.ref(batch["x"]))
            yield batch

    for batch in dlferry.prefetch(watched(), "cpu", depth=depth):
        assert batch["x"].shape == (8, 2, 3)
        assert sum(owner() is not None for owner in owners) <= depth + 1
    del batch
    assert len(owners) == 8 and not any(owner() for owner in owners)


def test_a_shard_of_a_trainer() -> None:
    [shard] = rows(8).streaming_split(1, equal=True)  # as `ray.train.get_dataset_shard` gives it
    prefetched = dlferry.prefetch(shard.iter_batches(batch_size=4), "cpu")
    for _ in range(2):
        assert numbers(prefetched) == [[0, 1, 2, 3], [4, 5, 6, 7]]
    with pytest.raises(TypeError, match="iter_batches"):
        dlferry.prefetch(shard, "cpu")  # type: ignore[arg-type]


def test_a_data_set_has_to_be_asked_for_batches() -> None:
    with pytest.raises(TypeError, match="iter_batches"):
        dlferry.prefetch(rows(2).iterator(), "cpu")  # type: ignore[arg-type]
    with pytest.raises(TypeError, match="iter_batches"):
        iter(dlferry.prefetch(rows(2), "cpu"))  # type: ignore[arg-type]  # in Ray's words


@pytest.mark.native
def test_batches_move_to_a_device(gpu: SimDoor) -> None:
    batches = rows(16).iter_batches(batch_size=8)
    got = 0
    for batch in dlferry.prefetch(batches, "cuda"):
        assert gpu.sim.stream_wait(gpu.current_stream(0)) == 0
        expected = torch.arange(got, got + 8.0)[:, None, None].expand(8, 2, 3)
        assert torch.equal(read(batch["x"]), expected)
        assert batch["name"].tolist() == [str(i) for i in range(got, got + 8)]
        got += 8
    del batch
    assert got == 16
