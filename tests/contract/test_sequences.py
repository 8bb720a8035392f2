"""asarray of Python numbers, lists, tuples and ranges: shape, dtype, values and places."""

from __future__ import annotations

import enum
from collections import UserList, deque, namedtuple
from typing import Any

import numpy as np
import pytest
import torch
from kinds import TORCH_DTYPES, cast, name
from regions import assert_same_values

import dlferry

Point = namedtuple("Point", "x y")


class Colour(enum.IntEnum):
    RED = 1
    BLUE = 2


class MyInt(int):
    """An int that is not exactly int."""


class MyFloat(float):
    """A float that is not exactly float."""


class MyList(list[Any]):
    """A list that is not exactly list."""


NUMBERS: list[Any] = [
    True, False, 0, 42, -7, 2**63 - 1, -(2**63), 1.0, -0.0, float("inf"), 2j, 1 + 2j,
    Colour.BLUE, MyInt(5), MyFloat(2.5),
]  # fmt: skip
SEQUENCES: list[Any] = [
    [], (), [[]], [[], []], [[[]]], ([], []), range(0), range(5), range(10, 0, -3),
    [1], (1,), [1, 2, 3], (1, 2, 3), [1.5, 2.5], [True, False], [1j, 2],
    [True, 0], [True, 2, 3], [0, 1.5], [True, 1.5], [0.0, True, False, 42, 5j], [1, True, 2.5],
    [[1, 2], [3, 4]], [(1, 2), (3, 4)], ([1, 2], [3, 4]), [[1, 2.5], [True, 4]],
    [[[1], [2]], [[3], [4]]], [range(3), range(3, 6)], [range(2), [True, 1.5]],
    Point(1, 2), [Point(1, 2), Point(3, 4)], [Colour.RED, 2], [MyInt(3), MyFloat(1.5)],
    MyList([1, 2]), [MyList([1, 2]), (3, 4)], UserList([1, 2]), deque([1.5, 2]),
    [float("inf"), float("nan"), -0.0], [2**63 - 1, -(2**63)], list(range(1000)),
    [[float(i) for i in range(100)] for _ in range(3)],
]  # fmt: skip


@pytest.mark.parametrize("x", NUMBERS + SEQUENCES, ids=lambda x: repr(x)[:40])
@pytest.mark.parametrize("default", [torch.float32, torch.float64], ids=name)
def test_shape_dtype_and_values_are_torchs(x: Any, default: torch.dtype) -> None:
    torch.set_default_dtype(default)
    for copy in (None, True):
        t = dlferry.asarray(x, copy=copy)
        assert_same_values(t, torch.tensor(x))
        assert t.is_contiguous() and not t.requires_grad and t.device.type == "cpu"
        assert t.untyped_storage().resizable()


@pytest.mark.parametrize("default", [torch.float16, torch.bfloat16], ids=name)
@pytest.mark.parametrize("x", [[], 1.5, [1, 2.5], [[True], [0.5]]])
def test_a_narrow_default_dtype(x: Any, default: torch.dtype) -> None:
    torch.set_default_dtype(default)
    assert_same_values(dlferry.asarray(x), torch.tensor(x))
    assert dlferry.asarray([1, 2]).dtype == torch.int64


@pytest.mark.parametrize("dtype", TORCH_DTYPES, ids=name)
@pytest.mark.parametrize("x", [[1, 2, 4], [[1.0, 2.0], [4.0, 8.0]], (True, 1), 2, 1.5, [], [[]]])
def test_the_asked_dtype(x: Any, dtype: torch.dtype) -> None:
    assert_same_values(dlferry.asarray(x, dtype=dtype), torch.tensor(x).to(dtype))


@pytest.mark.parametrize(
    ("x", "dtype", "want"),
    [
        ([1.7, -1.7], torch.int64, [1, -1]),
        ([0, 2, -1], torch.bool, [False, True, True]),
        ([0.0, 0.5, float("nan")], torch.bool, [False, True, True]),
        ([2**64 - 1], torch.uint64, [2**64 - 1]),
        (2**64 - 1, torch.uint64, 2**64 - 1),
        ([2**63], torch.float64, [2.0**63]),
        ([255], torch.uint8, [255]),
        ([-128, 127], torch.int8, [-128, 127]),
        ([True], torch.complex64, [1]),
        ([float("inf")], torch.float16, [float("inf")]),
    ],
)
def test_conversions_of_python_numbers(x: Any, dtype: torch.dtype, want: Any) -> None:
    t = dlferry.asarray(x, dtype=dtype)
    assert t.dtype == dtype and t.tolist() == want


@pytest.mark.parametrize(
    ("x", "dtype"),
    [
        ([2**63], None), (2**64, None), ([[1], [-(2**63) - 1]], None), ([10**400], None),
        ([256], torch.uint8), (256, torch.uint8), ([-1], torch.uint8), ([128], torch.int8),
        ([2**31], torch.int32), ([2**63], torch.int64), ([2**64], torch.uint64),
        ([-1], torch.uint64), ([70000], torch.uint16), ([300.0], torch.uint8),
        ([1, 2, 2**40], torch.int32), ([10**400], torch.float64),
        ([1e40], torch.float32), (-1e300, None), ([70000.0], torch.float16), ([1.0, 1e40j], None),
    ],
)  # fmt: skip
def test_numbers_outside_the_dtype_overflow(x: Any, dtype: torch.dtype | None) -> None:
    with pytest.raises(OverflowError):
        dlferry.asarray(x, dtype=dtype)


