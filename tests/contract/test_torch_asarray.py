"""The behaviour that torch promises of `torch.asarray`, case by case, asked of ours.

`asarray_cases` has what is the same on every device.
"""

from __future__ import annotations

from typing import Any

import pytest
import torch
from asarray_cases import (
    PLAIN,
    WITH_BOOL,
    Source,
    check_autograd_history,
    check_copying,
    check_lists,
    check_sharing,
)
from kinds import NUMPY_TO_TORCH, name
from torch.utils.dlpack import to_dlpack

import dlferry

OF_NUMPY = list(NUMPY_TO_TORCH.values())
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


@pytest.mark.parametrize(("source", "dtype"), CASES)
def test_sharing(source: Source, dtype: torch.dtype) -> None:
    check_sharing(source, dtype)


@pytest.mark.parametrize(("source", "dtype"), CASES)
def test_copying(source: Source, dtype: torch.dtype) -> None:
    check_copying(source, dtype)


@pytest.mark.parametrize("dtype", WITH_BOOL, ids=name)
def test_lists(dtype: torch.dtype) -> None:
    check_lists(torch.device("cpu"), dtype)


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
    check_autograd_history(torch.device("cpu"), dtype, copy, requires_grad)


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
