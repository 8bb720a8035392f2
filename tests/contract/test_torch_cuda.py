"""What dlferry asks of `torch.cuda`, in the words that torch has for it; a recorder plays torch."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
import torch
from forge import CUDA, Export, Producer

import dlferry
from dlferry import _torch, _torch_cuda


class Cuda:
    """`torch.cuda` with two devices, whose streams are their names."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.current = 0
        self.waits: list[tuple[Any, Any]] = []
        monkeypatch.setattr(_torch_cuda, "_streams", {})
        for name, answer in {
            "is_available": lambda: True,
            "device_count": lambda: 2,
            "current_device": lambda: self.current,
            "device": self.device,
            "ExternalStream": lambda handle, device: self.Stream(self, f"{handle} on {device}"),
            "default_stream": lambda device: self.Stream(self, f"default on {device}"),
        }.items():
            monkeypatch.setattr(torch.cuda, name, answer)
        monkeypatch.setattr(_torch_cuda, "current_stream", lambda device: 0x100)

    @contextlib.contextmanager
    def device(self, index: int) -> Iterator[None]:
        before, self.current = self.current, index
        yield
        self.current = before

    class Stream:
        def __init__(self, cuda: Cuda, name: str) -> None:
            self.cuda, self.name = cuda, name

        def wait_stream(self, other: Cuda.Stream) -> None:
            self.cuda.waits.append((self.name, other.name))


@pytest.fixture
def cuda(monkeypatch: pytest.MonkeyPatch) -> Cuda:
    return Cuda(monkeypatch)


@pytest.mark.parametrize(
    ("handle", "name"),
    [
        (0, "default on cuda:1"),  # ExternalStream would make a new stream of it
        (1, "default on cuda:1"),  # and fail with this one
        (2, "2 on cuda:1"),
        (0x7F00, "32512 on cuda:1"),
    ],
)
def test_streams_by_their_handles(cuda: Cuda, handle: int, name: str) -> None:
    _torch_cuda.follow(1, handle, 0x500)
    assert cuda.waits == [(name, "1280 on cuda:1")]


@pytest.mark.parametrize("owner", [0, 1])
@pytest.mark.parametrize("stream", [None, 1, 0x7F00])
def test_memory_is_looked_for_on_every_device(
    cuda: Cuda, monkeypatch: pytest.MonkeyPatch, owner: int, stream: int | None
) -> None:
    class Described:
        __cuda_array_interface__ = {"shape": (3,), "data": (0x1000, False)}  # noqa: RUF012

    class Tensor:
        """As torch makes it: where the memory is, and then copied to the device that was named."""

        def __init__(self, described: Any, device: Any) -> None:
            where = torch.device(device)
            named = cuda.current if where.index is None else where.index
            trusted = where.index is not None
            self.address = 0x1000 if trusted or named == owner else 0x9000

        def data_ptr(self) -> int:
            return self.address

    asked: list[int] = []

    def as_tensor(described: Any, device: Any) -> Tensor:
        asked.append(cuda.current)
        return Tensor(described, device)

    monkeypatch.setattr(torch, "as_tensor", as_tensor)
    assert _torch_cuda.on_cuda_memory(Described(), stream).data_ptr() == 0x1000
    assert asked == [0, 1][: owner + 1]
    other = {None: None, 1: f"default on cuda:{owner}", 0x7F00: f"32512 on cuda:{owner}"}[stream]
    assert cuda.waits == ([] if other is None else [(f"256 on cuda:{owner}", other)])


def test_a_forked_process_is_told_so(cuda: Cuda, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "_is_in_bad_fork", lambda: True)
    for attempt in (
        lambda: dlferry.asarray(np.ones(3), device="cuda"),
        lambda: dlferry.asarray([1, 2], device="cuda:0"),
        lambda: dlferry.stack([np.ones(3)], device="cuda"),
        lambda: dlferry.transfer([np.ones(3)], "cuda"),
        lambda: dlferry.prefetch([np.ones(3)], "cuda"),
        lambda: _torch.converted(torch.ones(3), torch.device("cuda", 0), torch.float32),
        lambda: _torch.moved(torch.ones(3), torch.device("cuda", 0), torch.float32),
    ):
        with pytest.raises(dlferry.DriverUnavailable, match="fork"):
            attempt()
    assert not dlferry.empty_pinned(3).is_pinned()


@pytest.mark.native  # the other core imports device memory by torch alone
@pytest.mark.parametrize("stride", [-1, -2])
def test_reversed_memory_of_a_device_never_reaches_torchs_importer(
    cuda: Cuda, monkeypatch: pytest.MonkeyPatch, stride: int
) -> None:
    array = np.arange(8, dtype=np.float32)[::stride]
    export = Export(array)
    export.tensor.device.type = CUDA
    producer = Producer(export, device=(CUDA, 0))
    with pytest.raises(dlferry.UnsupportedInput, match="negative strides"):
        dlferry.asarray(producer)

    def on_host(described: Any, stream: Any) -> torch.Tensor:
        class Memory:
            owner = described
            __array_interface__ = described.__cuda_array_interface__ | {"version": 3}

        return torch.from_numpy(np.asarray(Memory()))

    monkeypatch.setattr(_torch_cuda, "on_cuda_memory", on_host)
    producer.__cuda_array_interface__ = array.__array_interface__ | {"version": 3}  # type: ignore[attr-defined]
    assert dlferry.asarray(producer).tolist() == array.tolist()
    with pytest.raises(dlferry.CopyRequired) as caught:
        dlferry.asarray(producer, copy=False)
    assert caught.value.reasons == ("strides",)
