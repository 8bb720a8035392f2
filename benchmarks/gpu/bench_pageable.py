"""How fast does a large array of ordinary memory get to the GPU?"""

from __future__ import annotations

import numpy as np

from benchmarks.gpu import hardware
from benchmarks.gpu.hardware import MIB
from benchmarks.harness import Case, Contestant, Settings
from benchmarks.report import Agenda

QUESTION = "How fast does a large array of ordinary memory get to the GPU?"
ROUNDS = hardware.ROUNDS


def case(size: int) -> Case:
    limit, memory = hardware.pinned_limit(size, asked=0.85)
    return Case(
        f"{size // MIB} MiB of pageable float32",
        Contestant("done(dlferry.asarray(x, device=cuda))"),
        (
            Contestant("done(torch.as_tensor(x, device=cuda))", 3.0),
            Contestant("done(torch.from_numpy(x).pin_memory().to(cuda, non_blocking=True))", 1.5),
            limit,
        ),
        lambda rng: rng.random(size // 4, dtype=np.float32),
        hardware.same,
        hardware.names(**memory),
        moved_bytes=size,
    )


def plan(settings: Settings) -> Agenda:
    return Agenda([case((16 if settings.quick else 256) * MIB)])


if __name__ == "__main__":
    raise SystemExit(hardware.main("bench_pageable", QUESTION, plan, rounds=ROUNDS))
