"""Page-locked and managed memory, and memory that stays as much as it is."""

from __future__ import annotations

import ctypes
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from forge import CUDA_HOST, MANAGED, Export, Producer
from hardware import LIMIT, Array, host, settle
from regions import same_memory

import dlferry
from dlferry import _page_locked

LOOPS = int(os.environ.get("DLFERRY_TEST_LOOPS", "100000"))
BIG = 4_000_000


def page_locked_bytes() -> int:
    """What torch and dlferry have page-locked."""
    stats: Any = getattr(torch.cuda, "host_memory_stats", dict)()
    ours = dlferry.memory_stats()["allocated_bytes.current"]
    return int(stats.get("allocated_bytes.current", 0)) + ours


def test_page_locked_sources_need_no_staging(device: torch.device) -> None:
    source = dlferry.empty_pinned(BIG, torch.float32)
    assert source.is_pinned()
    source.copy_(torch.arange(BIG))
    handle = dlferry.transfer(source, device)
    made = handle.result()
    handle.synchronize(LIMIT)
    assert torch.equal(host(made), source)
    for part in (source[5:], source[::2], source.view(2, -1).T):
        assert torch.equal(host(dlferry.asarray(part, device=device)), part)
    source.zero_()
    assert float(made[-1]) == BIG - 1


def test_torchs_own_page_locked_memory(device: torch.device) -> None:
    source = torch.arange(float(BIG)).pin_memory()
    there = dlferry.to_device([source], device)[0]
    source.zero_()
    assert float(there[-1]) == BIG - 1
    dlferry.copyto(source, there).synchronize(LIMIT)
    assert float(source[-1]) == BIG - 1


def test_page_locked_memory_is_exported_as_what_it_is(device: torch.device) -> None:
    made = dlferry.to_host(torch.arange(BIG, device=device))
    for tensor in (dlferry.empty_pinned((3, 4)), made, dlferry.pin(np.zeros(BIG))):
        assert tensor.is_pinned() and int(tensor.__dlpack_device__()[0]) == CUDA_HOST
        assert np.from_dlpack(tensor).ctypes.data == tensor.data_ptr()
        again = dlferry.from_dlpack(tensor)
        assert again.data_ptr() == tensor.data_ptr() and again.is_pinned()
        assert dlferry.asarray(dlferry.to_numpy(tensor), copy=False).is_pinned()


@pytest.mark.native
def test_page_locked_memory_of_others(rng: np.random.Generator, device: torch.device) -> None:
    array = dlferry.to_numpy(dlferry.empty_pinned(BIG, torch.float32))
    array[:] = rng.random(BIG, dtype=np.float32)
    export = Export(array)
    export.tensor.device.type = CUDA_HOST
    shared = dlferry.asarray(Producer(export, device=(CUDA_HOST, 0)), copy=False)
    assert same_memory(shared, array) and shared.is_pinned()
    assert dlferry.explain(shared, device=device).route == f"pinned → {device}"
    assert np.array_equal(host(dlferry.asarray(shared, device=device)), array)


@pytest.mark.native
def test_managed_memory_of_others(device: torch.device) -> None:
    driver, address = ctypes.CDLL("libcuda.so.1"), ctypes.c_uint64()
    assert driver.cuMemAllocManaged(ctypes.byref(address), ctypes.c_size_t(4 * BIG), 1) == 0
    try:
        memory = (ctypes.c_float * BIG).from_address(address.value)
        array: Array = np.ctypeslib.as_array(memory)
        array[:] = np.arange(BIG)
        export = Export(array)
        export.tensor.device.type = MANAGED
        shared = dlferry.asarray(Producer(export, device=(MANAGED, 0)), copy=False)
        assert same_memory(shared, array) and shared.device.type == "cpu"
        there = dlferry.asarray(shared, device=device)
        assert np.array_equal(host(there), array)
        dlferry.copyto(shared, there + 1).synchronize(LIMIT)
        assert float(array[-1]) == BIG
    finally:
        torch.cuda.synchronize()
        assert driver.cuMemFree_v2(address) == 0


