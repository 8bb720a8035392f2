"""How fast do Python sequences become tensors?

Lists of numbers are parsed, lists of arrays are stacked; nothing can be shared. NumPy's way is
asked for the dtype that torch infers, so that all contestants give the same tensor.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable
from typing import Any

import numpy as np
import torch

import dlferry
from benchmarks.harness import Case, Contestant, Settings
from benchmarks.report import Agenda, main

QUESTION = "How fast do Python sequences become tensors?"
NAMES = {"dlferry": dlferry, "torch": torch, "np": np}


def cases() -> list[Case]:
    through_float32 = Contestant("torch.from_numpy(np.array(x, dtype=np.float32))", 6.0)
    through_int64 = Contestant("torch.from_numpy(np.array(x, dtype=np.int64))", 6.0)
    element_by_element = Contestant("torch.tensor(x)", 50.0)
    return [
        _case(
            "1000 floats",
            lambda rng: rng.random(1000).tolist(),
            element_by_element,
            through_float32,
        ),
        _case("1000 ints", _ints, element_by_element, through_int64),
        _case(
            "100x100 nested floats",
            lambda rng: rng.random((100, 100)).tolist(),
            element_by_element,
            through_float32,
        ),
        _case(
            "64 arrays of 3x32x32 float32",
            lambda rng: [rng.random((3, 32, 32), dtype=np.float32) for _ in range(64)],
            Contestant("torch.tensor(x)", 300.0),
            Contestant("torch.from_numpy(np.stack(x))", 1.2),
        ),
    ]


def _ints(rng: np.random.Generator) -> list[int]:
    return [int(number) for number in rng.integers(-(2**40), 2**40, 1000)]


def _case(title: str, make: Callable[[np.random.Generator], Any], *others: Contestant) -> Case:
    return Case(title, Contestant("dlferry.asarray(x)"), others, make, _same, NAMES)


def _same(x: Any, result: torch.Tensor) -> bool:
    """The values, in the dtype that torch infers."""
    values = np.array(x)
    if values.dtype.kind == "f":
        values = values.astype(np.float32)
    converted = result.numpy()
    return converted.dtype == values.dtype and np.array_equal(values, converted)


def plan(_settings: Settings) -> Agenda:
    # torch.tensor warns once that it is slow on a list of arrays, which is the point here.
    warnings.filterwarnings("ignore", message="Creating a tensor from a list of numpy.ndarrays")
    return Agenda(cases())


if __name__ == "__main__":
    raise SystemExit(main("bench_sequences", QUESTION, plan))
