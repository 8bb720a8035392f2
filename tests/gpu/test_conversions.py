"""Every dtype and layout, to a GPU and back."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch

import dlferry

Array = np.ndarray[Any, Any]

LAYOUTS: dict[str, Callable[[Array], Array]] = {
    "contiguous": lambda a: a,
    "rows": lambda a: a[::2],
    "columns": lambda a: a[:, ::3],
    "reversed": lambda a: a[::-1, ::-1],
    "transposed": lambda a: a.T,
    "big-endian": lambda a: a.astype(a.dtype.newbyteorder(">")),
    "empty": lambda a: a[:0],
    "one": lambda a: a[0, 0, ...],
}
DTYPES = ["bool", "uint8", "int16", "int32", "int64", "float16", "float32", "float64", "complex64"]


def numbers(rng: np.random.Generator, shape: tuple[int, ...], dtype: str) -> Array:
    return rng.integers(0, 2 if dtype == "bool" else 100, shape).astype(dtype)


@pytest.mark.parametrize("shape", [(13, 17), (300, 500), (3001, 2003)], ids=str)
@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("dtype", DTYPES)
def test_there_and_back(
    rng: np.random.Generator, device: torch.device, dtype: str, layout: str, shape: tuple[int, int]
) -> None:
    array = LAYOUTS[layout](numbers(rng, shape, dtype))
    there = dlferry.asarray(array, device=device)
    assert there.device == device and there.dtype == getattr(torch, dtype)
    assert np.array_equal(there.cpu().numpy(), array)
    assert np.array_equal(dlferry.to_numpy(there), array)


@pytest.mark.parametrize("target", [torch.float32, torch.bfloat16, torch.float16, torch.int64])
@pytest.mark.parametrize("dtype", ["uint8", "float32", "float64"])
def test_casts_on_the_way(
    rng: np.random.Generator, device: torch.device, dtype: str, target: torch.dtype
) -> None:
    array = numbers(rng, (501, 703), dtype)
    made = dlferry.asarray(array, device=device, dtype=target)
    assert torch.equal(made.cpu(), torch.from_numpy(array).to(target))


def test_lists_and_stacks(rng: np.random.Generator, device: torch.device) -> None:
    images = [numbers(rng, (3, 224, 224), "uint8") for _ in range(64)]
    expected = torch.from_numpy(np.stack(images))
    assert torch.equal(dlferry.stack(images, device=device).cpu(), expected)
    assert torch.equal(dlferry.asarray(images, device=device).cpu(), expected)
    assert dlferry.asarray([[1, 2], [3, 4]], device=device).cpu().tolist() == [[1, 2], [3, 4]]


def test_into_what_is_there(rng: np.random.Generator, device: torch.device) -> None:
    values = rng.random((700, 900), dtype=np.float32)
    tensor = torch.zeros(700, 900, device=device)
    dlferry.copyto(tensor, values).synchronize()
    assert np.array_equal(tensor.cpu().numpy(), values)
    whole = np.zeros((700, 1800), np.float32)
    dlferry.copyto(whole[:, ::2], tensor).synchronize()
    assert np.array_equal(whole[:, ::2], values) and not whole[:, 1::2].any()
    out = np.empty_like(values)
    assert dlferry.to_numpy(tensor, out=out) is out
    assert np.array_equal(out, values)


def test_gradients_flow_through(device: torch.device) -> None:
    weight = torch.ones(4, requires_grad=True)
    dlferry.to_device([weight], device)[0].sum().backward()
    assert weight.grad is not None and weight.grad.tolist() == [1, 1, 1, 1]


def test_dlpack_and_cuda_arrays_share(device: torch.device) -> None:
    tensor = torch.arange(10, device=device)
    again = dlferry.from_dlpack(tensor)
    assert again.data_ptr() == tensor.data_ptr()

    class Described:
        __cuda_array_interface__ = tensor.__cuda_array_interface__

    shared = dlferry.asarray(Described())
    assert shared.data_ptr() == tensor.data_ptr() and shared.device == device
