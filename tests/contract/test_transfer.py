"""`transfer`, `to_device` and `to_host` where there is no CUDA: the same trees, at once."""

from __future__ import annotations

import asyncio
from collections import namedtuple
from typing import Any

import numpy as np
import pytest
import torch

import dlferry

Pair = namedtuple("Pair", "x y")


def test_trees_keep_their_containers() -> None:
    tree = {"image": np.ones((2, 3)), "pair": Pair(torch.zeros(2), ["name", None, 7, b"raw"])}
    made = dlferry.to_device(tree, "cpu")
    assert type(made) is dict and type(made["pair"]) is Pair
    assert isinstance(made["image"], torch.Tensor) and made["image"].dtype == torch.float64
    assert made["pair"].x is tree["pair"].x  # type: ignore[attr-defined]
    assert made["pair"].y == ["name", None, 7, b"raw"]
    assert isinstance(tree["image"], np.ndarray)


@pytest.mark.parametrize("untouched", ["text", b"bytes", 3, 2.5, None, True, np.float32(1), {1, 2}])
def test_what_is_no_array_is_passed_on(untouched: Any) -> None:
    assert dlferry.to_host([untouched])[0] is untouched
    assert dlferry.to_host(untouched) is untouched


def test_arrays_of_no_numbers_are_passed_on() -> None:
    words, things = np.array(["a", "b"]), np.array([object()], dtype=object)
    made = dlferry.to_host([words, things])
    assert made[0] is words and made[1] is things


@pytest.mark.parametrize(
    "array",
    [
        np.arange(12.0).reshape(3, 4),
        np.arange(12, dtype=">i4").reshape(3, 4),
        np.arange(12, dtype=np.int16)[::-1],
        np.arange(24, dtype=np.float32).reshape(4, 6)[:, ::2],
        np.zeros((0, 3), np.uint8),
        np.array(3.5),
        np.arange(5, dtype=np.uint32),
    ],
    ids=["plain", "big-endian", "reversed", "strided", "empty", "0-d", "uint32"],
)
def test_ndarrays_of_any_layout(array: Any) -> None:
    made = dlferry.to_host([array])[0]
    assert made.shape == array.shape
    assert made.numpy().astype(array.dtype).tolist() == array.tolist()


def test_host_arrays_share_where_they_can() -> None:
    array = np.zeros(3)
    made = dlferry.to_host({"x": array})["x"]
    made[0] = 5
    assert array[0] == 5


def test_copies_of_a_transfer_are_not_implicit() -> None:
    with dlferry.copy_guard("error"):
        assert dlferry.to_host([np.arange(3)[::-1]])[0].tolist() == [2, 1, 0]


def test_a_bare_dtype_is_for_floating_arrays() -> None:
    batch = {"image": np.ones(2), "label": np.arange(2), "mask": torch.ones(2, dtype=torch.bool)}
    made = dlferry.to_device(batch, "cpu", dtype=torch.bfloat16)
    assert [made[key].dtype for key in batch] == [torch.bfloat16, torch.int64, torch.bool]


def test_a_dtype_for_one_array_is_meant() -> None:
    assert dlferry.to_device(np.arange(3), "cpu", dtype=torch.float32).dtype == torch.float32


def test_a_mapping_of_dtypes_says_it_exactly() -> None:
    made = dlferry.to_device(
        [np.zeros(2, np.uint8), np.zeros(2), np.arange(2)], "cpu",
        dtype={torch.uint8: torch.float32, torch.float64: torch.float16},
    )  # fmt: skip
    assert [each.dtype for each in made] == [torch.float32, torch.float16, torch.int64]


@pytest.mark.parametrize("dtype", ["float32", np.float32, {torch.uint8: "float32"}, {1: 2}])
def test_other_dtypes_are_refused(dtype: Any) -> None:
    with pytest.raises(TypeError, match="dtype must be a torch.dtype"):
        dlferry.transfer([np.zeros(2)], "cpu", dtype=dtype)


def test_one_array_in_two_places_stays_one() -> None:
    array = np.arange(4)[::-1]
    first, second = dlferry.to_device([array, array], "cpu")
    assert first is second


def test_gradients_flow_through() -> None:
    weight = torch.ones(3, requires_grad=True)
    moved = dlferry.to_device([weight], "cpu", dtype=torch.float64)[0]
    moved.sum().backward()
    assert weight.grad is not None and weight.grad.tolist() == [1, 1, 1]


def test_the_handle() -> None:
    array = np.arange(3)[::-1]
    handle = dlferry.transfer({"x": array}, "cpu")
    assert isinstance(handle, dlferry.Transfer)
    assert handle.done()
    assert handle.synchronize(timeout=0) is None  # type: ignore[func-returns-value]
    handle.wait()
    assert handle.cancel() is False
    assert handle.result()["x"] is handle.result(timeout=1)["x"]


def test_the_handle_can_be_awaited() -> None:
    async def main() -> Any:
        return await dlferry.transfer([np.arange(3)], "cpu")

    assert asyncio.run(main())[0].tolist() == [0, 1, 2]


def test_cuda_that_is_not_there() -> None:
    if torch.cuda.is_available():
        pytest.skip("there is CUDA")
    for call in (dlferry.transfer, dlferry.to_device):
        with pytest.raises(dlferry.DriverUnavailable, match="CUDA cannot be used"):
            call([np.zeros(2)], "cuda")


def test_other_devices_are_torchs() -> None:
    tree = {"x": np.zeros(3), "y": torch.zeros(2, device="meta"), "z": "kept"}
    made = dlferry.to_device(tree, "meta", dtype=torch.float16)
    assert made["x"].is_meta and made["x"].dtype == made["y"].dtype == torch.float16
    assert dlferry.to_device(tree["y"], "meta") is tree["y"] and made["z"] == "kept"


def test_a_device_beyond_those_there_are(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    with pytest.raises(dlferry.DriverUnavailable, match=r"no cuda:2: torch finds 2 CUDA"):
        dlferry.transfer([np.zeros(2)], "cuda:2")


@pytest.mark.parametrize(
    ("device", "error"), [("nowhere", ValueError), (2.5, TypeError), (None, TypeError)]
)
def test_devices_that_are_none(device: Any, error: type[Exception]) -> None:
    with pytest.raises(error):
        dlferry.transfer([np.zeros(2)], device)


def test_elements_that_torch_lacks() -> None:
    with pytest.raises(dlferry.UnsupportedInput, match="longdouble|float128"):
        dlferry.to_host([np.zeros(2, np.longdouble)])
    masked: Any = np.ma.masked_array([1.0, 2.0], [True, False])
    with pytest.raises(dlferry.UnsupportedInput, match="mask"):
        dlferry.to_host([masked])
