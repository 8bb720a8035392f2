"""The core's way with sequences against the general route: one result, or one error.

The general route in Python is the reference. It is called here by its private name, because the
public one takes it only for what the core leaves.
"""

from __future__ import annotations

import random
import warnings
from typing import Any

import numpy as np
import pytest
import torch
from kinds import NUMPY_TO_TORCH, TORCH_DTYPES
from regions import assert_same_values

import dlferry
from dlferry import _convert, _stack

pytestmark = pytest.mark.native


def outcome(function: Any, *args: Any, **keywords: Any) -> Any:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        warnings.filterwarnings("ignore", message="ComplexHalf")  # torch's, once in a process
        try:
            return function(*args, **keywords)
        except Exception as error:  # noqa: BLE001  # whatever it is, it is to be the same
            return error


def assert_same_outcome(ours: Any, reference: Any) -> None:
    if isinstance(reference, Exception):
        assert type(ours) is type(reference) and str(ours) == str(reference)
    else:
        assert isinstance(ours, torch.Tensor), ours
        assert_same_values(ours, reference)
        assert ours.requires_grad == reference.requires_grad
        assert ours.stride() == reference.stride()


NUMBERS: list[Any] = [
    True, False, 0, 1, -1, 300, -129, 2**30, 2**60, 2**63, -(2**63), 2**64, 10**40, 10**400,
    0.0, -0.0, 1.5, -0.5, 255.9, 1e39, -1e300, 65519.0, 65520.0, float("inf"), float("nan"),
    1j, 1e39j, complex("nan"), np.float32(1.5), np.int8(-3), np.uint64(2**64 - 1), np.bool_(True),
    np.float64(1e300), np.complex64(2j), np.longdouble(1), np.datetime64(5, "s"), np.str_("a"),
]  # fmt: skip
DTYPES: list[Any] = [None, *TORCH_DTYPES, torch.complex32]


@pytest.mark.parametrize("x", NUMBERS, ids=repr)
def test_every_number_in_every_dtype(x: Any) -> None:
    for dtype in DTYPES:
        for obj in (x, [x], [[1, x]], (True, [x][0]), [np.int16(2), x]):
            ours = outcome(dlferry.asarray, obj, dtype=dtype)
            assert_same_outcome(ours, outcome(_convert.asarray, obj, dtype=dtype))


def leaf(rng: random.Random, shape: tuple[int, ...]) -> Any:
    kind = rng.choice(list(NUMPY_TO_TORCH))
    array = np.asarray(np.random.default_rng(rng.randrange(99)).integers(0, 9, shape)).astype(kind)
    way = rng.randrange(6)
    if way == 0:
        return torch.from_numpy(array)
    if way == 1:
        return torch.from_numpy(array).clone().requires_grad_(kind is np.float32)
    if way == 2:
        return array[::-1] if array.ndim else array[()]
    if way == 3:
        return np.asfortranarray(array)
    return array.astype(array.dtype.newbyteorder(">")) if way == 4 else array


def nested(rng: random.Random, shape: tuple[int, ...], numbers: list[Any]) -> Any:
    """A list of this shape, now and then a little wrong."""
    if rng.random() < 0.2:
        return leaf(rng, shape)
    if not shape:
        return rng.choice(numbers)
    count = shape[0] + (rng.random() < 0.02)
    items = [nested(rng, shape[1:], numbers) for _ in range(count)]
    return tuple(items) if rng.random() < 0.3 else items


@pytest.mark.parametrize("seed", range(40))
def test_random_sequences(seed: int) -> None:
    rng = random.Random(seed)
    for _ in range(25):
        numbers = rng.choice([[True, False], [1, -2], [1.5, 2], [1, 2.5, 1j], NUMBERS])
        shape = tuple(rng.randrange(4) for _ in range(rng.randrange(4)))
        x = [nested(rng, shape, numbers) for _ in range(rng.randrange(5))]
        dtype = rng.choice(DTYPES) if rng.random() < 0.5 else None
        ours = outcome(dlferry.asarray, x, dtype=dtype)
        assert_same_outcome(ours, outcome(_convert.asarray, x, dtype=dtype))
        ours = outcome(dlferry.stack, x, dtype=dtype)
        assert_same_outcome(ours, outcome(_stack.stack, x, dtype=dtype))
