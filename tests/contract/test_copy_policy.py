"""One input of each kind against each answer to `copy=`."""

from __future__ import annotations

import copy as copying
from typing import Any

import numpy as np
import pytest
import torch
from forge import ArrayProducer, Export, LegacyProducer, Producer
from regions import assert_fresh, misaligned, overlaps, same_memory

import dlferry

REASONS = {
    "dtype", "device", "strides", "byte order", "alignment", "read-only", "conjugate", "negative",
    "sub-byte", "sequence",
}  # fmt: skip


def values() -> np.ndarray[Any, Any]:
    return np.arange(6, dtype=np.float32).reshape(2, 3)


# kind -> (what is converted, the memory that it shows)
SHAREABLE: dict[str, Any] = {
    "tensor": lambda a: torch.from_numpy(a),
    "transposed tensor": lambda a: torch.from_numpy(a.T).t(),
    "ndarray": lambda a: a,
    "fortran ndarray": lambda a: a.T,
    "field": lambda a: a.view([("x", "f4"), ("y", "f4"), ("z", "f4")])["y"],
    "0-d": lambda a: a[0, 0:1].reshape(()),
    "dlpack": lambda a: ArrayProducer(a),
    "forged dlpack": lambda a: Producer(Export(a)),
    "legacy dlpack": lambda a: LegacyProducer(Export(a, versioned=False)),
}
UNSHAREABLE: dict[str, tuple[Any, dict[str, Any], set[str]]] = {
    "tensor, dtype": (lambda: torch.ones(3), {"dtype": torch.float64}, {"dtype"}),
    "tensor, device": (lambda: torch.ones(3), {"device": "meta"}, {"device"}),
    "tensor, both": (
        lambda: torch.ones(3),
        {"device": "meta", "dtype": torch.int8},
        {"dtype", "device"},
    ),
    "ndarray, dtype": (values, {"dtype": torch.float64}, {"dtype"}),
    "ndarray, device": (values, {"device": "meta"}, {"device"}),
    "ndarray, all": (
        lambda: misaligned(np.arange(6, dtype=">i4"))[::-1],
        {"device": "meta", "dtype": torch.int8},
        {"dtype", "device", "strides", "byte order", "alignment"},
    ),
    "dlpack, dtype": (lambda: ArrayProducer(values()), {"dtype": torch.float64}, {"dtype"}),
    "dlpack, strides": (lambda: Producer(Export(values()[::-1])), {}, {"strides"}),
    "list": (lambda: [1, 2], {}, {"sequence"}),
    "nested": (lambda: [[1.0], [2.0]], {}, {"sequence"}),
    "tuple": (lambda: (1, 2), {}, {"sequence"}),
    "range": (lambda: range(3), {}, {"sequence"}),
    "empty list": (list, {}, {"sequence"}),
    "number": (lambda: 1.5, {}, {"sequence"}),
    "list of arrays": (lambda: [values(), values()], {}, {"sequence"}),
    "list of one tensor": (lambda: [torch.ones(3)], {}, {"sequence"}),
}


@pytest.mark.parametrize("kind", SHAREABLE)
def test_copy_none_and_false_share(kind: str) -> None:
    for copy in (None, False):
        a = values()
        t = dlferry.asarray(SHAREABLE[kind](a), copy=copy)
        assert overlaps(t, a)
        t.fill_(-1)
        assert -1 in a


@pytest.mark.parametrize("kind", SHAREABLE)
@pytest.mark.parametrize("dtype", [None, torch.float32])
def test_copy_true_never_overlaps(kind: str, dtype: torch.dtype | None) -> None:
    a = values()
    x = SHAREABLE[kind](a)
    t = dlferry.asarray(x, copy=True, dtype=dtype)
    want = dlferry.asarray(SHAREABLE[kind](values()))
    assert torch.equal(t, want)
    assert_fresh(t, a)
    t.fill_(-1)
    assert -1 not in a


