"""The inputs of the table that are no memory: numbers, lists, protocols, and what is no array."""

from __future__ import annotations

import decimal
from collections.abc import Iterator
from datetime import date
from typing import Any

import numpy as np
import torch
from inputs import facts, frozen, itself
from kinds import ALL_TO_TORCH, ML_TO_TORCH, name, sample
from rows import UNSUPPORTED, Row

B, I8, F4, F8, C8 = torch.bool, torch.int64, torch.float32, torch.float64, torch.complex64

NUMBERS: list[tuple[Any, torch.dtype]] = [
    (3, I8), (-(2**63), I8), (2.5, F4), (True, B), (1j, C8), ([], F4), ([[]], F4), ([1, 2], I8),
    ([1.5], F4), ([True, False], B), ([True, 2], I8), ([1, 2.5], F4), ([1, 1j], C8),
    ([[1], [2]], I8), ((1, 2), I8), ([(1, 2), [3, 4]], I8), (range(3), I8), ([[[[5]]]], I8),
    ([range(2), range(2, 4)], I8), ([float("nan"), float("inf")], F4), ([[[], []]], F4),
    ([0.125] * 1000, F4), (list(range(1000)), I8), ([[1.5] * 30] * 20, F4), ([-0.0, 2.0**-140], F4),
]  # fmt: skip

BAD: dict[str, tuple[Any, str]] = {
    "ragged": ([[1], [1, 2]], "ValueError"),
    "number and list": ([1, [2]], "ValueError"),
    "list and number": ([[1], 2], "ValueError"),
    "ragged below": ([[[1, 2], [3]], [[1, 2], [3, 4]]], "ValueError"),
    "arrays of two shapes": ([np.zeros(2), np.zeros(3)], "ValueError"),
    "array and number": ([np.zeros(2), 1.0], "ValueError"),
    "strings in a list": (["a"], UNSUPPORTED),
    "None in a list": ([1, None], UNSUPPORTED),
    "a dict in a list": ([{}], UNSUPPORTED),
    "None": (None, UNSUPPORTED),
    "text": ("12", UNSUPPORTED),
    "set": ({1}, UNSUPPORTED),
    "dict": ({1: 2}, UNSUPPORTED),
    "dict keys": ({1: 2}.keys(), UNSUPPORTED),
    "generator": ((x for x in [1, 2]), UNSUPPORTED),
    "iterator": (iter([1]), UNSUPPORTED),
    "object": (object(), UNSUPPORTED),
    "class": (np.ndarray, UNSUPPORTED),
    "module": (np, UNSUPPORTED),
    "function": (len, UNSUPPORTED),
    "ellipsis": (..., UNSUPPORTED),
    "decimal": (decimal.Decimal("1.5"), UNSUPPORTED),
    "date": (date(2020, 1, 1), UNSUPPORTED),
    "slice": (slice(3), UNSUPPORTED),
    "masked in a list": ([np.ma.MaskedArray([1.0], [True])], UNSUPPORTED),
}


def numbers() -> Iterator[Row]:
    for value, dtype in NUMBERS:
        # Python numbers count as torch's default dtypes, whatever NumPy makes of them.
        elements = lambda obj, dtype=dtype: torch.as_tensor(obj, dtype=dtype)  # noqa: E731
        text = repr(value) if len(repr(value)) < 40 else f"{repr(value)[:30]}..."
        make = lambda value=value: value  # noqa: E731
        known = facts("sequence")
        yield Row(text, make, dtype, known, None, elements, why=("torch-refuses-this-list",))
    for title, (value, error) in BAD.items():
        make = lambda value=value: value  # noqa: E731
        why = ("torch-other-error-class", "torch-drops-mask")
        known = facts("sequence") if isinstance(value, list) else facts()
        yield Row(title, make, None, known, error, why=why)
    known = facts("sequence", "convertible")
    why = ("torch-other-error-class",)
    yield Row("a number beyond int64", lambda: [2**63], None, known, "OverflowError", why=why)


