"""The exceptions themselves, and the objects that are no arrays."""

from __future__ import annotations

import datetime
import decimal
import fractions
import pickle
import types
import warnings
from typing import Any

import numpy as np
import pytest
import torch
from forge import ArrayProducer

import dlferry


@pytest.mark.parametrize(
    ("name", "bases"),
    [
        ("CopyRequired", (ValueError, BufferError)),
        ("UnsupportedInput", (TypeError,)),
        ("DriverUnavailable", (RuntimeError,)),
        ("CudaError", (RuntimeError,)),
    ],
)
def test_where_the_exceptions_stand(name: str, bases: tuple[type, ...]) -> None:
    klass = getattr(dlferry, name)
    assert klass.__bases__ == bases
    assert klass.__doc__


def test_exceptions_can_be_pickled() -> None:
    with pytest.raises(dlferry.CopyRequired) as required:
        dlferry.asarray(np.arange(3)[::-1], dtype=torch.float32, copy=False)
    with pytest.raises(dlferry.UnsupportedInput) as unsupported:
        dlferry.asarray(None)
    for error in (required.value, unsupported.value):
        twin = pickle.loads(pickle.dumps(error))
        assert type(twin) is type(error) and str(twin) == str(error)
    assert pickle.loads(pickle.dumps(required.value)).reasons == required.value.reasons


class Indexable:
    def __index__(self) -> int:
        return 1


class Floatable:
    def __float__(self) -> float:
        return 1.0


class Empty:
    """A class with nothing that could be converted."""


UNSUPPORTED: list[Any] = [
    None,
    {1, 2},
    frozenset({1}),
    {"a": 1},
    {},
    {1: 2}.keys(),
    (i for i in range(3)),
    iter([1, 2]),
    map(abs, [1]),
    zip([1], [2], strict=True),
    "abc",
    "",
    "1.5",
    object(),
    Empty(),
    Empty,
    int,
    len,
    lambda: 1,
    Ellipsis,
    NotImplemented,
    slice(3),
    types,
    np,
    torch,
    torch.float32,
    torch.device("cpu"),
    np.dtype("f4"),
    np.float32,
    decimal.Decimal("1.5"),
    fractions.Fraction(1, 2),
    datetime.datetime(2026, 5, 22),
    Indexable(),
    Floatable(),
    Exception("x"),
]


@pytest.mark.parametrize("x", UNSUPPORTED, ids=lambda x: type(x).__name__)
@pytest.mark.parametrize("copy", [None, True, False])
def test_what_is_no_array_is_refused_by_name(x: Any, copy: bool | None) -> None:
    with pytest.raises(dlferry.UnsupportedInput) as caught:
        dlferry.asarray(x, copy=copy)
    assert type(x).__name__ in str(caught.value)
    assert not isinstance(caught.value, ValueError)


@pytest.mark.parametrize("x", [np.str_("abc"), np.bytes_(b"abc")], ids=lambda x: type(x).__name__)
@pytest.mark.parametrize("copy", [None, True, False])
def test_a_numpy_string_is_no_number(x: Any, copy: bool | None) -> None:
    with pytest.raises(dlferry.UnsupportedInput):
        dlferry.asarray(x, copy=copy)


@pytest.mark.parametrize("x", [None, {1}, "abc", object(), {"a": 1}], ids=repr)
def test_a_dtype_and_a_device_change_nothing(x: Any) -> None:
    with pytest.raises(dlferry.UnsupportedInput, match=type(x).__name__):
        dlferry.asarray(x, dtype=torch.float32, device="cpu", requires_grad=True)


@pytest.mark.parametrize(
    "x", [None, {1}, (i for i in range(2)), "abc"], ids=["None", "set", "gen", "str"]
)
def test_the_refusal_says_what_to_pass_instead(x: Any) -> None:
    with pytest.raises(dlferry.UnsupportedInput) as caught:
        dlferry.asarray(x)
    assert len(str(caught.value)) > len(type(x).__name__) + 20


def test_a_generator_is_not_consumed() -> None:
    numbers = (i for i in range(3))
    with pytest.raises(dlferry.UnsupportedInput):
        dlferry.asarray(numbers)
    assert list(numbers) == [0, 1, 2]


def test_an_object_that_lies_about_its_class() -> None:
    class Liar:
        @property
        def __class__(self) -> Any:
            return torch.Tensor

    with pytest.raises((TypeError, BufferError)):
        dlferry.asarray(Liar())
    with pytest.raises((TypeError, BufferError)):
        dlferry.from_dlpack(Liar())
    with pytest.raises((TypeError, BufferError)):
        dlferry.to_numpy(Liar())


def test_a_failing_attribute_is_not_hidden() -> None:
    class Broken:
        @property
        def __dlpack__(self) -> Any:
            raise ZeroDivisionError("inside")

        def __dlpack_device__(self) -> tuple[int, int]:
            return 1, 0

    for convert in (dlferry.asarray, dlferry.from_dlpack):
        with pytest.raises(ZeroDivisionError, match="inside"):
            convert(Broken())


def test_nothing_warns() -> None:
    a = np.ones((2, 2))
    frozen = np.broadcast_to(np.ones(2), (3, 2))
    leaf = torch.ones(2, requires_grad=True)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for x in (
            a,
            a[::-1],
            frozen,
            leaf,
            leaf * 2,
            [a, a],
            [leaf, leaf],
            ArrayProducer(a),
            [1.5],
        ):
            for copy in (None, True):
                dlferry.asarray(x, copy=copy)
                dlferry.asarray(x, copy=copy, dtype=torch.float16)
                dlferry.asarray(x, copy=copy, requires_grad=False)
        dlferry.asarray(frozen, readonly="share")
        dlferry.from_dlpack(frozen, readonly="share")
        dlferry.asarray(torch.ones(2, dtype=torch.complex64), dtype=torch.float32)
        dlferry.to_numpy(leaf)
        dlferry.to_numpy(torch.ones(2, dtype=torch.complex64), dtype=np.float32)


def test_an_error_leaves_no_references_behind() -> None:
    import gc
    import weakref

    class Array(np.ndarray[Any, Any]):
        pass

    a = np.arange(3, dtype=">f4").view(Array)
    alive = weakref.ref(a)
    for request_ in ({"copy": False}, {"device": "nowhere"}, {"dtype": 3}, {"readonly": "no"}):
        with pytest.raises((TypeError, ValueError)):
            dlferry.asarray(a, **request_)
    del a
    gc.collect()
    assert alive() is None
