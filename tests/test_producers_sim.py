"""Producers with work on streams of a simulated device: what they export comes after it."""

from __future__ import annotations

import threading
from typing import Any

import numpy as np
import pytest
import torch
from forge import CUDA, CUDA_HOST, MANAGED, Export, Producer, tensor_in
from sim_torch import SimDoor, read

import dlferry

pytestmark = pytest.mark.native

HOST_KINDS = pytest.mark.parametrize("kind", [CUDA_HOST, MANAGED], ids=["CUDAHost", "CUDAManaged"])


class Late(Producer):
    """A producer whose kernel writes the memory, after which the stream that it is told goes on."""

    def __init__(self, gpu: SimDoor, kind: int, size: int = 100_000) -> None:
        export = Export(np.zeros(size, np.float32))
        export.tensor.device.type = kind
        super().__init__(export, (kind, 0))
        self.gpu = gpu
        self.kernels: list[threading.Thread] = []

    def __dlpack__(self, **request: Any) -> Any:
        gate = self.gpu.sim.gate(request["stream"])

        def kernel() -> None:
            for i in range(len(self.export.array)):  # for a while
                self.export.array[i] = 7
            self.gpu.sim.open(gate)

        self.kernels.append(threading.Thread(target=kernel))
        self.kernels[-1].start()
        return super().__dlpack__(**request)


@HOST_KINDS
@pytest.mark.parametrize("convert", [dlferry.asarray, dlferry.from_dlpack])
@pytest.mark.parametrize("copy", [False, True])
def test_the_host_reads_after_the_work(gpu: SimDoor, convert: Any, kind: int, copy: bool) -> None:
    producer = Late(gpu, kind)
    assert bool((convert(producer, copy=copy) == 7).all())
    producer.kernels[0].join()


@HOST_KINDS
def test_so_do_transfers(gpu: SimDoor, kind: int) -> None:
    for send in (
        lambda x: dlferry.asarray(x, device="cuda"),
        lambda x: dlferry.to_device([x], "cuda")[0],
    ):
        producer = Late(gpu, kind)
        made = send(producer)
        gpu.wait()
        assert bool((read(made) == 7).all())
        producer.kernels[0].join()


@HOST_KINDS
def test_nobody_waits_for_what_is_queued_here(gpu: SimDoor, kind: int) -> None:
    gate = gpu.sim.gate(gpu.current_stream(0))
    producer = Late(gpu, kind)
    assert bool((dlferry.asarray(producer) == 7).all())
    assert not gpu.sim.stream_is_idle(gpu.current_stream(0))
    gpu.sim.open(gate)
    producer.kernels[0].join()


class Queued(Producer):
    """A producer with memory of a device, whose work the stream that it is told takes over."""

    def __init__(self, gpu: SimDoor) -> None:
        export = Export()
        export.tensor.device.type = CUDA
        super().__init__(export, (CUDA, 0))
        self.gpu = gpu

    def __dlpack__(self, **request: Any) -> Any:
        assert self.gpu.sim.kernel(request["stream"], 1) == 0
        return super().__dlpack__(**request)


@pytest.mark.parametrize("mode", [0, 1, 2], ids=["global", "thread", "relaxed"])
def test_a_capture_takes_the_producers_work_in(
    gpu: SimDoor, monkeypatch: pytest.MonkeyPatch, mode: int
) -> None:
    current = gpu.current_stream(0)
    imported = []

    def from_dlpack(capsule: object) -> torch.Tensor:
        imported.append(tensor_in(capsule).device.type)
        return torch.empty(2, 3)

    monkeypatch.setattr(torch.utils.dlpack, "from_dlpack", from_dlpack)
    assert gpu.sim.capture_begin(current, mode) == 0
    producer = Queued(gpu)
    dlferry.from_dlpack(producer)
    assert gpu.sim.capture_status(current) == 1
    assert gpu.sim.capture_end(current, None) == 0
    assert [request["stream"] for request in producer.requests] == [current]
    assert imported == [CUDA]


@HOST_KINDS
def test_a_capture_survives_a_refusal(gpu: SimDoor, kind: int) -> None:
    current = gpu.current_stream(0)
    assert gpu.sim.capture_begin(current, 0) == 0
    producer = Late(gpu, kind)
    with pytest.raises(dlferry.CudaError, match="captured"):
        dlferry.asarray(producer)
    assert gpu.sim.capture_status(current) == 1
    assert gpu.sim.capture_end(current, None) == 0
    assert producer.requests == []
