"""What does one small array cost on its way to a GPU that has nothing to do?"""

from __future__ import annotations

import numpy as np

from benchmarks.gpu import hardware
from benchmarks.harness import Case, Contestant, Settings
from benchmarks.report import Agenda

QUESTION = "What does one small array cost on its way to a GPU that has nothing to do?"
ROUNDS = 2 * hardware.ROUNDS
SIZE = 4096


def case() -> Case:
    limit, memory = hardware.pinned_limit(SIZE)
    return Case(
        "one array of 4 KiB",
        Contestant("done(dlferry.asarray(x, device=cuda))"),
        (
            Contestant("done(torch.as_tensor(x, device=cuda))", 1.0),
            Contestant("done(torch.from_numpy(x).pin_memory().to(cuda, non_blocking=True))", 1.0),
            limit,
        ),
        lambda rng: rng.random(SIZE // 4, dtype=np.float32),
        hardware.same,
        hardware.names(**memory),
    )


def plan(_settings: Settings) -> Agenda:
    return Agenda([case()])


if __name__ == "__main__":
    raise SystemExit(hardware.main("bench_small", QUESTION, plan, rounds=ROUNDS))
