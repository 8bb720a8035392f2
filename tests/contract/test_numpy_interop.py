"""Between NumPy and torch as torch's own users expect it, with the entrances exchanged."""

from __future__ import annotations

import operator
import sys
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from kinds import NUMPY_TO_TORCH, TORCH_DTYPES, name
from regions import same_memory
from torch.testing import make_tensor

import dlferry

NUMPYS = list(NUMPY_TO_TORCH.items())
REAL = [(kind, dtype) for kind, dtype in NUMPYS if not dtype.is_complex]

# Parts of a grid of ten rows and six columns, each with an offset into its storage or holes.
PARTS: dict[str, Callable[[Any], Any]] = {
    "row": lambda t: t[4],
    "rows": lambda t: t.narrow(0, 2, 5),
    "columns": lambda t: t.narrow(1, 1, 3),
    "turned": lambda t: t.narrow(0, 4, 5).t(),
    "turned, with holes": lambda t: t.narrow(0, 4, 5).narrow(1, 2, 3).t(),
    "element": lambda t: t[3, 3],
    "nothing": lambda t: t[:0],
}


def grid(dtype: torch.dtype) -> torch.Tensor:
    torch.manual_seed(0)
    return make_tensor((10, 6), dtype=dtype, device="cpu", low=0, high=100)


@pytest.mark.parametrize(("kind", "dtype"), NUMPYS, ids=lambda x: name(x))
@pytest.mark.parametrize("part", PARTS)
def test_an_array_shows_each_element_of_a_part(kind: Any, dtype: torch.dtype, part: str) -> None:
    t = PARTS[part](grid(dtype))
    a = dlferry.to_numpy(t)
    assert a.dtype == kind and a.shape == tuple(t.shape)
    assert a.ravel().tolist() == t.reshape(-1).tolist()
    assert a.flags.c_contiguous == t.is_contiguous()


@pytest.mark.parametrize(("kind", "dtype"), NUMPYS, ids=lambda x: name(x))
@pytest.mark.parametrize("part", ["rows", "turned, with holes"])
def test_an_array_writes_through_to_a_part(kind: Any, dtype: torch.dtype, part: str) -> None:
    whole = grid(dtype)
    t = PARTS[part](whole)
    a = dlferry.to_numpy(t)
    a[0, 1] = 1
    a[-1] = 0
    assert t[0, 1] == 1 and not t[-1].any()
    assert t.data_ptr() == a.ctypes.data and same_memory(t, a)


@pytest.mark.parametrize(("kind", "dtype"), NUMPYS, ids=lambda x: name(x))
def test_a_tensor_shows_each_element_of_a_part(kind: Any, dtype: torch.dtype) -> None:
    cube = (np.arange(125) % 100).astype(kind).reshape(5, 5, 5)
    for a in (
        cube[1],
        cube[:, 1],
        cube[2].T,
        cube[1:, ::2, 3],
        cube[4, 4, 4:],
        cube[:0],
        cube[:, :0],
    ):
        t = dlferry.asarray(a)
        assert t.dtype == dtype and tuple(t.shape) == a.shape
        assert t.reshape(-1).tolist() == a.ravel().tolist()


@pytest.mark.parametrize("code", "bhilqBHILQefd?FD")
def test_every_name_of_a_dtype(code: str) -> None:
    """C has more integers than there are sizes: long and long long are one of torch's."""
    a = np.ones(3, code)
    t = dlferry.asarray(a)
    assert same_memory(t, a)
    assert dlferry.to_numpy(t).dtype == a.dtype.newbyteorder("=")


def test_an_array_that_a_tensor_shares_keeps_its_memory() -> None:
    a = np.zeros((2, 2))
    t = dlferry.asarray(a)
    with pytest.raises(ValueError, match="referenced"):
        a.resize((50, 50))
    assert same_memory(t, a)


