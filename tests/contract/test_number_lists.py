"""Lists of numbers that are odd: mixed late, huge, subclassed, changing while they are read."""

from __future__ import annotations

import gc
import itertools
import sys
import weakref
from typing import Any

import numpy as np
import pytest
import torch
from kinds import TORCH_DTYPES, cast, name
from regions import assert_same_values

import dlferry

KINDS: dict[str, Any] = {
    "bool": [True, False],
    "int": [3, -4],
    "wide int": [2**31, -(2**45)],
    "float": [0.5, -3.0],
    "complex": [1j, 2 - 1j],
}
BEYOND = {  # outside the range of each dtype, but for the widest
    torch.uint8: 256, torch.int8: -129, torch.uint16: 1 << 16, torch.int16: 1 << 15,
    torch.uint32: 1 << 32, torch.int32: 1 << 31, torch.uint64: 1 << 64, torch.int64: 1 << 63,
    torch.float16: 65520, torch.bfloat16: 1e39, torch.float32: 3.5e38, torch.float64: 1 << 1024,
    torch.complex64: 3.5e38j, torch.complex128: 1 << 1024,
    torch.float8_e4m3fn: 465, torch.float8_e5m2: 61441, torch.float8_e4m3fnuz: 249,
    torch.float8_e5m2fnuz: 61441,
}  # fmt: skip


@pytest.mark.parametrize(("first", "last"), [*itertools.product(KINDS, repeat=2)])
@pytest.mark.parametrize("count", [1, 7, 8, 9, 40])
def test_kinds_that_change_late(first: str, last: str, count: int) -> None:
    x = [KINDS[first][i % 2] for i in range(count)] + KINDS[last]
    assert_same_values(dlferry.asarray(x), torch.tensor(x))
    nested = [x, x[::-1], x]
    assert_same_values(dlferry.asarray(nested), torch.tensor(nested))


@pytest.mark.parametrize("dtype", TORCH_DTYPES, ids=name)
@pytest.mark.parametrize("kind", KINDS)
def test_every_kind_becomes_every_dtype(dtype: torch.dtype, kind: str) -> None:
    values = [abs(v) if not isinstance(v, complex) else v for v in KINDS[kind]] * 5 + [True]
    if kind == "complex" and not dtype.is_complex:
        with pytest.raises(TypeError):
            dlferry.asarray(values, dtype=dtype)
        return
    if kind == "wide int" and dtype not in (torch.int64, torch.uint64, torch.bool):
        values = [v for v in values if v < 2]
    want = cast(torch.tensor(values), dtype)
    assert_same_values(dlferry.asarray(values, dtype=dtype), want)
    assert_same_values(dlferry.asarray(values[0], dtype=dtype), want[0])


@pytest.mark.parametrize("dtype", BEYOND, ids=name)
@pytest.mark.parametrize("place", [0, 7, 8, 20])
def test_a_number_outside_the_dtype_is_found_anywhere(dtype: torch.dtype, place: int) -> None:
    beyond = BEYOND[dtype]
    x: list[Any] = [1] * 30
    assert dlferry.asarray(x, dtype=dtype).tolist() == x
    x[place] = beyond
    for request in (x, [x, x], tuple(x), [np.int8(1), *x]):
        with pytest.raises(OverflowError):
            dlferry.asarray(request, dtype=dtype)


def test_the_largest_numbers_fit() -> None:
    for dtype in (torch.int8, torch.int16, torch.int32, torch.int64, torch.uint8, torch.uint64):
        limits = torch.iinfo(dtype)
        ends = [limits.min, 0, limits.max]
        assert dlferry.asarray(ends * 4, dtype=dtype).tolist() == ends * 4
    for exponent in (29, 30, 31, 59, 60, 61, 62):  # where the digits of an int begin and end
        ends = [2**exponent - 1, -(2**exponent), 2**exponent, 1 - 2**exponent]
        assert dlferry.asarray(ends).tolist() == ends
        assert dlferry.asarray(ends, dtype=torch.float64).tolist() == [float(x) for x in ends]
    assert dlferry.asarray([65519.0, -65519.9], dtype=torch.float16).tolist() == [65504, -65504]


