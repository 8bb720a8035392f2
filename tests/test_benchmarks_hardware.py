"""What the benchmarks ask of torch about a GPU, with a made-up one behind `torch.cuda`."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch

import dlferry
from benchmarks import machine, table
from benchmarks.gpu import hardware


class MadeUpGpu:
    """One stream with a clock: what is queued takes its cycles, and only `synchronize` waits."""

    def __init__(self) -> None:
        self.cycles_per_second = 1e9
        self.now = 0.0
        self.queued_until = 0.0
        self.sleeps: list[int] = []
        self.waits = 0
        self.allocated = 0

    def sleep(self, cycles: int) -> None:
        self.sleeps.append(cycles)
        self.queued_until = max(self.queued_until, self.now) + cycles / self.cycles_per_second

    def synchronize(self) -> None:
        self.waits += 1
        self.now = max(self.now, self.queued_until)

    def event(self, *, enable_timing: bool) -> Any:
        assert enable_timing

        class Event:
            at = 0.0

            def record(event) -> None:  # noqa: N805  # `self` is the GPU
                event.at = max(self.now, self.queued_until)

            def elapsed_time(event, end: Event) -> float:  # noqa: N805
                assert self.now >= end.at, "nobody waited for the event"
                return (end.at - event.at) * 1e3

        return Event()


@pytest.fixture
def made_up(monkeypatch: pytest.MonkeyPatch) -> Iterator[MadeUpGpu]:
    gpu = MadeUpGpu()
    replaced = {
        "is_available": lambda: True,
        "is_initialized": lambda: True,
        "current_device": lambda: 0,
        "synchronize": gpu.synchronize,
        "empty_cache": lambda: None,
        "memory_allocated": lambda: gpu.allocated,
        "get_device_name": lambda: "NVIDIA H200",
        "get_device_properties": lambda index: SimpleNamespace(
            name="NVIDIA H200",
            total_memory=141 * 2**30,
            multi_processor_count=132,
            major=9,
            minor=0,
            uuid="0f-1e",
        ),
        "_sleep": gpu.sleep,
        "Event": gpu.event,
    }
    for name, value in replaced.items():
        monkeypatch.setattr(torch.cuda, name, value)
    caches = (hardware._first_used, hardware._cycles_per_second)
    for cache in caches:
        cache.cache_clear()
    yield gpu
    for cache in caches:
        cache.cache_clear()


@pytest.fixture
def opened(monkeypatch: pytest.MonkeyPatch) -> list[torch.device]:
    """The devices that dlferry was asked to move something to."""
    devices: list[torch.device] = []
    monkeypatch.setattr(dlferry, "asarray", lambda array, device: devices.append(device))
    return devices


@pytest.mark.usefixtures("made_up")
def test_dlferrys_driver_is_opened_with_the_device(opened: list[torch.device]) -> None:
    assert hardware.device() == hardware.device() == torch.device("cuda", 0)
    assert opened == [torch.device("cuda", 0)]
    assert hardware.on_gpu()


@pytest.mark.usefixtures("opened")
def test_done_waits_for_the_device(made_up: MadeUpGpu) -> None:
    names: Any = hardware.names(more=1)
    assert (names["cuda"], names["more"]) == (torch.device("cuda", 0), 1)
    assert names["done"]("result") == "result"
    assert made_up.waits == 1


@pytest.mark.usefixtures("opened")
def test_work_is_as_long_as_asked(made_up: MadeUpGpu) -> None:
    spin = hardware.spinner(0.02)
    started, before = made_up.now, len(made_up.sleeps)
    spin()
    assert made_up.now == started
    made_up.synchronize()
    assert made_up.now - started == pytest.approx(0.02)
    assert len(made_up.sleeps) == before + 1


@pytest.mark.usefixtures("opened")
def test_a_queue_is_there_during_the_block_and_over_after_it(made_up: MadeUpGpu) -> None:
    queue = hardware.Queue(0.1)
    with queue():
        assert made_up.queued_until - made_up.now == pytest.approx(0.1)
    assert made_up.now == made_up.queued_until


@pytest.mark.usefixtures("opened")
def test_a_queue_follows_the_clock_of_the_gpu(made_up: MadeUpGpu) -> None:
    queue = hardware.Queue(0.1)
    for speed, length in [(1e9, 0.1), (2e9, 0.05), (2e9, 0.1), (1e9, 0.2), (1e9, 0.1)]:
        made_up.cycles_per_second = speed
        with queue():
            assert made_up.queued_until - made_up.now == pytest.approx(length)


@pytest.mark.usefixtures("opened")
def test_a_queue_is_over_after_an_error(made_up: MadeUpGpu) -> None:
    with pytest.raises(KeyError), hardware.Queue(0.1)():
        raise KeyError
    assert made_up.now == made_up.queued_until


@pytest.mark.usefixtures("opened")
def test_allocated_memory_is_asked_of_torch(made_up: MadeUpGpu) -> None:
    made_up.allocated = 512
    assert (hardware.allocated_bytes(), made_up.waits) == (512, 1)


@pytest.mark.usefixtures("made_up")
def test_the_description_names_the_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[list[str]] = []

    def answer(command: list[str], **options: Any) -> Any:
        asked.append(command)
        return SimpleNamespace(stdout="580.95.05, 5, 16, 1980 MHz\n")

    monkeypatch.setattr(subprocess, "run", answer)
    described = machine.describe()
    assert described["name"].endswith("cores-nvidia-h200")
    assert asked[0][-1] == "--id=GPU-0f-1e"
    gpu = described["gpu"]
    assert (gpu["driver"], gpu["link"], gpu["capability"]) == ("580.95.05", "PCIe gen 5 x16", "9.0")
    assert gpu["multiprocessors"] == 132
    described["dlferry_config"]["driver"] = 13000
    line = table.machine_line(described)
    assert "NVIDIA H200 on PCIe gen 5 x16, driver 580.95.05 (dlferry: CUDA 13000), CUDA" in line


@pytest.mark.usefixtures("made_up")
def test_a_machine_without_nvidia_smi_is_described(monkeypatch: pytest.MonkeyPatch) -> None:
    def missing(command: list[str], **options: Any) -> Any:
        raise FileNotFoundError(command[0])

    monkeypatch.setattr(subprocess, "run", missing)
    assert machine.gpu()["link"] == "PCIe gen ? x?"


def test_same_is_exact_about_dtype_and_byte_order(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(hardware, "device", lambda: torch.device("cpu"))
    x = np.arange(3, dtype=">f4")
    assert hardware.same(x, torch.arange(3.0))
    assert not hardware.same(x, torch.arange(3))
    assert not hardware.same(x, x)
