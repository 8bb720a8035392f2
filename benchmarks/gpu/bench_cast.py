"""How fast do images of bytes become float32 on the GPU?

The bytes cross the link, and are widened there. `torch.as_tensor` widens them on the host; by hand
one would copy the bytes, page-locked or not, and widen them on the GPU too.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from benchmarks.gpu import hardware
from benchmarks.harness import Case, Contestant, Settings
from benchmarks.report import Agenda

QUESTION = "How fast do images of bytes become float32 on the GPU?"
ROUNDS = hardware.ROUNDS


def case(count: int) -> Case:
    shape = (count, 224, 224, 3)
    size = int(np.prod(shape))
    limit, memory = hardware.pinned_limit(size)
    return Case(
        f"{size / 1e6:.1f} MB of uint8 to float32",
        Contestant("done(dlferry.asarray(x, dtype=torch.float32, device=cuda))"),
        (
            Contestant("done(torch.as_tensor(x, dtype=torch.float32, device=cuda))", 15.0),
            Contestant(
                "done(torch.from_numpy(x).pin_memory().to(cuda, non_blocking=True).float())", 2.5
            ),
            Contestant("done(torch.from_numpy(x).to(cuda).float())", 2.5),
            limit,
        ),
        lambda rng: rng.integers(0, 256, shape, dtype=np.uint8),
        _widened,
        hardware.names(**memory),
        moved_bytes=size,
    )


def _widened(x: NDArray[np.uint8], result: Any) -> bool:
    return hardware.same(x.astype(np.float32), result)


def plan(settings: Settings) -> Agenda:
    return Agenda([case(8 if settings.quick else 256)])


if __name__ == "__main__":
    raise SystemExit(hardware.main("bench_cast", QUESTION, plan, rounds=ROUNDS))