def test_a_tensor_that_an_array_shares_keeps_its_memory() -> None:
    t = torch.zeros(5, 5)
    a = dlferry.to_numpy(t)
    with pytest.raises(RuntimeError):
        t.resize_(10, 10)
    with pytest.raises(ValueError, match="own"):
        a.resize((10, 10))
    assert a.shape == (5, 5) and not a.any()


@pytest.mark.parametrize(("kind", "dtype"), NUMPYS, ids=lambda x: name(x))
def test_a_scalar_is_its_item(kind: Any, dtype: torch.dtype) -> None:
    t = dlferry.asarray(kind(42))
    assert t.dtype == dtype and t.dim() == 0
    assert t.item() == kind(42).item()
    assert dlferry.asarray([kind(42), kind(0)])[0] == t


@pytest.mark.parametrize("compare", [operator.eq, operator.ne, operator.lt, operator.ge])
@pytest.mark.parametrize(("kind", "dtype"), REAL, ids=lambda x: name(x))
def test_comparisons_agree_on_both_sides(
    rng: np.random.Generator, kind: Any, dtype: torch.dtype, compare: Callable[..., Any]
) -> None:
    a, b = (rng.integers(0, 2 if kind is np.bool_ else 4, (5, 7)).astype(kind) for _ in range(2))
    here = compare(a, b)
    # torch compares no unsigned integers of more than a byte.
    wide = torch.int64 if dtype in (torch.uint16, torch.uint32, torch.uint64) else dtype
    there = compare(dlferry.asarray(a, dtype=wide), dlferry.asarray(b, dtype=wide))
    assert np.array_equal(dlferry.to_numpy(there), here)


@pytest.mark.parametrize("bad", [np.array(b"value"), np.array(["a"]), np.zeros(2, "i4,f4")])
def test_a_refused_array_is_not_leaked(bad: Any) -> None:
    references = sys.getrefcount(bad)
    for _ in range(200):
        with pytest.raises(TypeError):
            dlferry.asarray(bad)
    assert sys.getrefcount(bad) == references


RAGGED: dict[str, tuple[Any, str]] = {
    "two arrays": (lambda z: [z(3, 3), z(3, 0)], r"obj\[1\]"),
    "deeper": (lambda z: [[z(3, 3), z(3, 2)]], r"obj\[0\]\[1\]"),
    "in the second list": (lambda z: [[z(3, 3), z(3, 3)], [z(3, 3), z(3, 2)]], r"obj\[1\]\[1\]"),
    "array and number": (lambda z: [[z(3), 1.5]], r"obj\[0\]\[1\]"),
    "array and scalar": (lambda z: [[z(3), np.float64(1.5)]], r"obj\[0\]\[1\]"),
    "list and array": (lambda z: [[1, 2, 3], z(2)], r"obj\[1\]"),
    "more axes": (lambda z: [z(2), z(2, 1)], r"obj\[1\]"),
}


@pytest.mark.parametrize("case", RAGGED)
def test_ragged_arrays_name_the_place(case: str) -> None:
    make, place = RAGGED[case]
    with pytest.raises(ValueError, match=place):
        dlferry.asarray(make(lambda *shape: np.zeros(shape)))


@pytest.mark.parametrize("dtype", TORCH_DTYPES, ids=name)
@pytest.mark.parametrize("kind", [np.float32, np.float64, np.int64, np.int16, np.uint8])
def test_a_cast_array_has_a_storage_of_its_own(kind: Any, dtype: torch.dtype) -> None:
    t = dlferry.asarray(np.array([1], kind), dtype=dtype, copy=True)
    assert t.untyped_storage().nbytes() == t.element_size()
    assert t.untyped_storage().resizable() and complex(t.item()) == 1


@pytest.mark.parametrize("operation", [torch.true_divide, torch.mul, torch.add])
def test_nothing_can_be_computed_with(operation: Callable[..., Any]) -> None:
    empty = dlferry.asarray(np.random.default_rng(0).random(0), dtype=torch.float16)
    assert operation(torch.rand((), dtype=torch.float16), empty).shape == empty.shape
