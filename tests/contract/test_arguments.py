"""Arguments: names, kinds and values, and what a wrong one raises."""

from __future__ import annotations

import inspect
from typing import Any

import numpy as np
import pytest
import torch
from forge import ArrayProducer
from regions import same_memory

import dlferry

INPUTS: dict[str, Any] = {
    "tensor": lambda: torch.ones(3),
    "ndarray": lambda: np.ones(3),
    "dlpack": lambda: ArrayProducer(np.ones(3)),
    "list": lambda: [1.0, 2.0],
    "number": lambda: 1.5,
}
EXCHANGEABLE = ["tensor", "ndarray", "dlpack"]
SIGNATURES = {
    "asarray": {
        "dtype": None, "device": None, "copy": None, "requires_grad": None, "readonly": "copy",
    },
    "from_dlpack": {"device": None, "copy": None, "readonly": "copy"},
    "to_numpy": {"dtype": None, "copy": None, "out": None},
}  # fmt: skip


@pytest.mark.parametrize("function", SIGNATURES)
def test_signatures(function: str) -> None:
    first, *rest = inspect.signature(getattr(dlferry, function)).parameters.values()
    assert first.kind is inspect.Parameter.POSITIONAL_ONLY
    assert all(p.kind is inspect.Parameter.KEYWORD_ONLY for p in rest)
    assert {p.name: p.default for p in rest} == SIGNATURES[function]
    assert getattr(dlferry, function).__doc__


@pytest.mark.parametrize("function", SIGNATURES)
def test_the_number_of_arguments(function: str) -> None:
    f = getattr(dlferry, function)
    t = torch.ones(3)
    for args in ((), (t, None), (t, torch.float32), (t, None, None, None)):
        with pytest.raises(TypeError):
            f(*args)
    for keyword in ("dtypes", "obj", "x", "cpoy", ""):
        with pytest.raises(TypeError):
            f(t, **{keyword: None})
    with pytest.raises(TypeError):
        f(x=t)
    with pytest.raises(TypeError):
        f(obj=t)


@pytest.mark.parametrize("function", SIGNATURES)
def test_every_keyword_may_be_its_default(function: str) -> None:
    t = torch.ones(3)
    assert same_memory(getattr(dlferry, function)(t, **SIGNATURES[function]), t)


def test_keywords_built_at_run_time() -> None:
    """Keyword names that are equal to, but not the same object as, the interned ones."""
    request_ = {"".join(["co", "py"]): True, "".join(["dty", "pe"]): torch.float64}
    assert dlferry.asarray(np.ones(3, np.float32), **request_).dtype == torch.float64


# --- dtype ---


@pytest.mark.parametrize("kind", INPUTS)
@pytest.mark.parametrize("dtype", [3, "no such type", object(), torch.ones(1), [torch.float32]])
def test_a_bad_dtype(kind: str, dtype: Any) -> None:
    with pytest.raises((TypeError, ValueError), match="dtype"):
        dlferry.asarray(INPUTS[kind](), dtype=dtype)


@pytest.mark.parametrize("dtype", ["no such type", 3.5, object()])
def test_a_bad_dtype_for_numpy(dtype: Any) -> None:
    for x in (torch.ones(3), np.ones(3)):
        with pytest.raises((TypeError, ValueError)):
            dlferry.to_numpy(x, dtype=dtype)


# --- device ---


@pytest.mark.parametrize("kind", INPUTS)
@pytest.mark.parametrize("device", [None, "cpu", "cpu:0", torch.device("cpu")])
@pytest.mark.parametrize("copy", [None, True])
def test_the_cpu_by_any_name(kind: str, device: Any, copy: bool | None) -> None:
    assert dlferry.asarray(INPUTS[kind](), device=device, copy=copy).device.type == "cpu"


