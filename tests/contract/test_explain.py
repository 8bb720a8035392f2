"""`explain`: the same decision as the real call, in words, with nothing moved."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

import dlferry

A = np.arange(6, dtype=np.float32).reshape(2, 3)


def read_only() -> np.ndarray[Any, Any]:
    array = A.copy()
    array.flags.writeable = False
    return array


INPUTS: dict[str, Any] = {
    "array": A,
    "reversed": A[::-1],
    "big-endian": A.astype(">f4"),
    "read-only": read_only(),
    "0-d": np.array(1.0),
    "empty": np.zeros((0, 3)),
    "tensor": torch.arange(6.0),
    "numpy scalar": np.float32(1),
    "number": 3,
    "list": [[1, 2], [3, 4.5]],
    "list of arrays": [A[::-1], A],
    "bytes": b"abc",
}
REQUESTS: dict[str, dict[str, Any]] = {
    "plain": {},
    "copy": {"copy": True},
    "dtype": {"dtype": torch.float64},
    "share": {"readonly": "share"},
    "device": {"device": "meta"},
}


@pytest.mark.parametrize("request_", REQUESTS)
@pytest.mark.parametrize("name", INPUTS)
def test_the_plan_is_what_happens(name: str, request_: str) -> None:
    obj, request = INPUTS[name], REQUESTS[request_]
    plan = dlferry.explain(obj, **request)
    result = dlferry.asarray(obj, **request)
    assert plan.dtype == result.dtype
    assert plan.device == result.device
    if not plan.shares:
        assert plan.bytes_moved == result.numel() * result.element_size()
        assert plan.route not in ("share", "refuse")
    else:
        assert (plan.bytes_moved, plan.route, plan.reasons) == (0, "share", ())
        dlferry.asarray(obj, copy=False, **request)
    if not request.get("copy"):
        assert plan.shares == (not plan.reasons)


@pytest.mark.parametrize("name", INPUTS)
def test_copy_false_refuses_for_the_same_reasons(name: str) -> None:
    plan = dlferry.explain(INPUTS[name], copy=False)
    if plan.shares:
        dlferry.asarray(INPUTS[name], copy=False)
        return
    with pytest.raises(dlferry.CopyRequired) as caught:
        dlferry.asarray(INPUTS[name], copy=False)
    assert (plan.route, plan.bytes_moved) == ("refuse", 0)
    assert plan.reasons == caught.value.reasons


def test_the_words() -> None:
    text = str(dlferry.explain(A[::-1], dtype=torch.float64))
    assert "numpy.ndarray of dtype float32" in text
    assert "torch.float64 on cpu" in text
    assert "copied, 48 bytes (host copy)" in text
    assert "axis 0 has the negative stride -12" in text
    assert "shared (share)" in str(dlferry.explain(A))
    assert "refused (refuse)" in str(dlferry.explain(A[::-1], copy=False))


def test_what_cannot_be_converted_cannot_be_explained() -> None:
    for obj in (None, {1, 2}, np.array(["a"]), "abc"):
        with pytest.raises(dlferry.UnsupportedInput):
            dlferry.explain(obj)
    with pytest.raises(ValueError, match="ragged"):
        dlferry.explain([[1], [1, 2]])
    with pytest.raises(OverflowError, match="outside torch.int64"):
        dlferry.explain([2**63])
    with pytest.raises(OverflowError, match="outside torch.uint8"):
        dlferry.explain([np.ones(()), 300], dtype=torch.uint8)
    with pytest.raises(TypeError, match="complex"):
        dlferry.explain(1j, dtype=torch.float32)
    with pytest.raises(dlferry.UnsupportedInput, match="no elements"):
        dlferry.explain([torch.empty(2, device="meta")])
    with pytest.raises(ValueError, match="readonly"):
        dlferry.explain(A, readonly="perhaps")  # type: ignore[arg-type]


@pytest.mark.native
def test_a_capsule_stays_usable() -> None:
    capsule = A.__dlpack__()
    assert dlferry.explain(capsule).shares
    assert dlferry.explain(capsule, dtype=torch.int8).reasons == ("dtype",)
    assert np.shares_memory(dlferry.asarray(capsule).numpy(), A)


def test_a_plan_is_a_value() -> None:
    plan = dlferry.explain(A)
    assert plan == dlferry.explain(A)
    with pytest.raises(AttributeError):
        plan.shares = False  # type: ignore[misc]
