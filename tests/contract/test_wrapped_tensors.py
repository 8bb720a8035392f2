"""Tensors that only stand for memory: functorch, FakeTensor, wrapper subclasses, torch.compile."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from torch._subclasses.fake_tensor import FakeTensor, FakeTensorMode
from torch.utils._pytree import tree_map

import dlferry


class Boxed(torch.Tensor):
    """A wrapper subclass: its own data pointer means nothing, the values are in `inner`."""

    inner: torch.Tensor

    @staticmethod
    def __new__(cls, inner: torch.Tensor) -> Boxed:
        return torch.Tensor._make_wrapper_subclass(  # type: ignore[attr-defined, no-any-return]
            cls, inner.shape, dtype=inner.dtype, device=inner.device
        )

    def __init__(self, inner: torch.Tensor) -> None:
        self.inner = inner

    @classmethod
    def __torch_dispatch__(cls, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        out = func(*tree_map(_open, args), **tree_map(_open, kwargs or {}))
        return tree_map(lambda x: cls(x) if isinstance(x, torch.Tensor) else x, out)


def _open(x: Any) -> Any:
    return x.inner if isinstance(x, Boxed) else x


# --- functorch ---


@pytest.mark.parametrize("request_", [{}, {"copy": True}, {"dtype": torch.float64}])
def test_asarray_inside_vmap(request_: dict[str, Any]) -> None:
    t = torch.arange(6.0).reshape(2, 3)
    out = torch.vmap(lambda row: dlferry.asarray(row, **request_) * 2)(t)
    assert out.dtype == request_.get("dtype", torch.float32)
    assert torch.equal(out, t.to(out.dtype) * 2)


def test_asarray_inside_vmap_is_the_same_object() -> None:
    seen = []

    def inside(row: torch.Tensor) -> torch.Tensor:
        seen.append(dlferry.asarray(row) is row)
        return row

    torch.vmap(inside)(torch.ones(2, 3))
    assert seen == [True]


@pytest.mark.parametrize("request_", [{}, {"copy": True}, {"dtype": torch.float64}])
def test_asarray_inside_grad(request_: dict[str, Any]) -> None:
    gradient = torch.func.grad(lambda x: (dlferry.asarray(x, **request_) ** 2).sum())
    assert torch.equal(gradient(torch.tensor([1.0, 2.0])), torch.tensor([2.0, 4.0]))


def test_functorch_tensors_have_no_memory_to_hand_out() -> None:
    def export(row: torch.Tensor) -> torch.Tensor:
        with pytest.raises(dlferry.UnsupportedInput):
            dlferry.to_numpy(row)
        return row

    torch.vmap(export)(torch.ones(2, 3))


@pytest.mark.parametrize(
    "convert",
    [dlferry.from_dlpack, lambda row: dlferry.asarray([row, row])],
    ids=["from_dlpack", "list"],
)
def test_functorch_tensors_go_through_torch_or_are_refused(convert: Any) -> None:
    t = torch.arange(6.0).reshape(2, 3)
    try:
        out = torch.vmap(lambda row: convert(row) * 2)(t)
    except (dlferry.UnsupportedInput, BufferError):
        return
    want = t if out.ndim == 2 else torch.stack([t, t], dim=1)
    assert torch.equal(out, want * 2)


# --- functionalize, whose tensors are of no class of their own ---


@pytest.mark.parametrize(
    "make",
    [
        lambda: dlferry.asarray([1.0, 2.0, 3.0]),
        lambda: dlferry.asarray((1, 2, 3), dtype=torch.uint8),
        lambda: dlferry.asarray([np.array([1.0, 2.0]), np.array([3.0, 4.0])])[0, 0],
        lambda: dlferry.asarray(2.5),
        lambda: dlferry.asarray(np.arange(3.0)),
        lambda: dlferry.asarray(np.arange(3.0)[::-1]),
        lambda: dlferry.asarray(np.arange(3), dtype=torch.float32),
        lambda: dlferry.stack([np.ones(3), np.zeros(3)]),
        lambda: dlferry.collate([np.ones(3), np.zeros(3)]),
        lambda: dlferry.collate([1, 2, 3]),
    ],
)
def test_what_is_made_inside_functionalize_has_its_elements(make: Any) -> None:
    want = make()
    try:
        made = torch.func.functionalize(lambda t: t + make())(torch.zeros(()))
    except BufferError:  # no memory to copy into
        return
    assert torch.equal(made, want)
    assert torch.equal(make(), want)  # and nothing of it stays


@pytest.mark.parametrize("request_", [{}, {"copy": False}, {"copy": True}])
def test_functional_tensors_have_no_memory_to_hand_out(request_: dict[str, Any]) -> None:
    def export(t: torch.Tensor) -> torch.Tensor:
        with pytest.raises(dlferry.UnsupportedInput):
            dlferry.to_numpy(t, **request_)
        return t

    torch.func.functionalize(export)(torch.arange(3.0))


# --- FakeTensor ---


@pytest.fixture
def fake() -> torch.Tensor:
    with FakeTensorMode() as mode:
        return mode.from_tensor(torch.ones(2, 3))


def test_asarray_of_a_fake_tensor(fake: torch.Tensor) -> None:
    assert dlferry.asarray(fake) is fake
    for request_ in ({"copy": True}, {"dtype": torch.float64}):
        result = dlferry.asarray(fake, **request_)
        assert isinstance(result, FakeTensor)
        assert result is not fake and result.shape == fake.shape
        assert result.dtype == request_.get("dtype", torch.float32)


@pytest.mark.parametrize("copy", [None, True, False])
def test_fake_tensors_have_no_memory_to_hand_out(fake: torch.Tensor, copy: bool | None) -> None:
    with pytest.raises(dlferry.UnsupportedInput):
        dlferry.to_numpy(fake, copy=copy)
    try:
        result = dlferry.from_dlpack(fake, copy=copy)
    except (dlferry.UnsupportedInput, BufferError):
        return
    assert isinstance(result, FakeTensor) and result is not fake


# --- wrapper subclasses ---


def test_asarray_of_a_wrapper_goes_through_torch() -> None:
    inner = torch.arange(3.0)
    boxed = Boxed(inner)
    assert dlferry.asarray(boxed) is boxed
    wide = dlferry.asarray(boxed, dtype=torch.float64)
    assert torch.equal(_open(wide), inner.double())
    assert torch.equal(_open(dlferry.asarray(boxed, copy=True)), inner)


@pytest.mark.parametrize("convert", [dlferry.to_numpy, dlferry.from_dlpack])
def test_a_wrapper_is_converted_by_torch_or_refused(convert: Any) -> None:
    inner = torch.arange(3.0)
    try:
        result = convert(Boxed(inner))
    except (dlferry.UnsupportedInput, BufferError):
        return
    assert _open(result).tolist() == inner.tolist()


# --- torch.compile ---


# Dynamo warns once of any builtin that it does not know.
@pytest.mark.filterwarnings("ignore:Dynamo does not know how to trace the builtin:UserWarning")
def test_under_compile_the_call_is_a_graph_break() -> None:
    array = np.arange(3, dtype=np.float32)

    def body(x: torch.Tensor) -> torch.Tensor:
        return dlferry.asarray(x + 1) * 2

    def capture(x: torch.Tensor) -> torch.Tensor:
        return x + dlferry.asarray(array)

    t = torch.arange(3.0)
    assert torch.equal(torch.compile(body, backend="eager")(t), (t + 1) * 2)
    assert torch.equal(torch.compile(capture, backend="eager")(t), t * 2)
