"""Page-locked memory on the simulated driver: in place, of results, and as the engine sees it."""

from __future__ import annotations

import contextlib
import gc
import mmap
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from sim_torch import SimDoor, read

import dlferry
from dlferry import _link, _page_locked, _torch_cuda
from dlferry._native import core

pytestmark = pytest.mark.native


def is_pinned(tensor: torch.Tensor) -> bool:
    return core.is_pinned(tensor.data_ptr(), tensor.nbytes)


def test_memory_is_locked_in_place_and_unlocked_with_its_last_user(gpu: SimDoor) -> None:
    table = np.arange(120_000, dtype=np.float32).reshape(300, 400)
    tensor = dlferry.pin(table)
    assert tensor.data_ptr() == table.ctypes.data and not tensor._is_view()
    assert gpu.sim.count("registered_bytes") == table.nbytes and is_pinned(tensor)
    row = tensor[1]
    del tensor
    assert gpu.sim.count("registrations") == 1 and is_pinned(row)
    address = table.ctypes.data
    del table
    gc.collect()
    assert row[3] == 403  # the owner lives as long
    del row
    assert gpu.sim.count("registrations") == 0
    assert not core.is_pinned(address, 400)


def test_locked_memory_goes_to_the_device_as_it_is(gpu: SimDoor) -> None:
    tensor = dlferry.pin(torch.arange(1_000_000.0))
    staged = dlferry.memory_stats()["allocated_bytes.current"] - tensor.nbytes
    [there] = _link.to_device([tensor], [torch.float32], 0).tensors()
    gpu.sim.stream_wait(gpu.current_stream(0))
    assert torch.equal(read(there), tensor)
    assert dlferry.memory_stats()["allocated_bytes.current"] - tensor.nbytes == staged


def test_the_memory_outlives_what_becomes_of_the_tensor(gpu: SimDoor) -> None:
    table = torch.full((100_000,), 7.0)
    locked = dlferry.pin(table)
    with pytest.raises(RuntimeError, match="not resizable"):
        table.resize_(400_000)
    table.data = torch.zeros(1)
    del table
    gc.collect()
    assert is_pinned(locked) and bool((locked == 7).all())
    del locked
    assert gpu.sim.count("registrations") == 0


def test_memory_that_is_locked_twice(gpu: SimDoor) -> None:
    table = np.zeros((100, 100))
    first, second, part = dlferry.pin(table), dlferry.pin(table), dlferry.pin(table[10:20])
    assert gpu.sim.count("registrations") == 1
    del first, second
    assert gpu.sim.count("registrations") == 1 and is_pinned(part)
    del part
    assert gpu.sim.count("registrations") == 0


def test_layouts_and_dtypes_stay_as_they_are(gpu: SimDoor) -> None:
    memory = torch.arange(24, dtype=torch.int16).view(torch.bfloat16).reshape(4, 6)
    for given in (memory, memory.t(), memory[1:, ::2], memory[2, 3], memory[:0]):
        tensor = dlferry.pin(given)
        assert tensor.shape == given.shape and tensor.stride() == given.stride()
        assert tensor.dtype == given.dtype and tensor.data_ptr() == given.data_ptr()
        assert torch.equal(tensor.view(torch.int16), given.view(torch.int16))


def test_memory_must_not_go_before_a_copy_that_uses_it(gpu: SimDoor) -> None:
    gate = gpu.sim.gate(core.copy_stream(0, "h2d"))
    crossing = _link.to_device([dlferry.pin(torch.ones(1_000_000))], [torch.float32], 0)
    gc.collect()
    assert gpu.sim.count("registrations") == 1
    gpu.sim.open(gate)
    assert crossing.synchronize(10)
    assert gpu.sim.count("registrations") == 0
    assert bool((read(crossing.tensors()[0]) == 1).all())


def test_read_only_memory(gpu: SimDoor, tmp_path: Path) -> None:
    np.save(tmp_path / "table.npy", np.arange(1000))
    table = np.load(tmp_path / "table.npy", mmap_mode="r")
    with pytest.raises(dlferry.CopyRequired) as caught:
        dlferry.pin(table)
    assert caught.value.reasons == ("read-only",)
    tensor = dlferry.pin(table, readonly="share")
    assert torch.equal(tensor, torch.arange(1000))
    assert gpu.sim.count("registrations") == 1


