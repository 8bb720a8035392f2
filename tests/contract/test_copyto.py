"""`copyto` on the host: into tensors and arrays of any layout, at once."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

import dlferry


@pytest.mark.parametrize("src", [[1, 2, 3], np.array([1, 2, 3], ">i2")[:], torch.arange(1, 4)])
@pytest.mark.parametrize("dtype", [np.float32, np.int64, np.uint8])
def test_into_an_array(src: Any, dtype: Any) -> None:
    whole = np.zeros(6, dtype)
    handle = dlferry.copyto(whole[::2], src)
    assert handle.done()
    assert whole.tolist() == [1, 0, 2, 0, 3, 0]
    result = handle.result()
    result[0] = 9
    assert whole[0] == 9


def test_into_a_tensor() -> None:
    tensor = torch.zeros(2, 3)
    version = tensor._version
    assert dlferry.copyto(tensor.T, np.arange(6).reshape(3, 2)[:, ::-1]).result() is not None
    assert tensor.tolist() == [[1, 3, 5], [0, 2, 4]]
    assert dlferry.copyto(tensor, torch.ones(2, 3)).result() is tensor
    assert tensor._version > version


def test_shapes_must_be_the_same() -> None:
    with pytest.raises(ValueError, match=r"dst has shape \(3,\), and src has \(1,\)"):
        dlferry.copyto(np.zeros(3), [1])


def test_copies_of_the_source_are_not_implicit() -> None:
    array = np.zeros(3)
    with dlferry.copy_guard("error"):
        for src in (np.arange(3.0)[::-1], np.arange(3, dtype=">f4")[::-1], [2, 1, 0]):
            array[:] = 9
            dlferry.copyto(array, src)
            assert array.tolist() == [2, 1, 0]


def test_memory_that_cannot_be_written() -> None:
    array = np.zeros(3)
    array.flags.writeable = False
    with pytest.raises(dlferry.CopyRequired, match="read-only"):
        dlferry.copyto(array, [1, 2, 3])
    with pytest.raises(dlferry.CopyRequired, match="byte order"):
        dlferry.copyto(np.zeros(3, ">f4"), [1, 2, 3])
    with pytest.raises(ValueError, match="share memory"):
        dlferry.copyto(torch.zeros(1).expand(3), [1, 2, 3])


OVERLAPPING = {
    "expanded": torch.zeros(3, 1).expand(3, 4),
    "a window": torch.zeros(6).as_strided((3, 4), (1, 1)),
    "rows that reach into the next": torch.zeros(20).as_strided((3, 4), (3, 1)),
    "strides with a common multiple": torch.zeros(40).as_strided((4, 3), (4, 6)),
}
APART = {
    "every other": torch.zeros(6, 8)[::2, ::2],
    "transposed": torch.zeros(4, 3).t(),
    "one inside the other": torch.zeros(12).as_strided((2, 3), (3, 2)),
    "nothing": torch.zeros(1).expand(0, 4),
    "alone": torch.zeros(1).as_strided((1, 1), (0, 0)),
}


@pytest.mark.parametrize("name", OVERLAPPING)
def test_elements_at_one_place(name: str) -> None:
    dst = OVERLAPPING[name]
    with pytest.raises(ValueError, match="share memory"):
        dlferry.copyto(dst, torch.ones(dst.shape))
    with pytest.raises(ValueError, match="share memory"):
        dlferry.stack([torch.ones(dst.shape[1:])] * len(dst), out=dst)
    assert not dst.any()


@pytest.mark.parametrize("name", APART)
def test_elements_each_at_its_own_place(name: str) -> None:
    dst = APART[name]
    src = torch.arange(float(dst.numel())).reshape(dst.shape)
    assert torch.equal(dlferry.copyto(dst, src).result(), src)


def test_no_part_in_autograd() -> None:
    weight = torch.zeros(2, requires_grad=True)
    for dst, src in ((weight, torch.ones(2)), (torch.zeros(2), weight)):
        with pytest.raises(ValueError, match="autograd"):
            dlferry.copyto(dst, src)
    with torch.no_grad():
        dlferry.copyto(weight, torch.ones(2))
    assert weight.tolist() == [1, 1]


@pytest.mark.parametrize("count", [10, 2_000_000])
@pytest.mark.parametrize("dtype", [np.float32, np.uint8])
def test_memory_that_overlaps(count: int, dtype: Any) -> None:
    for to, source in ((slice(3, None), slice(None, -3)), (slice(None, -1), slice(1, None))):
        array = np.arange(count).astype(dtype)
        expected = array.copy()
        expected[to] = array[source].copy()
        dlferry.copyto(array[to], array[source])
        assert np.array_equal(array, expected)
    square = torch.arange(16.0).reshape(4, 4)
    expected_square = square.t().clone()
    dlferry.copyto(square, square.t())
    assert torch.equal(square, expected_square)


def test_to_numpy_into_memory_that_overlaps() -> None:
    array = np.arange(1000.0)
    dlferry.to_numpy(torch.from_numpy(array)[:-3], out=array[3:])
    assert array.tolist() == [0, 1, 2, *range(997)]