@pytest.mark.parametrize("x", [float("nan"), [float("nan")], float("inf"), [1.0, -float("inf")]])
def test_what_is_no_whole_number_does_not_become_one(x: Any) -> None:
    with pytest.raises((OverflowError, ValueError)):
        dlferry.asarray(x, dtype=torch.int64)


@pytest.mark.parametrize("x", [1j, [1j], [1.0, [2j]][1]])
def test_a_complex_number_does_not_become_real(x: Any) -> None:
    with pytest.raises(TypeError):
        dlferry.asarray(x, dtype=torch.float32)


@pytest.mark.parametrize(
    ("x", "place"),
    [
        ([[1], [1, 2]], "obj[1]"),
        ([[1, 2], [3]], "obj[1]"),
        ([1, [2]], "obj[1]"),
        ([[1], 2], "obj[1]"),
        ([[], [1]], "obj[1]"),
        ([[1], []], "obj[1]"),
        (([1, 2], (3, 4), range(3)), "obj[2]"),
        ([[[1, 2], [3, 4]], [[1, 2], [3]]], "obj[1][1]"),
        ([[[1], [2], [3]], [[4], [5], 6]], "obj[1][2]"),
        ([[1, 2], [3, [4]]], "obj[1][1]"),
        ([[1.0]] * 3 + [[1.0, 2.0]], "obj[3]"),
        ([np.zeros(2), np.zeros(3)], "obj[1]"),
        ([torch.zeros(2), torch.zeros(2, 1)], "obj[1]"),
        ([[np.zeros(2), np.zeros(2)], [np.zeros(2), np.zeros(1)]], "obj[1][1]"),
        ([np.zeros(2), 1.0], "obj[1]"),
        ([1.0, np.zeros(2)], "obj[1]"),
    ],
)
@pytest.mark.parametrize("dtype", [None, torch.float64])
def test_a_ragged_list_names_the_place(x: Any, place: str, dtype: torch.dtype | None) -> None:
    with pytest.raises(ValueError) as caught:
        dlferry.asarray(x, dtype=dtype)
    text = str(caught.value)
    assert place in text
    assert f"{place}[" not in text


@pytest.mark.parametrize(
    ("x", "word"),
    [
        (["a"], "str"), ([1, "a"], "str"), ([["a", "b"]], "str"), ([None], "NoneType"),
        ([1, None], "NoneType"), ([{1}], "set"), ([{}], "dict"), ([[1], [object()]], "object"),
        ((x for x in ()), "generator"), ([(x for x in ())], "generator"), ([1.0, "1.0"], "str"),
    ],
)  # fmt: skip
@pytest.mark.parametrize("dtype", [None, torch.float32])
def test_other_elements_are_refused_by_name(x: Any, word: str, dtype: torch.dtype | None) -> None:
    with pytest.raises(dlferry.UnsupportedInput, match=word):
        dlferry.asarray(x, dtype=dtype)


def test_a_list_within_itself_ends_in_an_error() -> None:
    endless: list[Any] = []
    endless.append(endless)
    with pytest.raises(ValueError):
        dlferry.asarray(endless)


@pytest.mark.parametrize("depth", [65, 200, 5000])
def test_nesting_deeper_than_sixty_four_ends_in_an_error(depth: int) -> None:
    x: Any = 1.0
    for _ in range(depth):
        x = [x]
    with pytest.raises(ValueError):
        dlferry.asarray(x)


def test_sixty_four_axes_of_nesting() -> None:
    x: Any = 1.5
    for _ in range(64):
        x = [x]
    assert tuple(dlferry.asarray(x).shape) == (1,) * 64


def test_the_default_device_holds_for_sequences_and_numbers() -> None:
    torch.set_default_device("meta")
    for x in ([1, 2], 1.5, (True,), range(3), []):
        assert dlferry.asarray(x).device.type == "meta"
        assert dlferry.asarray(x, dtype=torch.float16).device.type == "meta"
        assert dlferry.asarray(x, device="cpu").device.type == "cpu"


@pytest.mark.parametrize("x", [[1.0, 2.0], 1.5, [[1.0], [2.0]], [1j]])
def test_requires_grad(x: Any) -> None:
    t = dlferry.asarray(x, requires_grad=True)
    assert t.requires_grad and t.is_leaf
    assert not dlferry.asarray(x, requires_grad=False).requires_grad
    wide = dlferry.asarray([1, 2], dtype=torch.float32, requires_grad=True)
    assert wide.requires_grad and wide.is_leaf


def test_long_lists_against_torch(rng: np.random.Generator) -> None:
    floats = rng.standard_normal(3000)
    ints = rng.integers(-(2**62), 2**62, 3000)
    for values in (floats, ints, floats + 1j * floats, floats > 0):
        flat = values.tolist()
        assert_same_values(dlferry.asarray(flat), torch.tensor(flat))
        nested = values.reshape(30, 10, 10).tolist()
        assert_same_values(dlferry.asarray(nested), torch.tensor(nested))
    half = dlferry.asarray(floats.tolist(), dtype=torch.float16)
    assert_same_values(half, cast(torch.from_numpy(floats), torch.float16))


def test_nothing_at_all_has_the_default_dtype_of_the_moment() -> None:
    class Items(list[Any]):
        pass

    for dtype in (torch.float32, torch.float64, torch.float32):
        torch.set_default_dtype(dtype)
        try:
            assert dlferry.stack([[]]).dtype == dlferry.asarray([Items()]).dtype == dtype
        finally:
            torch.set_default_dtype(torch.float32)
