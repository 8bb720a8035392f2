"""Tensors that are no block of plain elements, and dtypes that only such tensors have."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import ml_dtypes
import numpy as np
import pytest
import torch

import dlferry

UNSTORED = [
    getattr(torch, name)
    for name in ("quint8", "qint32", "bits8", "uint1", "int4", "float4_e2m1fn_x2")
    if hasattr(torch, name)
]
INPUTS: dict[str, Callable[[], Any]] = {
    "array": lambda: np.ones(3),
    "empty array": lambda: np.empty(0),
    "numpy scalar": lambda: np.float32(1),
    "number": lambda: 1,
    "numbers": lambda: [1.0, 2.0],
    "no numbers": list,
    "arrays": lambda: [np.ones(3), torch.ones(3)],
    "buffer": lambda: bytearray(b"abc"),
}


@pytest.mark.parametrize("dtype", UNSTORED, ids=str)
@pytest.mark.parametrize("name", INPUTS)
def test_dtypes_that_nothing_is_converted_to(name: str, dtype: torch.dtype) -> None:
    for convert in (dlferry.asarray, dlferry.explain):
        with pytest.raises(dlferry.UnsupportedInput, match=f"{dtype}.* pass another dtype="):
            convert(INPUTS[name](), dtype=dtype)


@pytest.mark.parametrize("dtype", UNSTORED, ids=str)
def test_nothing_is_stacked_as_such_a_dtype(dtype: torch.dtype) -> None:
    for items in ([np.ones(3)], [torch.ones(3)], [1, 2]):
        with pytest.raises(dlferry.UnsupportedInput, match="pass another dtype="):
            dlferry.stack(items, dtype=dtype)


def quantized() -> torch.Tensor:
    return torch.quantize_per_tensor(torch.ones(2), 0.1, 0, torch.qint8)


def nested() -> torch.Tensor:
    return torch.nested.nested_tensor([torch.ones(2), torch.ones(3)])


ODD: dict[str, Callable[[], torch.Tensor]] = {
    "sparse": lambda: torch.eye(2).to_sparse(),
    "sparse rows": lambda: torch.eye(2).to_sparse_csr(),
    "quantized": quantized,
    "mkldnn": lambda: torch.eye(2).to_mkldnn(),
    "nested": nested,
    "jagged": lambda: torch.nested.nested_tensor([torch.ones(2)], layout=torch.jagged),
}
# torch's own words about its prototypes.
pytestmark = [
    pytest.mark.filterwarnings("ignore:torch.quantize_per_tensor"),
    pytest.mark.filterwarnings("ignore:The PyTorch API of nested tensors"),
    pytest.mark.filterwarnings("ignore:Sparse CSR tensor support"),
    pytest.mark.filterwarnings("ignore:Sparse invariant checks"),
]


@pytest.mark.parametrize("name", ODD)
def test_odd_tensors_are_not_put_together(name: str) -> None:
    for items in ([ODD[name]()], [ODD[name](), ODD[name]()]):
        for convert in (dlferry.asarray, dlferry.explain, dlferry.stack):
            with pytest.raises(dlferry.UnsupportedInput, match=r"\[0\] is a .*; pass a dense one"):
                convert(items)  # type: ignore[operator]


@pytest.mark.parametrize("name", ODD)
def test_odd_tensors_have_no_elements_to_show(name: str) -> None:
    with pytest.raises(dlferry.UnsupportedInput, match="pass a dense one"):
        dlferry.to_numpy(ODD[name]())
    with pytest.raises(BufferError, match="pass a dense one"):
        dlferry.from_dlpack(ODD[name]())


@pytest.mark.parametrize("name", ODD)
def test_an_odd_tensor_is_itself(name: str) -> None:
    tensor = ODD[name]()
    assert dlferry.asarray(tensor) is tensor
    assert dlferry.asarray(tensor, dtype=tensor.dtype, copy=False) is tensor
    assert dlferry.explain(tensor).shares


def test_a_nested_tensor_is_copied_by_torch() -> None:
    tensor = nested()
    for request in ({"copy": True}, {"dtype": torch.float64}):
        copied = dlferry.asarray(tensor, **request)
        assert copied is not tensor and copied.is_nested
        assert [row.tolist() for row in copied.unbind()] == [[1, 1], [1, 1, 1]]


def test_meta_tensors_have_no_elements() -> None:
    meta = torch.empty(3, device="meta")
    with pytest.raises(dlferry.UnsupportedInput, match="no elements"):
        dlferry.asarray([meta])
    with pytest.raises(dlferry.UnsupportedInput, match="no elements"):
        dlferry.stack([meta, meta], device="cpu")
    assert dlferry.stack([meta, meta]).shape == (2, 3)


def test_dtypes_without_a_common_one() -> None:
    small = np.ones(2, ml_dtypes.float8_e5m2)
    for other in (np.ones(2, np.float32), np.ones(2, ml_dtypes.float8_e4m3fn), np.ones(2, "u2")):
        for convert in (dlferry.asarray, dlferry.stack):
            with pytest.raises(dlferry.UnsupportedInput, match="no common dtype; pass the dtype="):
                convert([small, other])
            assert convert([small, other], dtype=torch.float32).tolist() == [[1, 1], [1, 1]]
