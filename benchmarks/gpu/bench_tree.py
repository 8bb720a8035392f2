"""How fast do many small arrays get to the GPU together?"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from benchmarks.gpu import hardware
from benchmarks.harness import Case, Contestant, Settings
from benchmarks.report import Agenda

QUESTION = "How fast do many small arrays get to the GPU together?"
ROUNDS = 2 * hardware.ROUNDS
COUNT = 100
ELEMENTS = 1024

TOGETHER = (
    "done(dict(zip(x, torch.from_numpy(np.concatenate(list(x.values()))).pin_memory()"
    f".to(cuda, non_blocking=True).split({ELEMENTS}))))"
)


def case() -> Case:
    return Case(
        f"dict of {COUNT} arrays of 4 KiB",
        Contestant("done(dlferry.to_device(x, cuda))"),
        (
            Contestant("done({k: torch.as_tensor(v, device=cuda) for k, v in x.items()})", 10.0),
            Contestant(
                "done({k: torch.from_numpy(v).pin_memory().to(cuda, non_blocking=True)"
                " for k, v in x.items()})",
                8.0,
            ),
            Contestant(TOGETHER, 1.0),
        ),
        _arrays,
        hardware.same_dict,
        hardware.names(),
        moved_bytes=COUNT * ELEMENTS * 4,
    )


def _arrays(rng: np.random.Generator) -> dict[str, NDArray[Any]]:
    return {f"parameter {i}": rng.random(ELEMENTS, dtype=np.float32) for i in range(COUNT)}


def plan(_settings: Settings) -> Agenda:
    return Agenda([case()])


if __name__ == "__main__":
    raise SystemExit(hardware.main("bench_tree", QUESTION, plan, rounds=ROUNDS))
