"""`to_numpy` to dtypes that torch lacks, from arrays and from numbers: no loss, and no warning."""

from __future__ import annotations

from typing import Any

import ml_dtypes
import numpy as np
import pytest
import torch

import dlferry

BIG = 2**60 + 1  # beyond what float64 counts one by one
TOO_LARGE = 1e30


@pytest.mark.parametrize("dtype", ["O", "U32", "S32", "M8[ns]", "m8[s]", "g", "G", "V8"])
def test_integers_keep_every_digit(dtype: str) -> None:
    t = torch.tensor([1, BIG, -3])
    want = t.numpy().astype(dtype)
    assert np.array_equal(dlferry.to_numpy(t, dtype=dtype), want)
    assert np.array_equal(dlferry.to_numpy([1, BIG, -3], dtype=dtype), want)
    for step in (1, -1):
        out = np.zeros(3, dtype)[::step]
        assert np.array_equal(dlferry.to_numpy(t, out=out), want)


def test_objects_are_of_the_tensors_own_kind() -> None:
    for value in (True, 7, 1.5, 1j):
        made = dlferry.to_numpy(torch.tensor([value]), dtype=object)
        assert type(made[0]) is type(value)
    half = torch.tensor([1.5], dtype=torch.bfloat16)
    assert dlferry.to_numpy(half, dtype=object).tolist() == [1.5]


def test_lazy_bits_are_resolved_on_the_way() -> None:
    t = torch.tensor([1 + 2j]).conj()
    assert dlferry.to_numpy(t, dtype=object).tolist() == [1 - 2j]
    assert dlferry.to_numpy(t.imag, dtype="g").tolist() == [-2]


REAL = ["i2", ">i4", "u1", "f4", ">f8", "g", ml_dtypes.bfloat16]


@pytest.mark.parametrize("dtype", REAL)
def test_complex_numbers_lose_their_imaginary_part_in_silence(dtype: Any) -> None:
    t = torch.tensor([3 + 2j])
    half = torch.tensor([3, 2], dtype=torch.float16).view(torch.complex32)
    for x in (t, t.numpy(), [3 + 2j], half):
        assert dlferry.to_numpy(x, dtype=dtype).astype(float).tolist() == [3]
    for step in (1, -1):
        out = np.zeros(1, dtype)[::step]
        assert dlferry.to_numpy(t, out=out).astype(float).tolist() == [3]


@pytest.mark.parametrize("dtype", ["i2", ">i4", "f2", "u8", "M8[s]"])
def test_what_does_not_fit_is_cast_in_silence(dtype: str) -> None:
    values = np.array([np.nan, TOO_LARGE, -TOO_LARGE])
    assert dlferry.to_numpy(values, dtype=dtype).shape == (3,)
    assert dlferry.to_numpy(torch.from_numpy(values), dtype=dtype).shape == (3,)
    out = np.zeros(3, dtype)[::-1]
    assert dlferry.to_numpy(torch.from_numpy(values), out=out) is out


def test_a_cast_of_an_array_is_guarded() -> None:
    array = np.ones(3)
    with dlferry.copy_guard("error"):
        with pytest.raises(dlferry.CopyRequired) as caught:
            dlferry.to_numpy(array, dtype=np.float32)
        assert caught.value.reasons == ("dtype",)
        assert dlferry.to_numpy(array) is array
        assert dlferry.to_numpy(array, copy=True) is not array
        assert dlferry.to_numpy(array, dtype=np.float32, copy=True).dtype == np.float32


def test_a_cast_of_numbers_is_not() -> None:
    with dlferry.copy_guard("error"):
        assert dlferry.to_numpy([1, 2], dtype=np.float64).tolist() == [1, 2]
        assert dlferry.to_numpy(3, dtype=np.int8).dtype == np.int8


def test_numbers_become_arrays_whatever_torchs_default_device() -> None:
    torch.set_default_device("meta")
    assert dlferry.to_numpy([1, 2]).tolist() == [1, 2]
    assert dlferry.to_numpy(1.5, dtype=np.float64) == 1.5
    assert dlferry.to_numpy([1.0, 2.0], out=np.zeros(2)).tolist() == [1, 2]
