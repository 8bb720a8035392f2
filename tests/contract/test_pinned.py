"""`empty_pinned`, `pin` and `memory_stats` without CUDA: ordinary memory, same answers."""

from __future__ import annotations

import array
import inspect
import re
from pathlib import Path

import numpy as np
import pytest
import torch

import dlferry
from dlferry import _torch_cuda


@pytest.fixture(autouse=True)
def no_cuda(monkeypatch: pytest.MonkeyPatch) -> None:
    """Also on a machine that has it."""
    monkeypatch.setattr(_torch_cuda, "is_available", lambda: False)


# --- empty_pinned ---


@pytest.mark.parametrize("shape", [(2, 3), [4], 5, (), 0, (0, 3), torch.Size([2, 2]), np.int64(3)])
def test_empty_pinned_takes_any_shape(shape: object) -> None:
    tensor = dlferry.empty_pinned(shape, torch.int16)  # type: ignore[arg-type]
    assert tensor.shape == torch.empty(shape).shape  # type: ignore[call-overload]
    assert tensor.dtype == torch.int16 and tensor.device.type == "cpu"
    assert tensor.is_contiguous() and not tensor.is_pinned() and not tensor.requires_grad


def test_empty_pinned_has_torchs_defaults_but_lies_on_the_host() -> None:
    torch.set_default_dtype(torch.float64)
    torch.set_default_device("meta")
    tensor = dlferry.empty_pinned(3)
    assert tensor.dtype == torch.float64 and tensor.device.type == "cpu"


@pytest.mark.parametrize(
    ("shape", "dtype", "error"),
    [
        ((-1,), None, ValueError), (-1, None, ValueError), (2.5, None, TypeError),
        (None, None, TypeError), ((1, "2"), None, TypeError), (3, "float32", TypeError),
        (3, np.float32, TypeError), ("3", None, TypeError),
    ],
)  # fmt: skip
def test_empty_pinned_refuses(shape: object, dtype: object, error: type[Exception]) -> None:
    with pytest.raises(error):
        dlferry.empty_pinned(shape, dtype)  # type: ignore[arg-type]


# --- pin ---


def test_pin_of_a_tensor_is_the_tensor() -> None:
    for tensor in (torch.ones(3), torch.ones(4, 4).t(), torch.tensor(1), torch.ones(0)):
        assert dlferry.pin(tensor) is tensor
        assert not tensor.is_pinned()


def test_pin_of_an_array_shares_its_memory() -> None:
    table = np.zeros((2, 3), dtype=np.float32)
    tensor = dlferry.pin(table[:, ::2])
    table[1, 2] = 7
    assert tensor.shape == (2, 2) and tensor[1, 1] == 7
    buffer = array.array("i", [1, 2, 3])
    dlferry.pin(buffer)[0] = 9
    assert buffer[0] == 9


@pytest.mark.parametrize(
    ("obj", "reason"),
    [
        (np.ones(4)[::-1], "strides"), (np.ones(4, ">f4"), "byte order"), (b"1234", "read-only"),
        ([1.0, 2.0], "sequence"), (np.broadcast_to(np.ones(1), 3), "read-only"),
    ],
)  # fmt: skip
def test_pin_never_copies(obj: object, reason: str) -> None:
    with pytest.raises(dlferry.CopyRequired) as caught:
        dlferry.pin(obj)
    assert reason in caught.value.reasons


def test_pin_of_read_only_memory_when_asked_for(tmp_path: Path) -> None:
    assert torch.equal(dlferry.pin(b"123", readonly="share"), torch.tensor([49, 50, 51]))
    np.save(tmp_path / "table.npy", np.arange(5))
    table = np.load(tmp_path / "table.npy", mmap_mode="r")
    assert torch.equal(dlferry.pin(table, readonly="share"), torch.arange(5))


def test_pin_refuses_what_has_no_memory_of_its_own() -> None:
    with pytest.raises(ValueError, match="detach"):
        dlferry.pin(torch.ones(2, requires_grad=True))
    with pytest.raises(dlferry.UnsupportedInput, match="sparse"):
        dlferry.pin(torch.eye(2).to_sparse())
    with pytest.raises(dlferry.UnsupportedInput, match="meta"):
        dlferry.pin(torch.ones(2, device="meta"))
    with pytest.raises(dlferry.UnsupportedInput, match="resolve_conj"):
        dlferry.pin(torch.ones(2, dtype=torch.complex64).conj())
    for obj in ("text", None, {}):
        with pytest.raises(dlferry.UnsupportedInput):
            dlferry.pin(obj)


def test_pin_refuses_arguments() -> None:
    with pytest.raises(ValueError, match="readonly"):
        dlferry.pin(torch.ones(1), readonly="copy")  # type: ignore[arg-type]
    with pytest.raises(TypeError, match="readonly"):
        dlferry.pin(torch.ones(1), readonly=True)  # type: ignore[arg-type]


# --- memory_stats ---


def test_memory_stats_has_torchs_keys() -> None:
    stats = dlferry.memory_stats()
    assert list(stats) == sorted(stats)
    assert all(type(value) is int and value >= 0 for value in stats.values())
    text = inspect.getdoc(torch.cuda.host_memory_stats) or ""
    expected = {"num_host_alloc", "num_host_free"}
    for name, parts in re.findall(r'"(\w+)\.\{([\w,]+)\}"', text):
        expected |= {f"{name}.{part}" for part in parts.split(",")}
    assert len(expected) == 28
    assert stats.keys() == expected


def test_what_is_asked_for_without_cuda_locks_nothing() -> None:
    before = dlferry.memory_stats()
    kept = dlferry.empty_pinned(1000), dlferry.pin(np.ones(1000))
    assert dlferry.memory_stats() == before
    del kept
