"""The behaviour that torch promises of `torch.asarray`, on any device: what is shared, what copied.

Follows the semantics of torch 2.13, where `requires_grad=None` inherits from a tensor.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from regions import address
from torch.testing import make_tensor

import dlferry

PLAIN = [
    torch.uint8, torch.int8, torch.int16, torch.int32, torch.int64, torch.float16, torch.bfloat16,
    torch.float32, torch.float64, torch.complex64, torch.complex128,
]  # fmt: skip
WITH_BOOL = [*PLAIN, torch.bool]


def can_require_grad(dtype: torch.dtype) -> bool:
    return dtype.is_floating_point or dtype.is_complex


class Source:
    """One way to hand a tensor's memory to asarray.

    `plain` is False for buffers, whose dtype is asked for in every call.
    """

    def __init__(
        self,
        wrap: Callable[[torch.Tensor], Any],
        plain: bool,
        shape: tuple[int, ...],
        device: str = "cpu",
    ) -> None:
        self.wrap, self.plain, self.shape = wrap, plain, shape
        self.device = torch.device(device)

    def make(self, dtype: torch.dtype) -> torch.Tensor:
        torch.manual_seed(0)
        return make_tensor(self.shape, dtype=dtype, device=self.device)


def check(source: Source, kind: torch.dtype, shared: bool, /, **request: Any) -> None:
    original = source.make(kind)
    result = dlferry.asarray(source.wrap(original), **request)
    assert isinstance(result, torch.Tensor)
    assert (address(result) == address(original)) == shared
    assert result.shape == original.shape and result.device == original.device
    assert result.dtype == request.get("dtype", kind)
    assert result.requires_grad == request.get("requires_grad", False)
    if result.dtype == kind:
        assert torch.equal(result, original)


def check_sharing(source: Source, dtype: torch.dtype) -> None:
    device = source.device
    if source.plain:
        check(source, dtype, True, copy=False)
        check(source, dtype, True, device=device)
        check(source, dtype, True, device=device, copy=False)
    check(source, dtype, True, dtype=dtype)
    check(source, dtype, True, dtype=dtype, copy=False)
    check(source, dtype, True, dtype=dtype, requires_grad=False)
    check(source, dtype, True, dtype=dtype, requires_grad=can_require_grad(dtype))
    check(source, dtype, True, dtype=dtype, device=device)
    check(source, dtype, True, dtype=dtype, device=device, copy=False)


def check_copying(source: Source, dtype: torch.dtype) -> None:
    device = source.device
    if source.plain:
        check(source, dtype, False, copy=True)
        check(source, dtype, False, device=device, copy=True)
    check(source, dtype, False, dtype=dtype, copy=True)
    check(source, dtype, False, dtype=dtype, copy=True, requires_grad=False)
    check(source, dtype, False, dtype=dtype, copy=True, requires_grad=can_require_grad(dtype))
    check(source, dtype, False, dtype=dtype, device=device, copy=True)
    if source.plain:
        for other in WITH_BOOL:
            if other != dtype:
                check(source, dtype, False, dtype=other)
                check(source, dtype, False, dtype=other, copy=True)


def check_lists(device: torch.device, dtype: torch.dtype) -> None:
    source = Source(torch.Tensor.tolist, True, (5, 5), str(device))
    request: Any = {} if device.type == "cpu" else {"device": device}
    check(source, dtype, False, dtype=dtype, **request)
    check(source, dtype, False, dtype=dtype, device=device)
    check(source, dtype, False, dtype=dtype, requires_grad=False, **request)
    check(source, dtype, False, dtype=dtype, requires_grad=can_require_grad(dtype), **request)
    check(source, dtype, False, dtype=dtype, copy=True, **request)


def check_autograd_history(
    device: torch.device, dtype: torch.dtype, copy: bool | None, requires_grad: bool | None
) -> None:
    cloned = torch.ones(5, 5, dtype=dtype, device=device, requires_grad=True).clone()
    result = dlferry.asarray(cloned, copy=copy, requires_grad=requires_grad)
    kept = requires_grad is not False
    assert result.requires_grad == kept
    assert (result.grad_fn is not None) == kept
    assert cloned.requires_grad and cloned.grad_fn is not None
