"""What does one conversion cost?

Small arrays on the host, memory shared, nothing copied: only the cost of the call is left. Each
result is checked to share its input's memory before anything is timed.

`to_numpy` is measured on the same tensor again and again, and on a tensor that has never been
converted before.
"""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

import dlferry
from benchmarks.harness import Case, Contestant, Inputs, Settings, Spread
from benchmarks.report import Agenda, Figure, main

QUESTION = "What does one conversion cost?"
NAMES = {"dlferry": dlferry, "torch": torch, "np": np}

_IMPORT = """
import time
import numpy, torch
started = time.perf_counter_ns()
import dlferry
print(time.perf_counter_ns() - started)
"""


def cases(make_array: Callable[[np.random.Generator], NDArray[Any]]) -> list[Case]:
    """The conversions of one kind of array and of tensors on such arrays' memory.

    Args:
        make_array: Makes a writable array that torch can share.
    """

    def make_tensor(rng: np.random.Generator) -> torch.Tensor:
        return torch.from_numpy(make_array(rng))

    def make_own_tensor(rng: np.random.Generator) -> torch.Tensor:
        return make_tensor(rng).clone()  # on memory of torch's, not converted before

    def case(
        title: str,
        make: Callable[[np.random.Generator], Any],
        ours: str,
        *others: tuple[str, float | None],
        inputs: Inputs = "once",
        as_written: bool = False,
    ) -> Case:
        rivals = tuple(Contestant(statement, at_least) for statement, at_least in others)
        return Case(
            title,
            Contestant(ours),
            rivals,
            make,
            shares,
            NAMES,
            inputs=inputs,
            as_written=as_written,
        )

    to_numpy = (
        "dlferry.to_numpy(x)",
        ("x.numpy()", 2.3),
        ("np.asarray(x)", 4.0),
    )
    return [
        case(
            "array to tensor",
            make_array,
            "dlferry.asarray(x)",
            ("torch.as_tensor(x)", 4.0),
            ("torch.asarray(x)", 2.2),
            ("torch.from_numpy(x)", 1.45),
        ),
        case(
            "array to tensor, both names looked up",
            make_array,
            "dlferry.asarray(x)",
            ("torch.from_numpy(x)", None),
            as_written=True,
        ),
        case("tensor to itself", make_tensor, "dlferry.asarray(x)", ("torch.asarray(x)", 10.0)),
        case(
            "tensor by DLPack",
            make_tensor,
            "dlferry.from_dlpack(x)",
            ("torch.from_dlpack(x)", 9.0),
        ),
        case(
            "array by DLPack",
            make_array,
            "dlferry.from_dlpack(x)",
            ("torch.from_dlpack(x)", 3.0),
        ),
        case("tensor to array, the same again", make_tensor, *to_numpy),
        case(
            "tensor to array, the first time",
            make_own_tensor,
            "dlferry.to_numpy(x)",
            ("x.numpy()", None),
            ("np.asarray(x)", None),
            inputs="call",
        ),
    ]


def shares(x: NDArray[Any] | torch.Tensor, result: NDArray[Any] | torch.Tensor) -> bool:
    """Whether a result has the values, shape, layout, dtype and memory of `x`."""
    before, after = _as_array(x), _as_array(result)
    return (
        before.__array_interface__["data"][0] == after.__array_interface__["data"][0]
        and before.shape == after.shape
        and before.strides == after.strides
        and before.dtype == after.dtype
        and np.array_equal(before, after)
    )


def _as_array(x: NDArray[Any] | torch.Tensor) -> NDArray[Any]:
    return x.numpy() if isinstance(x, torch.Tensor) else x


def small_array(rng: np.random.Generator) -> NDArray[np.float32]:
    """A 4x8 float32 array of random numbers."""
    return rng.random((4, 8), dtype=np.float32)


def import_time(settings: Settings) -> Figure:
    """How long `import dlferry` takes in a new process that has imported torch and NumPy."""
    runs = 3 if settings.quick else 10
    milliseconds = []
    for _ in range(runs):
        command = [sys.executable, "-c", _IMPORT]
        done = subprocess.run(command, check=True, capture_output=True, text=True)
        milliseconds.append(int(done.stdout) / 1e6)
    # The first process may still have had to compile or to read from disk.
    spread = Spread.of(milliseconds[1:])
    return Figure("import dlferry, after torch and NumPy", "ms", spread, at_most=20.0)


def plan(_settings: Settings) -> Agenda:
    return Agenda(cases(small_array), [import_time])


if __name__ == "__main__":
    raise SystemExit(main("bench_exchange_latency", QUESTION, plan))
