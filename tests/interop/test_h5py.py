"""h5py: datasets, which can only be read into new memory."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
import torch

import dlferry


@pytest.fixture
def file(tmp_path: Path) -> Iterator[h5py.File]:
    with h5py.File(tmp_path / "x.h5", "w") as opened:
        yield opened


@pytest.mark.parametrize("kind", ["u1", "<i2", ">i4", "<f4", ">f8", "<f2", "<c8", "?"])
@pytest.mark.parametrize("shape", [(), (3, 4), (0, 3)])
def test_a_dataset_is_read(file: h5py.File, kind: str, shape: tuple[int, ...]) -> None:
    a = np.ones(shape, kind)
    t = dlferry.asarray(file.create_dataset("a", data=a))
    assert np.array_equal(t.numpy(), a)
    t.zero_()
    assert np.array_equal(file["a"][()], a)


def test_a_dataset_has_no_memory_to_share(file: h5py.File) -> None:
    x = file.create_dataset("a", data=np.ones(3, np.float32))
    with pytest.raises(dlferry.CopyRequired) as caught:
        dlferry.asarray(x, copy=False)
    assert caught.value.reasons == ("producer copy",)
    with pytest.raises(dlferry.CopyRequired) as caught:
        dlferry.asarray(x, copy=False, dtype=torch.float64)
    assert caught.value.reasons == ("dtype", "producer copy")


def test_a_cast_and_a_selection(file: h5py.File) -> None:
    x = file.create_dataset("a", data=np.arange(12).reshape(3, 4), chunks=(2, 2))
    assert dlferry.asarray(x, dtype=torch.float32).sum() == 66
    assert dlferry.asarray(x[1:, ::2], copy=False).tolist() == [[4, 6], [8, 10]]


@pytest.mark.parametrize("data", [np.array([b"ab"]), "text", np.zeros(2, "i4, f4")])
def test_strings_and_records_are_unsupported(file: h5py.File, data: Any) -> None:
    with pytest.raises(dlferry.UnsupportedInput):
        dlferry.asarray(file.create_dataset("a", data=data))


def test_a_closed_file_says_so(file: h5py.File) -> None:
    x = file.create_dataset("a", data=np.ones(3))
    file.close()
    with pytest.raises(Exception, match="dataset|dataspace"):
        dlferry.asarray(x)


def test_round_trip(file: h5py.File) -> None:
    t = torch.arange(6, dtype=torch.float64).reshape(2, 3)
    back = dlferry.asarray(file.create_dataset("a", data=dlferry.to_numpy(t)))
    assert torch.equal(back, t)
