"""How fast does a list of images become a batch on the GPU?

`torch.as_tensor` reads such a list number by number; by hand one would stack first.
"""

from __future__ import annotations

import warnings
from typing import Any

import numpy as np
from numpy.typing import NDArray

from benchmarks.gpu import hardware
from benchmarks.harness import Case, Contestant, Settings
from benchmarks.report import Agenda

QUESTION = "How fast does a list of images become a batch on the GPU?"
ROUNDS = 11  # torch takes about a second for each
COUNT = 64


def case(side: int) -> Case:
    shape = (3, side, side)
    size = COUNT * 3 * side * side
    limit, memory = hardware.pinned_limit(size)
    return Case(
        f"{COUNT} images of {size // COUNT / 1e3:.0f} KB",
        Contestant("done(dlferry.stack(x, device=cuda))"),
        (
            Contestant("done(torch.as_tensor(x, device=cuda))", 500.0),
            Contestant(
                "done(torch.from_numpy(np.stack(x)).pin_memory().to(cuda, non_blocking=True))", 2.5
            ),
            Contestant("done(torch.as_tensor(np.stack(x), device=cuda))", 2.5),
            limit,
        ),
        lambda rng: [rng.integers(0, 256, shape, dtype=np.uint8) for _ in range(COUNT)],
        _stacked,
        hardware.names(**memory),
        moved_bytes=size,
    )


def _stacked(x: list[NDArray[Any]], result: Any) -> bool:
    return hardware.same(np.stack(x), result)


def plan(settings: Settings) -> Agenda:
    # torch warns once that it is slow on a list of arrays, which is the point here.
    warnings.filterwarnings("ignore", message="Creating a tensor from a list of numpy.ndarrays")
    return Agenda([case(32 if settings.quick else 224)])


if __name__ == "__main__":
    raise SystemExit(hardware.main("bench_images", QUESTION, plan, rounds=ROUNDS))
