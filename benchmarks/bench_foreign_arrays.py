"""What does it cost to share the memory of another library's array?

JAX and Arrow arrays are immutable, so sharing them has to be asked for: `readonly="share"`. Both
sides call the producer's own `__dlpack__`; its cost is shown too, since no consumer can be faster.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable
from typing import Any

import numpy as np
import torch

import dlferry
from benchmarks.harness import Case, Contestant, Settings
from benchmarks.report import Agenda, Skipped, main

QUESTION = "What does it cost to share the memory of another library's array?"
SIZE = 1024


def plan(_settings: Settings) -> Agenda:
    agenda = Agenda()
    for title, module, make_case in (
        ("JAX array", "jax", _jax_case),
        ("Arrow array", "pyarrow", _arrow_case),
    ):
        try:
            library = importlib.import_module(module)
        except ImportError as missing:
            agenda.skipped.append(Skipped(title, f"{missing}; install {module} to measure it"))
            continue
        agenda.cases.append(make_case(f"{title} ({module} {library.__version__})", library))
    return agenda


def _jax_case(title: str, jax: Any) -> Case:
    jax.config.update("jax_platforms", "cpu")
    return _case(
        title,
        lambda rng: jax.block_until_ready(jax.numpy.asarray(rng.random(SIZE, dtype=np.float32))),
        lambda x: int(x.unsafe_buffer_pointer()),
    )


def _arrow_case(title: str, pyarrow: Any) -> Case:
    return _case(
        title,
        lambda rng: pyarrow.array(rng.random(SIZE, dtype=np.float32)),
        lambda x: int(x.buffers()[1].address),
    )


def _case(
    title: str, make: Callable[[np.random.Generator], Any], address: Callable[[Any], int]
) -> Case:
    def shares(x: Any, result: Any) -> bool:
        if not isinstance(result, torch.Tensor):  # the capsule of the producer's own export
            return type(result).__name__ == "PyCapsule"
        return result.data_ptr() == address(x) and np.array_equal(np.asarray(x), result.numpy())

    return Case(
        title,
        Contestant('dlferry.asarray(x, readonly="share")'),
        (
            Contestant("torch.from_dlpack(x)", 1.4),
            Contestant("x.__dlpack__(max_version=(1, 0))"),
        ),
        make,
        shares,
        {"dlferry": dlferry, "torch": torch},
    )


if __name__ == "__main__":
    raise SystemExit(main("bench_foreign_arrays", QUESTION, plan))