def test_a_refusal_of_the_driver(gpu: SimDoor) -> None:
    gpu.sim.set(register_result=801)
    with pytest.raises(dlferry.CudaError, match="cuMemHostRegister") as caught:
        dlferry.pin(np.zeros(10))
    assert caught.value.code == 801 and caught.value.call == "cuMemHostRegister"


def test_statistics(gpu: SimDoor) -> None:
    before = dlferry.memory_stats()
    tensor = dlferry.pin(torch.zeros(1000, dtype=torch.uint8))
    during = dlferry.memory_stats()
    del tensor
    after = dlferry.memory_stats()
    for name, much in (("allocations", 1), ("allocated_bytes", 1000), ("active_bytes", 1000)):
        assert during[f"{name}.current"] == before[f"{name}.current"] + much
        assert after[f"{name}.current"] == before[f"{name}.current"]
        assert after[f"{name}.freed"] == before[f"{name}.freed"] + much
    assert during["num_host_alloc"] == before["num_host_alloc"] + 1
    assert after["num_host_free"] == before["num_host_free"] + 1


def test_memory_of_torchs_own_allocator_is_known(gpu: SimDoor) -> None:
    tensor = dlferry.empty_pinned((3, 5), torch.int64)
    address, size = tensor.data_ptr(), tensor.nbytes
    part = tensor[1]
    del tensor
    assert core.is_pinned(address, size)
    del part
    assert not core.is_pinned(address, size)


def test_results_are_page_locked_within_the_cap(
    gpu: SimDoor, monkeypatch: pytest.MonkeyPatch
) -> None:
    results = _page_locked.Results()
    results.cap = 1000
    first, second = results.empty((600,), torch.uint8), results.empty((20, 10), torch.int16)
    assert is_pinned(first) and is_pinned(second)
    beyond = results.empty((1,), torch.uint8)
    assert not is_pinned(beyond)
    part = first[3:]
    del first
    assert results.in_use == 1000
    del part
    assert results.in_use == 400
    assert is_pinned(results.empty((600,), torch.uint8))
    monkeypatch.setattr(_torch_cuda, "is_available", lambda: False)
    assert not is_pinned(results.empty((1,), torch.uint8))


def test_results_are_pageable_where_the_system_locks_no_more(
    gpu: SimDoor, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*wanted: object) -> torch.Tensor:
        raise RuntimeError("CUDA error: out of memory")

    [there] = _link.to_device([torch.arange(9.0)], [torch.float32], 0).tensors()
    results, before = _page_locked.results, _page_locked.results.in_use
    monkeypatch.setattr(_torch_cuda, "empty_pinned", refuse)
    assert torch.equal(dlferry.to_host(there), torch.arange(9.0))
    assert results.in_use == before


def test_threads_keep_to_the_cap_together(gpu: SimDoor, monkeypatch: pytest.MonkeyPatch) -> None:
    results, empty_pinned = _page_locked.Results(), gpu.empty_pinned
    results.cap = 1000
    both = threading.Barrier(2)

    def slowly(*wanted: Any) -> torch.Tensor:
        with contextlib.suppress(threading.BrokenBarrierError):
            both.wait(0.2)  # the other thread is to get as far, if it can
        return empty_pinned(*wanted)

    monkeypatch.setattr(_torch_cuda, "empty_pinned", slowly)
    with ThreadPoolExecutor() as pool:
        made = [*pool.map(lambda _: results.empty((600,), torch.uint8), range(2))]
    assert sorted(is_pinned(tensor) for tensor in made) == [False, True]


def test_the_default_cap() -> None:
    assert 0 < _page_locked.Results().cap <= 4 << 30


def test_threads_lock_and_unlock(gpu: SimDoor) -> None:
    # On pages of their own: what malloc gives may share one with its neighbours.
    tables = [np.frombuffer(mmap.mmap(-1, 4_000_000)) for _ in range(4)]

    def work() -> None:
        for table in tables * 10:
            assert dlferry.pin(table).data_ptr() == table.ctypes.data

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert gpu.sim.count("registrations") == 0
