"""How fast do samples become a batch?

`default_collate` makes a tensor of each array before it stacks them; `np.stack` is what people
write by hand where that is too slow. All rows run in this process, as in a DataLoader without
workers; the last one as in a worker, where one thread stacks into shared memory.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch
from torch.utils.data import default_collate

import dlferry
from benchmarks.harness import Case, Contestant, Settings
from benchmarks.report import Agenda, main
from dlferry._native import core

QUESTION = "How fast do samples become a batch?"
COUNT = 64

Samples = list[Any]
Make = Callable[[np.random.Generator], Samples]


def cases(image_side: int) -> list[Case]:
    """The rows, with images of this height and width.

    What torch does as fast as memory allows is only asked not to become much slower: small tensors,
    which are left to `torch.stack`, and large batches in a worker, where clearing the pages of
    fresh shared memory takes most of the time.
    """
    image = (3, image_side, image_side)
    by_hand = Contestant("torch.from_numpy(np.stack(x))", 0.9)
    return [
        _case("uint8 images", _each(lambda rng: _bytes(rng, image)), 2.0, by_hand),
        _case(
            "float32 images of 3x32x32", _each(lambda rng: _floats(rng, (3, 32, 32))), 2.0, by_hand
        ),
        _case("16 float32 each", _each(lambda rng: _floats(rng, (16,))), 5.0, by_hand),
        _case("float32 tensors of 3x32x32", _tensors((3, 32, 32)), 0.7),
        _case("large float32 tensors", _tensors((3, 2 * image_side, image_side)), 1.0),
        _case("NumPy scalars", _each(lambda rng: np.float32(rng.random())), 1.2),
        _case("dicts of image, box, label and name", _dicts, 2.0),
        _in_worker("uint8 images, in a worker", _each(lambda rng: _bytes(rng, image)), 0.9),
    ]


def _case(title: str, make: Make, at_least: float, *others: Contestant) -> Case:
    return Case(
        f"{COUNT} {title}",
        Contestant("dlferry.collate(x)"),
        (Contestant("default_collate(x)", at_least), *others),
        make,
        _same,
        {"dlferry": dlferry, "default_collate": default_collate, "np": np, "torch": torch},
    )


def _in_worker(title: str, make: Make, at_least: float) -> Case:
    return Case(
        f"{COUNT} {title}",
        Contestant("ours(x)", label="dlferry.collate(x)"),
        (Contestant("theirs(x)", at_least, label="default_collate(x)"),),
        make,
        _same,
        {"ours": _as_worker(dlferry.collate), "theirs": _as_worker(default_collate)},
    )


def _as_worker(collate: Callable[[Samples], Any]) -> Callable[[Samples], Any]:
    def run(samples: Samples) -> Any:
        with _worker():
            return collate(samples)

    return run


@contextmanager
def _worker() -> Iterator[None]:
    """What torch and dlferry see in a worker; neither copies with more than one thread there."""
    worker: Any = torch.utils.data._utils.worker
    theirs, ours = torch.get_num_threads(), core.worker_count()
    worker._worker_info = object()
    torch.set_num_threads(1)
    core.set_worker_count(1)
    try:
        yield
    finally:
        worker._worker_info = None
        torch.set_num_threads(theirs)
        core.set_worker_count(ours)


# --- samples ---


def _each(make: Callable[[np.random.Generator], Any]) -> Make:
    return lambda rng: [make(rng) for _ in range(COUNT)]


def _bytes(rng: np.random.Generator, shape: tuple[int, ...]) -> Any:
    return rng.integers(0, 256, shape, dtype=np.uint8)


def _floats(rng: np.random.Generator, shape: tuple[int, ...]) -> Any:
    return rng.random(shape, dtype=np.float32)


def _tensors(shape: tuple[int, ...]) -> Make:
    return _each(lambda rng: torch.from_numpy(_floats(rng, shape)))


def _dicts(rng: np.random.Generator) -> Samples:
    return [
        {
            "image": _floats(rng, (3, 32, 32)),
            "box": rng.random(4),
            "label": i,
            "name": f"sample {i}",
        }
        for i in range(COUNT)
    ]


def _same(samples: Samples, result: Any) -> bool:
    """The batch of torch, element by element."""
    return _equal(default_collate(samples), result)


def _equal(expected: Any, result: Any) -> bool:
    if isinstance(expected, torch.Tensor):
        return expected.dtype == result.dtype and torch.equal(expected, result)
    if isinstance(expected, Mapping):
        return list(expected) == list(result) and all(
            _equal(expected[key], result[key]) for key in expected
        )
    return bool(expected == result)


def plan(settings: Settings) -> Agenda:
    return Agenda(cases(64 if settings.quick else 224))


if __name__ == "__main__":
    raise SystemExit(main("bench_collate", QUESTION, plan, rounds=21))
