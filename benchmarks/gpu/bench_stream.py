"""How much of the copying of batches hides behind the work on them?

A model works on one batch after the other while the next ones are on their way. Its step reads the
whole batch once and then keeps the GPU busy for a time chosen by what `dlferry.prefetch` takes for
a batch that nobody works on: a quarter more, so that only the steps should count, or half of it, so
that only the copies should. The batches are in memory already. A DataLoader gets each of them
whole: from this process, or from workers, which hand over shared memory without copying it.
"""

from __future__ import annotations

import shutil
import statistics
from collections import deque
from collections.abc import Iterable, Iterator
from functools import cached_property
from pathlib import Path
from time import perf_counter
from typing import Any, cast

import numpy as np
import torch
from torch.utils.data import DataLoader, Dataset

import dlferry
from benchmarks.gpu import hardware
from benchmarks.gpu.hardware import MIB
from benchmarks.harness import Case, Contestant, Settings
from benchmarks.report import Agenda, Skipped

QUESTION = "How much of the copying of batches hides behind the work on them?"
ROUNDS = 11
ASKED_OF_LIMIT = 1 / 1.05
ASKED_OF_LINK = 0.85
LONGER, SHORTER = 1.25, 0.5
DISTINCT = 6
WORKERS = 2
SHARED_MEMORY = Path("/dev/shm")


class Batches(Dataset[torch.Tensor]):
    """So many batches of random int32, of which the first few come again and again."""

    def __init__(self, rng: np.random.Generator, count: int, size: int, shared: bool) -> None:
        self.tensors = [_random(rng, size, shared) for _ in range(min(DISTINCT, count))]
        self._count = count

    def __len__(self) -> int:
        return self._count

    def __getitem__(self, place: int) -> torch.Tensor:
        return self.tensors[place % len(self.tensors)]


class Source:
    """The same batches as ndarrays, one after the other, and by way of DataLoaders."""

    def __init__(self, batches: Batches) -> None:
        self.batches = batches
        self._sums = [int(tensor.sum()) for tensor in batches.tensors]

    def __len__(self) -> int:
        return len(self.batches)

    def __iter__(self) -> Iterator[Any]:
        return (self.batches[place].numpy() for place in range(len(self)))

    @property
    def sums(self) -> list[int]:
        return [self._sums[place % len(self._sums)] for place in range(len(self))]

    @cached_property
    def loader(self) -> DataLoader[torch.Tensor]:
        return DataLoader(self.batches, batch_size=None, pin_memory=hardware.on_gpu())

    @cached_property
    def loader_with_workers(self) -> DataLoader[torch.Tensor]:
        """Its workers are started once and stay as long as this source does."""
        return DataLoader(
            self.batches,
            batch_size=None,
            pin_memory=hardware.on_gpu(),
            num_workers=WORKERS,
            persistent_workers=True,
            timeout=60,
        )


class Model:
    """Works on batches for so long each."""

    def __init__(self, seconds: float) -> None:
        self._spin = hardware.spinner(seconds)

    def __call__(self, batches: Iterable[torch.Tensor]) -> list[torch.Tensor]:
        return [self._step(batch) for batch in batches]

    def _step(self, batch: torch.Tensor) -> torch.Tensor:
        total = batch.sum()
        self._spin()
        return total


class StreamCases:
    """The rows: `count` batches of `size` bytes."""

    def __init__(self, count: int, size: int, shared: bool) -> None:
        self._count = count
        self._size = size
        self._shared = shared
        _, self._memory = hardware.pinned_limit(size)

    def all(self, seconds: float) -> list[Case]:
        """Both, where copying one batch takes so long."""
        copies = "done(taken(dlferry.prefetch(x, cuda)))"
        steps = "done(model([resident] * len(x)))"
        copies_label, steps_label = "the limit: the copies alone", "the limit: the steps alone"
        link = "done([there.copy_(pinned, non_blocking=True) for _ in x])"
        return [
            self._case(
                "steps a quarter longer than the copies",
                LONGER * seconds,
                _limit(steps, steps_label, ASKED_OF_LIMIT),
                _limit(copies, copies_label),
            ),
            self._case(
                "steps half as long as the copies",
                SHORTER * seconds,
                _limit(copies, copies_label, ASKED_OF_LIMIT),
                _limit(steps, steps_label),
                _limit(link, "the limit: pinned copies into memory that is there", ASKED_OF_LINK),
                *self._loaders(),
            ),
        ]

    def source(self, rng: np.random.Generator) -> Source:
        return Source(Batches(rng, self._count, self._size, self._shared))

    def _case(self, title: str, step_seconds: float, *others: Contestant) -> Case:
        resident = torch.zeros(self._size // 4, dtype=torch.int32, device=hardware.device())
        return Case(
            f"{self._count} batches of {self._size // MIB} MiB, {title}",
            Contestant("done(model(dlferry.prefetch(x, cuda)))"),
            others,
            self.source,
            _all_sums,
            hardware.names(
                **self._memory, model=Model(step_seconds), taken=taken, resident=resident
            ),
            moved_bytes=self._count * self._size,
        )

    def _loaders(self) -> list[Contestant]:
        moved = "done(model(batch.to(cuda, non_blocking=True) for batch in x.{}))"
        rivals = [Contestant(moved.format("loader"), 1.3, label="DataLoader(pin_memory=True)")]
        if self._shared:
            label = f"DataLoader(pin_memory=True, num_workers={WORKERS})"
            rivals.append(Contestant(moved.format("loader_with_workers"), 1.3, label=label))
        return rivals


def taken(batches: Iterable[torch.Tensor]) -> None:
    """Takes all batches, and does nothing with them."""
    deque(batches, maxlen=0)


def copy_seconds(source: Source) -> float:
    """What `prefetch` takes for a batch that nobody works on."""
    _seconds_of_copies(source)  # which makes threads and staging memory
    return statistics.median(_seconds_of_copies(source) for _ in range(5)) / len(source)


def _seconds_of_copies(source: Source) -> float:
    started = perf_counter()
    taken(dlferry.prefetch(source, hardware.device()))
    hardware.wait()
    return perf_counter() - started


def _limit(statement: str, label: str, asked: float | None = None) -> Contestant:
    return Contestant(statement, asked, limit=True, label=label)


def _random(rng: np.random.Generator, size: int, shared: bool) -> torch.Tensor:
    tensor: Any = torch.from_numpy(rng.integers(0, 2**31, size // 4, dtype=np.int32))
    return cast("torch.Tensor", tensor.share_memory_() if shared else tensor)


def _all_sums(x: Source, result: Any) -> bool:
    """The sum of each batch, in their order, from the device."""
    on_device = all(total.device == hardware.device() for total in result)
    return on_device and [int(total) for total in result] == x.sums


def _room_to_share(size: int) -> bool:
    """Whether shared memory takes three sources; what does not fit in it ends the process."""
    return SHARED_MEMORY.is_dir() and shutil.disk_usage(SHARED_MEMORY).free > 3 * DISTINCT * size


def plan(settings: Settings) -> Agenda:
    count, size = (16, MIB) if settings.quick else (64, 64 * MIB)
    shared = _room_to_share(size)
    cases = StreamCases(count, size, shared)
    agenda = Agenda(cases.all(copy_seconds(cases.source(np.random.default_rng(settings.seed)))))
    if not shared:
        agenda.skipped.append(
            Skipped("a DataLoader with workers", f"{SHARED_MEMORY} has too little room")
        )
    return agenda


if __name__ == "__main__":
    raise SystemExit(hardware.main("bench_stream", QUESTION, plan, rounds=ROUNDS))
