"""The behaviour that torch promises of `torch.asarray`, case by case, asked of ours.

Follows the semantics of torch 2.13, where `requires_grad=None` inherits from a tensor.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from kinds import NUMPY_TO_TORCH, name
from regions import address
from torch.testing import make_tensor
from torch.utils.dlpack import to_dlpack

import dlferry

PLAIN = [
    torch.uint8, torch.int8, torch.int16, torch.int32, torch.int64, torch.float16, torch.bfloat16,
    torch.float32, torch.float64, torch.complex64, torch.complex128,
]  # fmt: skip
WITH_BOOL = [*PLAIN, torch.bool]
OF_NUMPY = list(NUMPY_TO_TORCH.values())


def can_require_grad(dtype: torch.dtype) -> bool:
    return dtype.is_floating_point or dtype.is_complex


class Source:
    """One way to hand a tensor's memory to asarray.

    `plain` is False for buffers, whose dtype is asked for in every call.
    """

    def __init__(self, wrap: Callable[[torch.Tensor], Any], plain: bool, shape: Any) -> None:
        self.wrap, self.plain, self.shape = wrap, plain, shape

    def make(self, dtype: torch.dtype) -> torch.Tensor:
        torch.manual_seed(0)
        return make_tensor(self.shape, dtype=dtype, device="cpu")


SOURCES = {
    "tensor": Source(lambda t: t, True, (5, 5)),
    "numpy": Source(lambda t: t.numpy(), True, (5, 5)),
    "dlpack": Source(to_dlpack, True, (5, 5)),
    "buffer": Source(lambda t: memoryview(t.numpy()), False, (5,)),
}
CASES = [
    pytest.param(
        SOURCES[kind],
        dtype,
        id=f"{kind}-{name(dtype)}",
        marks=pytest.mark.native if kind == "dlpack" else (),
    )
    for kind, dtypes in [
        ("tensor", WITH_BOOL),
        ("numpy", OF_NUMPY),
        ("dlpack", PLAIN),
        ("buffer", OF_NUMPY),
    ]
    for dtype in dtypes
]


def check(source: Source, kind: torch.dtype, shared: bool, /, **request_: Any) -> None:
    original = source.make(kind)
    result = dlferry.asarray(source.wrap(original), **request_)
    assert isinstance(result, torch.Tensor)
    assert (address(result) == address(original)) == shared
    assert result.shape == original.shape and result.device == original.device
    assert result.dtype == request_.get("dtype", kind)
    assert result.requires_grad == request_.get("requires_grad", False)
    if result.dtype == kind:
        assert torch.equal(result, original)


@pytest.mark.parametrize(("source", "dtype"), CASES)
def test_sharing(source: Source, dtype: torch.dtype) -> None:
    if source.plain:
        check(source, dtype, True, copy=False)
        check(source, dtype, True, device="cpu")
        check(source, dtype, True, device="cpu", copy=False)
    check(source, dtype, True, dtype=dtype)
    check(source, dtype, True, dtype=dtype, copy=False)
    check(source, dtype, True, dtype=dtype, requires_grad=False)
    check(source, dtype, True, dtype=dtype, requires_grad=can_require_grad(dtype))
    check(source, dtype, True, dtype=dtype, device="cpu")
    check(source, dtype, True, dtype=dtype, device="cpu", copy=False)


@pytest.mark.parametrize(("source", "dtype"), CASES)
def test_copying(source: Source, dtype: torch.dtype) -> None:
    if source.plain:
        check(source, dtype, False, copy=True)
        check(source, dtype, False, device="cpu", copy=True)
    check(source, dtype, False, dtype=dtype, copy=True)
    check(source, dtype, False, dtype=dtype, copy=True, requires_grad=False)
    check(source, dtype, False, dtype=dtype, copy=True, requires_grad=can_require_grad(dtype))
    check(source, dtype, False, dtype=dtype, device="cpu", copy=True)
    if source.plain:
        for other in WITH_BOOL:
            if other != dtype:
                check(source, dtype, False, dtype=other)
                check(source, dtype, False, dtype=other, copy=True)


@pytest.mark.parametrize("dtype", WITH_BOOL, ids=name)
def test_lists(dtype: torch.dtype) -> None:
    source = Source(torch.Tensor.tolist, True, (5, 5))
    check(source, dtype, False, dtype=dtype)
    check(source, dtype, False, dtype=dtype, device="cpu")
    check(source, dtype, False, dtype=dtype, requires_grad=False)
    check(source, dtype, False, dtype=dtype, requires_grad=can_require_grad(dtype))
    check(source, dtype, False, dtype=dtype, copy=True)


def test_sharing_that_is_impossible() -> None:
    t = torch.rand(5, 5)
    with pytest.raises(ValueError, match="with dtype '.*' into dtype '.*'"):
        dlferry.asarray(t, dtype=torch.float64, copy=False)
    with pytest.raises(ValueError, match="from device 'cpu' to 'meta'"):
        dlferry.asarray(t, device="meta", copy=False)
    with pytest.raises(ValueError, match="can't alias arbitrary sequence"):
        dlferry.asarray(t.tolist(), copy=False)


@pytest.mark.parametrize("dtype", [torch.float32, torch.complex64], ids=name)
@pytest.mark.parametrize("copy", [None, True, False])
@pytest.mark.parametrize("requires_grad", [None, True, False])
def test_autograd_history(
    dtype: torch.dtype, copy: bool | None, requires_grad: bool | None
) -> None:
    cloned = torch.ones(5, 5, dtype=dtype, requires_grad=True).clone()
    result = dlferry.asarray(cloned, copy=copy, requires_grad=requires_grad)
    kept = requires_grad is not False
    assert result.requires_grad == kept
    assert (result.grad_fn is not None) == kept
    assert cloned.requires_grad and cloned.grad_fn is not None


@pytest.mark.parametrize(
    "x",
    [
        True, 42, 1.0, [True, True, False], [1, 2, 3, 42], [0.0, 1.0, 2.0], [True, False, 0],
        [0.0, True, False], [0, 1.0, 42], [0.0, True, False, 42, 5j], range(5),
    ],
    ids=repr,
)  # fmt: skip
def test_agreement_with_as_tensor(x: Any) -> None:
    want = torch.as_tensor(x)
    result = dlferry.asarray(x)
    assert result.dtype == want.dtype and torch.equal(result, want)