@pytest.mark.parametrize("kind", EXCHANGEABLE)
@pytest.mark.parametrize("device", ["cpu", "cpu:0", torch.device("cpu"), torch.device("cpu:0")])
@pytest.mark.parametrize("convert", [dlferry.asarray, dlferry.from_dlpack])
def test_the_cpu_is_no_reason_to_copy(kind: str, device: Any, convert: Any) -> None:
    x = INPUTS[kind]()
    assert same_memory(convert(x, device=device, copy=False), getattr(x, "array", x))


@pytest.mark.parametrize("kind", INPUTS)
@pytest.mark.parametrize("device", ["nowhere", "cpu:x", 1.5, object(), ["cpu"], ""])
def test_a_bad_device(kind: str, device: Any) -> None:
    with pytest.raises((TypeError, ValueError), match="device"):
        dlferry.asarray(INPUTS[kind](), device=device)
    if kind in EXCHANGEABLE:
        with pytest.raises((TypeError, ValueError), match="device"):
            dlferry.from_dlpack(INPUTS[kind](), device=device)


@pytest.mark.skipif(torch.cuda.is_available(), reason="the answer needs a machine without CUDA")
@pytest.mark.parametrize("kind", INPUTS)
@pytest.mark.parametrize(
    "device", ["cuda", "cuda:0", torch.device("cuda"), torch.device("cuda", 1)]
)
@pytest.mark.parametrize("copy", [None, True])
def test_cuda_that_is_not_there(kind: str, device: Any, copy: bool | None) -> None:
    converters = (
        [dlferry.asarray, dlferry.from_dlpack] if kind in EXCHANGEABLE else [dlferry.asarray]
    )
    for convert in converters:
        with pytest.raises(dlferry.DriverUnavailable) as caught:
            convert(INPUTS[kind](), device=device, copy=copy)
        assert isinstance(caught.value, RuntimeError) and str(caught.value)


# --- copy, readonly, requires_grad ---


@pytest.mark.parametrize("kind", INPUTS)
@pytest.mark.parametrize("copy", ["yes", "False", 2, [], object()])
def test_a_bad_copy(kind: str, copy: Any) -> None:
    functions = [dlferry.asarray]
    if kind in EXCHANGEABLE:
        functions.append(dlferry.from_dlpack)
    if kind in ("tensor", "ndarray"):
        functions.append(dlferry.to_numpy)
    for function in functions:
        with pytest.raises((TypeError, ValueError), match="copy"):
            function(INPUTS[kind](), copy=copy)


@pytest.mark.parametrize("kind", INPUTS)
@pytest.mark.parametrize("readonly", ["no", "", "COPY", None, True, 1, object()])
def test_a_bad_readonly(kind: str, readonly: Any) -> None:
    with pytest.raises((TypeError, ValueError), match="readonly"):
        dlferry.asarray(INPUTS[kind](), readonly=readonly)
    if kind in EXCHANGEABLE:
        with pytest.raises((TypeError, ValueError), match="readonly"):
            dlferry.from_dlpack(INPUTS[kind](), readonly=readonly)


@pytest.mark.parametrize("kind", INPUTS)
@pytest.mark.parametrize("requires_grad", ["yes", 2, [], object()])
def test_a_bad_requires_grad(kind: str, requires_grad: Any) -> None:
    with pytest.raises((TypeError, ValueError), match="requires_grad"):
        dlferry.asarray(INPUTS[kind](), requires_grad=requires_grad)


def test_a_readonly_built_at_run_time() -> None:
    a = np.ones(3)
    a.flags.writeable = False
    assert same_memory(dlferry.asarray(a, readonly="".join(["sh", "are"])), a)


@pytest.mark.parametrize("kind", INPUTS)
def test_a_wrong_argument_leaves_nothing_changed(kind: str) -> None:
    x = INPUTS[kind]()
    with pytest.raises(TypeError):
        dlferry.asarray(x, nonsense=1)
    assert dlferry.asarray(x).numel() > 0
