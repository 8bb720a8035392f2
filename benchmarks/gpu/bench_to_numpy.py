"""How fast does a large tensor of the GPU become a NumPy array?"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch

from benchmarks.gpu import hardware
from benchmarks.gpu.hardware import MIB
from benchmarks.harness import Case, Contestant, Settings
from benchmarks.report import Agenda

QUESTION = "How fast does a large tensor of the GPU become a NumPy array?"
ROUNDS = hardware.ROUNDS


def case(size: int) -> Case:
    """The row; `warm` is page-locked memory that is there already, written again by each call."""
    return Case(
        f"{size // MIB} MiB of float32 to NumPy",
        Contestant("done(dlferry.to_numpy(x))"),
        (
            Contestant("done(x.cpu().numpy())", 10.0),
            Contestant("done(warm.copy_(x, non_blocking=True)).numpy()", 0.95),
        ),
        lambda rng: torch.from_numpy(rng.random(size // 4, dtype=np.float32)).to(hardware.device()),
        _array_of,
        hardware.names(warm=hardware.page_locked((size // 4,)).fill_(0)),
        moved_bytes=size,
    )


def _array_of(x: torch.Tensor, result: Any) -> bool:
    return (
        type(result) is np.ndarray
        and result.dtype == np.float32
        and np.array_equal(x.cpu().numpy(), result)
    )


def plan(settings: Settings) -> Agenda:
    return Agenda([case((16 if settings.quick else 256) * MIB)])


if __name__ == "__main__":
    raise SystemExit(hardware.main("bench_to_numpy", QUESTION, plan, rounds=ROUNDS))