@pytest.mark.parametrize("kind", SHAREABLE)
def test_a_cast_never_overlaps(kind: str) -> None:
    a = values()
    t = dlferry.asarray(SHAREABLE[kind](a), dtype=torch.float64)
    assert t.dtype == torch.float64
    assert_fresh(t, a)


@pytest.mark.parametrize("case", UNSHAREABLE)
def test_copy_false_refuses_with_every_reason(case: str) -> None:
    make, request_, reasons = UNSHAREABLE[case]
    with pytest.raises(dlferry.CopyRequired) as caught:
        dlferry.asarray(make(), copy=False, **request_)
    error = caught.value
    assert isinstance(error, ValueError) and isinstance(error, BufferError)
    assert isinstance(error.reasons, tuple)
    assert len(error.reasons) == len(set(error.reasons))
    assert set(error.reasons) <= REASONS
    assert set(error.reasons) == reasons


@pytest.mark.parametrize("case", UNSHAREABLE)
def test_a_refusal_says_what_to_do_about_each_reason(case: str) -> None:
    make, request_, reasons = UNSHAREABLE[case]
    with pytest.raises(dlferry.CopyRequired) as caught:
        dlferry.asarray(make(), copy=False, **request_)
    lines = str(caught.value).splitlines()
    assert len(lines) >= len(reasons)


@pytest.mark.parametrize("case", UNSHAREABLE)
def test_what_copy_false_refuses_the_others_accept(case: str) -> None:
    make, request_, _ = UNSHAREABLE[case]
    for copy in (None, True):
        t = dlferry.asarray(make(), copy=copy, **request_)
        assert t.dtype == request_.get("dtype", t.dtype)
        assert t.device.type == request_.get("device", "cpu")


def test_the_words_that_torchs_own_suite_looks_for() -> None:
    t = torch.ones(3)
    cases = [
        (t, {"dtype": torch.float64}, "with dtype '.*' into dtype '.*'"),
        (t, {"device": "meta"}, "from device 'cpu' to 'meta'"),
        (t.numpy(), {"dtype": torch.float64}, "with dtype '.*' into dtype '.*'"),
        (t.numpy(), {"device": "meta"}, "from device 'cpu' to 'meta'"),
        (t.tolist(), {}, "can't alias arbitrary sequence"),
    ]
    for x, request_, words in cases:
        with pytest.raises(ValueError, match=words):
            dlferry.asarray(x, copy=False, **request_)


def test_copy_required_can_be_raised_again_and_pickled() -> None:
    with pytest.raises(dlferry.CopyRequired) as caught:
        dlferry.asarray([1], copy=False)
    twin = copying.copy(caught.value)
    assert twin.reasons == caught.value.reasons and str(twin) == str(caught.value)


@pytest.mark.parametrize("copy", [None, True])
def test_the_argument_is_never_changed(copy: bool | None) -> None:
    a = values()[::-1, ::2]
    before, flags, strides = a.copy(), str(a.flags), a.strides
    dlferry.asarray(a, copy=copy)
    dlferry.asarray(a, copy=copy, dtype=torch.float64, requires_grad=True)
    assert np.array_equal(a, before) and str(a.flags) == flags and a.strides == strides
    items = [[1, 2.0], (True, 3)]
    dlferry.asarray(items, copy=copy)
    assert items == [[1, 2.0], (True, 3)]


@pytest.mark.parametrize("kind", SHAREABLE)
def test_copy_false_with_what_already_holds(kind: str) -> None:
    a = values()
    x = SHAREABLE[kind](a)
    t = dlferry.asarray(x, dtype=torch.float32, device="cpu:0", copy=False, requires_grad=False)
    assert overlaps(t, a)


def test_a_copy_of_a_copy_is_a_copy() -> None:
    a = values()
    first = dlferry.asarray(a, copy=True)
    assert dlferry.asarray(first) is first
    second = dlferry.asarray(first, copy=True)
    assert not overlaps(first, second)
    assert same_memory(dlferry.asarray(first.numpy()), first)
