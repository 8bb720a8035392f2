"""How long does a call keep the host while the GPU has work queued?

Before each call, kernels of 100 ms are queued on the current stream; after it, outside of the
timing, the device finishes them. So what counts is the time until the call returns, not that of the
copy.
"""

from __future__ import annotations

import numpy as np

from benchmarks.gpu import hardware
from benchmarks.gpu.hardware import MIB
from benchmarks.harness import Case, Contestant, Settings
from benchmarks.report import Agenda

QUESTION = "How long does a call keep the host while the GPU has 100 ms of work queued?"
ROUNDS = hardware.ROUNDS
QUEUED_SECONDS = 0.1


def cases(large: int) -> list[Case]:
    return [
        _case("64 KiB", 64 * 1024, at_most_ms=0.2, pinned_at_least=1.0),
        _case(f"{large // MIB} MiB", large, at_most_ms=10.0),
    ]


def _case(title: str, size: int, at_most_ms: float, pinned_at_least: float | None = None) -> Case:
    return Case(
        f"{title} behind 100 ms of kernels",
        Contestant("dlferry.asarray(x, device=cuda)", at_most_ns=at_most_ms * 1e6),
        (
            Contestant("torch.as_tensor(x, device=cuda)"),
            Contestant(
                "torch.from_numpy(x).pin_memory().to(cuda, non_blocking=True)", pinned_at_least
            ),
        ),
        lambda rng: rng.random(size // 4, dtype=np.float32),
        hardware.same,
        hardware.names(),
        around=hardware.Queue(QUEUED_SECONDS),
    )


def plan(settings: Settings) -> Agenda:
    return Agenda(cases((4 if settings.quick else 64) * MIB))


if __name__ == "__main__":
    raise SystemExit(hardware.main("bench_queued", QUESTION, plan, rounds=ROUNDS))