def lists_of_arrays() -> Iterator[Row]:
    why = ("torch-refuses-this-list", "torch-drops-dimension")
    known = facts("sequence")
    for kind, dtype in ALL_TO_TORCH.items():
        if kind in ML_TO_TORCH:
            make = lambda kind=kind: [sample(kind), sample(kind)]  # noqa: E731
            elements = lambda items: np.stack(items)  # noqa: E731
            why_here = ("torch-lacks-ml-dtypes",)
        else:
            make = lambda kind=kind: [sample(kind), sample(kind)]  # noqa: E731
            elements, why_here = np.stack, why
        yield Row(f"list of {name(kind)} arrays", make, dtype, known, None, elements, why=why_here)
    for title, make, dtype in [
        ("0-d arrays", lambda: [np.array(1.5), np.array(2.5)], F8),
        ("NumPy scalars", lambda: [np.float32(1), np.float32(2)], F4),
        ("uint64 scalars", lambda: [np.uint64(2**64 - 1), np.uint64(0)], torch.uint64),
        ("tensors", lambda: [torch.ones(2, 3), torch.zeros(2, 3)], F4),
        ("0-d tensors", lambda: [torch.tensor(1.5), torch.tensor(2.5)], F4),
        ("tensors of one element", lambda: [torch.ones(1), torch.ones(1)], F4),
        ("arrays of one element", lambda: [np.ones(1), np.ones(1)], F8),
        ("read-only arrays", lambda: [frozen(np.ones(2)), frozen(np.ones(2))], F8),
        ("reversed arrays", lambda: [np.arange(3.0)[::-1]] * 2, F8),
        ("nested arrays", lambda: [[np.ones(2)], [np.zeros(2)]], F8),
        ("arrays and lists", lambda: [np.ones(2), [1.0, 2.0]], F8),
        ("arrays and tensors", lambda: [np.ones(2), torch.ones(2, dtype=F8)], F8),
        ("empty arrays", lambda: [np.ones((0, 2))] * 3, F8),
    ]:
        elements = lambda items: torch.stack(  # noqa: E731
            [
                torch.stack([plain(i) for i in item])
                if isinstance(item, list) and isinstance(item[0], np.ndarray)
                else plain(item)
                for item in items
            ]
        )
        yield Row(f"list of {title}", make, dtype, known, None, elements, why=why)
    for title, make, dtype in [
        ("uint16 and int16", lambda: [np.uint16([1]), np.int16([1])], torch.int32),
        ("uint64 and int64", lambda: [np.uint64([1]), np.int64([1])], F8),
        ("uint32 and uint8", lambda: [np.uint32([1]), np.uint8([1])], torch.uint32),
    ]:
        elements = lambda items, dtype=dtype: torch.stack([plain(i).to(dtype) for i in items])  # noqa: E731
        yield Row(
            f"list of {title}", make, dtype, known, None, elements, why=("torch-cannot-promote",)
        )


def plain(item: Any) -> torch.Tensor:
    return item if isinstance(item, torch.Tensor) else torch.tensor(np.array(item))


# --- protocols of NumPy's ---


class Described:
    """Memory that only `__array_interface__` tells of."""

    def __init__(self, array: np.ndarray[Any, Any]) -> None:
        self.array = array

    @property
    def __array_interface__(self) -> dict[str, Any]:
        return self.array.__array_interface__


class Converting:
    """An object that NumPy can make an array of."""

    def __init__(self, array: np.ndarray[Any, Any]) -> None:
        self.array = array

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> np.ndarray[Any, Any]:
        return np.array(self.array, dtype=dtype, copy=copy)


def protocols() -> Iterator[Row]:
    why = ("torch-lacks-the-protocol",)
    for kind in (Described, Converting):
        title = kind.__name__.lower()
        for layout, arranged, known in [
            ("contiguous", itself, facts()),
            ("transposed", lambda a: a.T, facts()),
            ("reversed", lambda a: a[::-1], facts("strides")),
            ("read-only", frozen, facts("read-only")),
            ("0-d", lambda a: a[0, 1, ...], facts()),
            ("foreign", lambda a: a.astype(">f4"), facts("byte order")),
        ]:
            make = lambda kind=kind, arranged=arranged: kind(arranged(sample(np.float32)))  # noqa: E731
            yield Row(f"{title}, {layout}", make, F4, known, None, lambda x: x.array, why=why)
