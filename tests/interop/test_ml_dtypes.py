"""ml_dtypes: bfloat16 and the float8 family share their bits, both ways; the rest is refused."""

from __future__ import annotations

from typing import Any

import ml_dtypes
import numpy as np
import pytest
import torch

import dlferry

SHARED = ["bfloat16", "float8_e4m3fn", "float8_e4m3fnuz", "float8_e5m2", "float8_e5m2fnuz"]
OTHERS = ["int2", "int4", "uint2", "uint4", "float8_e3m4", "float8_e4m3", "float8_e4m3b11fnuz"]


def every_pattern(name: str) -> np.ndarray[Any, Any]:
    """An element of each bit pattern."""
    dtype = np.dtype(getattr(ml_dtypes, name))
    return np.arange(1 << (8 * dtype.itemsize)).astype(f"u{dtype.itemsize}").view(dtype)


@pytest.mark.parametrize("name", SHARED)
@pytest.mark.parametrize("copy", [None, False])
def test_the_bits_are_shared(name: str, copy: bool | None) -> None:
    a = every_pattern(name)
    t = dlferry.asarray(a, copy=copy)
    assert t.dtype == getattr(torch, name)
    assert t.data_ptr() == a.ctypes.data
    back = dlferry.to_numpy(t, copy=copy)
    assert back.dtype == a.dtype and back.ctypes.data == a.ctypes.data
    assert np.array_equal(t.to(torch.float32).numpy(), a.astype(np.float32), equal_nan=True)


@pytest.mark.parametrize("name", SHARED)
def test_swapped_and_strided_elements(name: str) -> None:
    a = every_pattern(name)[::-3]
    assert dlferry.to_numpy(dlferry.asarray(a)).tobytes() == a.tobytes()


@pytest.mark.parametrize("name", OTHERS)
def test_the_rest_is_refused_never_misread(name: str) -> None:
    a = np.ones(3, getattr(ml_dtypes, name))
    for x in (a, [a, a]):
        with pytest.raises(dlferry.UnsupportedInput, match=name):
            dlferry.asarray(x)
