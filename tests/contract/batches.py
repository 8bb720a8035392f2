"""Batches of samples that torch can collate, and what it makes of them."""

from __future__ import annotations

import collections
import types
import warnings
from collections.abc import Callable, Iterator, Mapping
from typing import Any, NamedTuple

import numpy as np
import torch
from torch.utils.data import default_collate


class Point(NamedTuple):
    x: Any
    y: Any


class Tagged(dict[str, Any]):
    """A dict with something else than its items."""

    tag = "none"


class Frozen(Mapping[str, Any]):
    """A mapping that cannot be changed, nor made anew from items."""

    def __init__(self, **items: Any) -> None:
        self._items = items

    def __getitem__(self, key: str) -> Any:
        return self._items[key]

    def __iter__(self) -> Iterator[str]:
        return iter(self._items)

    def __len__(self) -> int:
        return len(self._items)


class Sub(torch.Tensor):
    """A tensor of the user's own."""


class Labelled(np.ndarray[Any, Any]):
    """An array of the user's own."""


def assert_same(ours: Any, theirs: Any) -> None:
    """The same types, dtypes, shapes and elements, all the way down."""
    assert type(ours) is type(theirs)
    if isinstance(theirs, torch.Tensor):
        assert (ours.dtype, ours.shape, ours.device) == (theirs.dtype, theirs.shape, theirs.device)
        assert ours.requires_grad == theirs.requires_grad
        if theirs.device.type == "cpu":
            torch.testing.assert_close(ours, theirs, rtol=0, atol=0, equal_nan=True)
    elif isinstance(theirs, Mapping):
        assert list(ours) == list(theirs)
        for key in theirs:
            assert_same(ours[key], theirs[key])
    elif isinstance(theirs, (list, tuple, collections.UserList)):
        assert len(ours) == len(theirs)
        for one, other in zip(ours, theirs, strict=True):
            assert_same(one, other)
    else:
        assert ours == theirs


def theirs(samples: Any) -> Any:
    """torch's batch, without torch's warnings."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return default_collate(samples)


F = np.arange(12, dtype=np.float32).reshape(3, 4)
T = torch.arange(12.0).reshape(3, 4)

BATCHES: dict[str, Callable[[], list[Any]]] = {
    "floats": lambda: [1.5, float("nan"), 1e300, -0.0],
    "floats and others": lambda: [1.0, 2, True],
    "ints": lambda: [1, -(2**63), 2**63 - 1],
    "bools": lambda: [True, False],
    "bools and ints": lambda: [True, 2],
    "ints and floats": lambda: [1, 2.5],
    "ints and complex": lambda: [1, 2j],
    "a float and an array": lambda: [1.0, np.array(2.5)],
    "an int and a tensor": lambda: [1, torch.tensor(2.0)],
    "a subclass of Tensor among arrays": lambda: [F, T.as_subclass(Sub), F],
    "an int and a scalar": lambda: [1, np.float64(2.5)],
    "huge ints among floats": lambda: [0.5, 2**70],
    "scalars of two dtypes": lambda: [np.float32(1), np.float64(2)],
    "scalars and numbers": lambda: [np.float32(1), 2.5],
    "strings": lambda: ["a", "bc"],
    "bytes": lambda: [b"a", b"bc"],
    "arrays": lambda: [F, F + 1],
    "0-d arrays": lambda: [np.array(1.5), np.array(2.5)],
    "0-d arrays and floats": lambda: [np.array(1.5, np.float32), 2.5],
    "empty arrays": lambda: [F[:0], F[:0]],
    "transposed arrays": lambda: [F.T, F.T],
    "every other column": lambda: [F[:, ::2], F[:, 1::2]],
    "Fortran's order": lambda: [np.asfortranarray(F), F],
    "arrays of two dtypes": lambda: [F, F.astype(np.float64)],
    "arrays and tensors": lambda: [F, T],
    "arrays and lists": lambda: [F[0], [1.0, 2.0, 3.0, 4.0]],
    "a subclass of ndarray": lambda: [F.view(Labelled), F.view(Labelled)],
    "masked arrays without a mask": lambda: [np.ma.MaskedArray(F), np.ma.MaskedArray(F)],
    "tensors": lambda: [T, T + 1],
    "transposed tensors": lambda: [T.T, T.T],
    "expanded tensors": lambda: [T[0].expand(5, 4), T[1].expand(5, 4)],
    "channels last": lambda: [T.reshape(1, 3, 2, 2).to(memory_format=torch.channels_last)] * 2,
    "lazy bits": lambda: [torch.tensor([1 + 2j]).conj(), torch.tensor([1 + 2j]).conj().imag * 1j],
    "tensors that require grad": lambda: [T.clone().requires_grad_(), T],
    "parameters": lambda: [torch.nn.Parameter(T), torch.nn.Parameter(T)],
    "a subclass of Tensor": lambda: [T.as_subclass(Sub), T.as_subclass(Sub)],
    "tensors elsewhere": lambda: [T.to("meta"), T.to("meta")],
    "large tensors": lambda: [torch.rand(3, 1 << 20) for _ in range(3)],
    "dicts": lambda: [{"x": F, "y": i, "name": "a"} for i in range(3)],
    "dicts with more keys later": lambda: [{"x": 1}, {"x": 2, "y": 3}],
    "ordered dicts": lambda: [collections.OrderedDict(b=1, a=T), collections.OrderedDict(a=T, b=2)],
    "default dicts": lambda: [collections.defaultdict(list, a=1) for _ in range(2)],
    "user dicts": lambda: [collections.UserDict(a=1), collections.UserDict(a=2)],
    "mapping proxies": lambda: [types.MappingProxyType({"a": i}) for i in range(2)],
    "frozen mappings": lambda: [Frozen(a=1, b=F), Frozen(a=2, b=F)],
    "tuples": lambda: [(F, 1, "a"), (F, 2, "b")],
    "lists": lambda: [[F, 1.0], [F, 2.0]],
    "user lists": lambda: [collections.UserList([1, F]), collections.UserList([2, F])],
    "ranges": lambda: [range(3), range(3)],
    "named tuples": lambda: [Point(F, 1), Point(F, 2)],
    "nothing inside": lambda: [(), ()],
    "all of it": lambda: [{"a": [Point((F, True), b"x"), {"z": np.int8(i)}]} for i in range(3)],
    "one sample": lambda: [{"x": F, "y": 1.5}],
}  # fmt: skip