def test_pinning_in_place(rng: np.random.Generator, device: torch.device) -> None:
    table = rng.random(3_000_000)
    tensor = dlferry.pin(table)
    assert tensor.is_pinned() and tensor.data_ptr() == table.ctypes.data
    assert np.array_equal(host(dlferry.asarray(tensor, device=device)), table)
    assert np.array_equal(host(dlferry.asarray(table, device=device)), table)
    again = dlferry.pin(table[1000:])
    del tensor
    assert np.array_equal(host(dlferry.asarray(again, device=device)), table[1000:])
    back = dlferry.asarray(table[::-1], device=device)
    dlferry.copyto(table, back).synchronize(LIMIT)
    assert np.array_equal(host(back), table)
    del again
    assert not torch.from_numpy(table).is_pinned()


def test_results_are_page_locked_within_the_cap(
    device: torch.device, monkeypatch: pytest.MonkeyPatch
) -> None:
    there = torch.arange(BIG, device=device)
    results = _page_locked.results
    settle()
    monkeypatch.setattr(results, "cap", results.in_use + 8 * BIG)
    first = dlferry.to_numpy(there)
    second = dlferry.to_numpy(there)
    assert torch.from_numpy(first).is_pinned() and not torch.from_numpy(second).is_pinned()
    assert np.array_equal(first, second) and first[-1] == BIG - 1
    del first
    third = dlferry.to_host(there)
    assert third.is_pinned() and int(third[-1]) == BIG - 1
    assert not dlferry.to_host([there])[0].is_pinned()


def resident() -> int:
    """Bytes of memory that the process has."""
    pages = Path("/proc/self/statm").read_text(encoding="ascii").split()[1]
    return int(pages) * os.sysconf("SC_PAGE_SIZE")


def test_memory_stays_flat(rng: np.random.Generator, device: torch.device) -> None:
    small, middle, large = (rng.random(n) for n in (10, 3000, 200_000))
    number_list, locked = small.tolist(), dlferry.pin(middle)
    target = torch.empty(3000, dtype=torch.float64, device=device)
    often: list[Callable[[], object]] = [
        lambda: dlferry.asarray(small, device=device),
        lambda: dlferry.asarray(middle, device=device),
        lambda: dlferry.asarray(number_list, device=device),
        lambda: dlferry.asarray(middle[::-2], dtype=torch.float32, device=device),
        lambda: dlferry.asarray(locked, device=device),
        lambda: dlferry.to_device({"a": small, "b": [small, middle]}, device),
        lambda: dlferry.stack([middle, middle], device=device),
        lambda: dlferry.copyto(target, middle),  # dropped on its way
        lambda: dlferry.to_numpy(target),
        lambda: dlferry.to_host([target, small]),
    ]
    seldom: list[Callable[[], object]] = [
        lambda: dlferry.asarray(large, device=device),
        lambda: dlferry.transfer({"a": small, "b": large}, device).cancel(),
        lambda: list(dlferry.prefetch([middle, large], device)),
    ]
    marks: list[tuple[int, int, int]] = []
    for i in range(LOOPS):
        often[i % len(often)]()
        if i % 100 == 0:
            seldom[i // 100 % len(seldom)]()
        if i % 1000 == 0:
            assert np.array_equal(dlferry.to_numpy(dlferry.asarray(large, device=device)), large)
        if i in (LOOPS // 10, LOOPS - 1):
            settle()
            torch.cuda.empty_cache()
            reserved = torch.cuda.memory_reserved()
            marks.append((reserved, page_locked_bytes(), resident()))
    (device_was, locked_was, host_was), (device_is, locked_is, host_is) = marks
    assert device_is <= device_was + (2 << 20)
    assert locked_is <= locked_was + (1 << 20)
    assert host_is <= host_was + (32 << 20)