def test_a_million_numbers() -> None:
    floats = np.random.default_rng(1).standard_normal(10**6)
    t = dlferry.asarray(floats.tolist(), dtype=torch.float64)
    assert np.array_equal(t.numpy(), floats)
    ints = (floats[: 10**5] * 2**50).astype(np.int64)
    assert np.array_equal(dlferry.asarray(ints.tolist()).numpy(), ints)
    mixed = [*ints[:-1].tolist(), 0.5]
    assert dlferry.asarray(mixed).dtype == torch.float32


def test_numpy_scalars_by_the_thousand(rng: np.random.Generator) -> None:
    values = rng.standard_normal(3000).astype(np.float32)
    assert_same_values(dlferry.asarray(list(values)), torch.from_numpy(values))
    wide = dlferry.asarray(list(values), dtype=torch.float64)
    assert_same_values(wide, torch.from_numpy(values).double())
    mixed = [*values, 1, True, np.float64(2)]
    assert_same_values(dlferry.asarray(mixed), torch.from_numpy(np.array(mixed)))


@pytest.mark.parametrize("container", [list, tuple])
def test_a_container_within_itself(container: Any) -> None:
    endless: list[Any] = [1.0]
    endless.append(container([endless]))
    twofold: list[Any] = []
    twofold += [twofold, twofold]
    deep: list[Any] = []
    deep.append(deep)
    for x in (endless, twofold, [deep], [[deep], [deep]]):
        with pytest.raises(ValueError):
            dlferry.asarray(x)


class Rows(list[Any]):
    """A list that shows other items than it holds."""

    def __iter__(self) -> Any:
        return iter([7.0, 8.0])


class Short(list[Any]):
    """A list that says it is shorter than it is."""

    def __len__(self) -> int:
        return 1


class Named(tuple[Any, ...]):
    """A tuple with a name only."""

    __slots__ = ()


@pytest.mark.parametrize("kind", [Rows, Short, Named])
def test_subclasses_are_what_iterating_over_them_gives(kind: Any) -> None:
    row = kind([1.0, 2.0])
    want = [float(x) for x in row]
    assert dlferry.asarray(row).tolist() == want
    assert dlferry.asarray([row, row]).tolist() == [want, want]
    assert dlferry.asarray([np.ones(2), row]).tolist() == [[1, 1], want]


class Leaf:
    """An array-like that does something when it is read."""

    def __init__(self, action: Any) -> None:
        self.action = action

    def __array__(self, dtype: Any = None, copy: Any = None) -> Any:
        self.action()
        return np.zeros(2)


@pytest.mark.parametrize("change", ["clear", "append", "replace", "pop"])
def test_a_list_that_changes_while_it_is_read_is_read_as_it_was(change: str) -> None:
    home: list[Any] = []

    def act() -> None:
        if change == "clear":
            inner.clear()
            home.clear()
        elif change == "append":
            home.append("not a number")
        elif change == "replace":
            home[:] = [[np.ones(3)]] * 5
        else:
            home.pop()
        gc.collect()

    inner: list[Any] = [Leaf(act), np.ones(2)]
    home += [inner, [np.full(2, 2.0), np.full(2, 3.0)]]
    t = dlferry.asarray(home)
    assert t.tolist() in ([[[0, 0], [1, 1]], [[2, 2], [3, 3]]], [])


def test_a_collector_that_clears_the_list_does_no_harm() -> None:
    class Trap:
        pass

    def spring(_: Any) -> None:
        home.clear()

    for _ in range(200):
        home = [float(i) for i in range(50)]
        cycle = [Trap()]
        cycle.append(cycle)  # type: ignore[arg-type]
        watch = weakref.ref(cycle[0], spring)
        before = gc.get_threshold()
        del cycle
        gc.set_threshold(1)
        try:
            t = dlferry.asarray(home)
        finally:
            gc.set_threshold(*before)
        assert t.tolist() in ([float(i) for i in range(50)], [])
        del watch


def test_no_reference_is_kept_or_lost() -> None:
    leaf, row, number = np.ones(3), [1.5, 2.5, 3.5], 12345.678
    rows = [leaf, row, (number,) * 3]
    for x in (rows, row, [leaf, leaf], [leaf, "bad"], [row, [number]]):
        counts = [sys.getrefcount(y) for y in (leaf, row, number, rows, x)]
        for _ in range(10):
            try:
                dlferry.asarray(x)
            except (ValueError, TypeError):
                pass
        assert [sys.getrefcount(y) for y in (leaf, row, number, rows, x)] == counts
