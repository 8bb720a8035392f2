"""Transfers on hardware: streams, page-locked memory, errors, and memory that stays flat."""

from __future__ import annotations

import os
import subprocess
import sys
from typing import Any

import numpy as np
import pytest
import torch

import dlferry

LOOPS = int(os.environ.get("DLFERRY_TEST_LOOPS", "2000"))


def test_trees_go_there_and_back(rng: np.random.Generator, device: torch.device) -> None:
    tree = {str(i): rng.random(1 + 97 * i) for i in range(100)}
    tree["large"] = rng.random((3000, 1000))
    there = dlferry.to_device(tree, device)
    for key, array in dlferry.to_host(there).items():
        assert np.array_equal(array.numpy(), tree[key])
        assert there[key].data_ptr() % 256 == 0


@pytest.mark.parametrize("size", [1000, 50_000, 5_000_000])
def test_the_host_does_not_wait_for_the_gpu(
    device: torch.device, busy: torch.cuda.Event, size: int
) -> None:
    source = np.full(size, 3, np.float32)
    made = dlferry.asarray(source, device=device)
    assert not busy.query(), "the call waited for the work queued before it"
    source[:] = 0
    assert bool((made == 3).all())


def test_pinned_sources_need_no_staging(device: torch.device) -> None:
    source = dlferry.empty_pinned(4_000_000, torch.float32)
    assert source.is_pinned()
    source.copy_(torch.arange(4_000_000.0))
    handle = dlferry.transfer(source, device)
    made = handle.result()
    handle.synchronize(20)
    assert torch.equal(made.cpu(), source)


def test_pinning_in_place(rng: np.random.Generator, device: torch.device) -> None:
    table = rng.random(3_000_000)
    tensor = dlferry.pin(table)
    assert tensor.is_pinned() and tensor.data_ptr() == table.ctypes.data
    assert np.array_equal(dlferry.asarray(tensor, device=device).cpu().numpy(), table)
    assert dlferry.memory_stats()["active_bytes.current"] >= table.nbytes


def test_results_wait_for_what_produces_them(device: torch.device, busy: torch.cuda.Event) -> None:
    tensor = torch.zeros(3_000_000, device=device)
    tensor += 5
    handle = dlferry.transfer([tensor], "cpu")
    assert not handle.done()
    assert bool((handle.result()[0] == 5).all())


def test_a_side_stream_is_ordered(device: torch.device) -> None:
    source = np.full(6_000_000, 2, np.float32)
    side = torch.cuda.Stream(device)
    handle = dlferry.transfer(source, device)
    with torch.cuda.stream(side):
        doubled = handle.result() * 2
    side.synchronize()
    assert bool((doubled == 4).all())


def test_freed_results_are_not_overwritten_early(device: torch.device) -> None:
    sums = []
    for i in range(200):
        made = dlferry.asarray(np.full(200_000, i, np.float32), device=device)
        sums.append(made.sum())
        del made
    assert [float(s) / 200_000 for s in sums] == [float(i) for i in range(200)]


def test_prefetch_keeps_the_order(device: torch.device) -> None:
    source = (np.full(300_000, i, np.int32) for i in range(50))
    with dlferry.prefetch(source, device) as batches:
        for i, batch in enumerate(batches):
            assert bool((batch == i).all())


def test_memory_stays_flat(rng: np.random.Generator, device: torch.device) -> None:
    arrays = [rng.random(n) for n in (10, 5000, 200_000)]
    locked = None
    for i in range(LOOPS):
        made = dlferry.to_device(arrays, device)
        if i % 500 == 0:
            assert np.array_equal(made[i % 3].cpu().numpy(), arrays[i % 3])
        if i == 20:
            locked = dlferry.memory_stats()["allocated_bytes.current"]
    if locked is not None:
        assert dlferry.memory_stats()["allocated_bytes.current"] == locked


def test_captures_are_refused_and_survive(device: torch.device) -> None:
    source = np.ones(10)
    dlferry.asarray(source, device=device)
    graph = torch.cuda.CUDAGraph()
    buffer = torch.zeros(10, device=device)
    with torch.cuda.graph(graph, capture_error_mode="relaxed"):
        buffer += 1
        with pytest.raises(dlferry.CudaError, match="captur"):
            dlferry.transfer(source, device)
    graph.replay()
    torch.cuda.synchronize()
    assert bool((buffer >= 1).all())


def _run(code: str) -> subprocess.CompletedProcess[Any]:
    return subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, timeout=120, check=False
    )


def test_exit_with_copies_in_flight() -> None:
    done = _run(
        "import dlferry, numpy as np\n"
        "handles = [dlferry.transfer(np.ones(20_000_000), 'cuda') for _ in range(4)]\n"
    )
    assert (done.returncode, done.stderr) == (0, "")


def test_a_forked_child_has_no_cuda() -> None:
    done = _run(
        "import dlferry, numpy as np, os\n"
        "dlferry.asarray(np.ones(10), device='cuda')\n"
        "child = os.fork()\n"
        "if child == 0:\n"
        "    try:\n"
        "        dlferry.asarray(np.ones(10), device='cuda')\n"
        "    except dlferry.DriverUnavailable:\n"
        "        os._exit(7)\n"
        "    os._exit(1)\n"
        "assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 7\n"
    )
    assert (done.returncode, done.stderr) == (0, "")
