"""Order: on a busy GPU, between streams, and with the arrays of other libraries."""

from __future__ import annotations

import os
from typing import Any

import numpy as np
import pytest
import torch
from hardware import Described, Stranger, host, keep_busy, new_stream

import dlferry

BIG = 6_000_000

# --- while the GPU is busy ---


@pytest.mark.native
@pytest.mark.parametrize("size", [1000, 50_000, 5_000_000])
def test_the_host_does_not_wait_for_the_gpu(device: torch.device, size: int) -> None:
    source = np.full(size, 3, np.float32)

    def converted() -> list[torch.Tensor]:
        return [
            dlferry.asarray(source, device=device),
            dlferry.stack([source, source], device=device),
            dlferry.asarray(source, device=device, dtype=torch.float16),
            dlferry.asarray(source.astype(np.uint8), device=device, dtype=torch.float32),
        ]

    converted()  # so that torch has the memory
    torch.cuda.synchronize()
    event = keep_busy()
    made = converted()
    assert not event.query(), "a call waited for the work queued before it"
    source[:] = 0
    assert all(bool((tensor == 3).all()) for tensor in made)


@pytest.mark.native
def test_more_small_transfers_than_there_are_slots(device: torch.device, busy: Any) -> None:
    made = [dlferry.asarray(np.full(1000, i), device=device) for i in range(100)]
    assert not busy.query()
    assert [int(tensor.max()) for tensor in made] == list(range(100))


@pytest.mark.parametrize("size", [1000, BIG])
def test_results_wait_for_what_produces_them(device: torch.device, size: int) -> None:
    tensor = torch.zeros(size, device=device)
    event = keep_busy()
    tensor += 5
    handle = dlferry.transfer([tensor], "cpu")
    assert not handle.done() and not event.query()
    assert bool((handle.result()[0] == 5).all())
    keep_busy()
    tensor += 1
    assert bool((dlferry.to_numpy(tensor) == 6).all())
    keep_busy()
    tensor += 1
    out = np.zeros(size, np.float32)
    assert bool((dlferry.to_numpy(tensor, out=out) == 7).all())


@pytest.mark.parametrize("size", [1000, BIG])
def test_copyto_waits_for_who_reads_the_destination(device: torch.device, size: int) -> None:
    tensor = torch.ones(size, device=device)
    keep_busy()
    before = tensor.sum()
    handle = dlferry.copyto(tensor, np.full(size, 2, np.float32))
    handle.wait()
    after = tensor.sum()
    assert (float(before), float(after)) == (size, 2 * size)


def test_freed_results_are_not_overwritten_early(device: torch.device) -> None:
    sums = []
    keep_busy()
    for i in range(200):
        made = dlferry.asarray(np.full(200_000, i, np.float32), device=device)
        sums.append(made.sum())
        del made
    assert [float(s) / 200_000 for s in sums] == [float(i) for i in range(200)]


def test_freed_results_are_not_overwritten_on_side_streams(device: torch.device) -> None:
    streams = [new_stream(device) for _ in range(3)]
    sums = []
    for stream in streams:
        keep_busy(stream)
    for i in range(90):
        with torch.cuda.stream(streams[i % 3]):
            for size in (500, 200_000):
                made = dlferry.asarray(np.full(size, i, np.float32), device=device)
                sums.append((made.sum(), i * size))  # integers of less than 2**26: exact
                del made
    torch.cuda.synchronize()
    assert all(float(total) == wanted for total, wanted in sums)


def test_sources_from_side_streams(device: torch.device) -> None:
    side = new_stream(device)
    tensor = torch.zeros(BIG, device=device)
    torch.cuda.synchronize()
    with torch.cuda.stream(side):
        keep_busy(side)
        tensor += 4
        small = tensor[:100] + 1
        assert bool((dlferry.to_numpy(tensor) == 4).all())
        assert bool((dlferry.to_host(small) == 5).all())


# --- other libraries' arrays, coming in ---


@pytest.mark.parametrize(
    "convert", [dlferry.asarray, dlferry.from_dlpack], ids=lambda f: f.__name__
)
@pytest.mark.parametrize("on_side", [False, True])
def test_a_producer_is_told_the_current_stream(
    device: torch.device, convert: Any, on_side: bool
) -> None:
    theirs = new_stream(device)
    ours = new_stream(device) if on_side else torch.cuda.default_stream(device)
    tensor = torch.zeros(BIG, device=device)
    torch.cuda.synchronize()
    with torch.cuda.stream(theirs):
        event = keep_busy(theirs)
        tensor += 7
    producer = Stranger(tensor, theirs)
    with torch.cuda.stream(ours):
        shared = convert(producer)
        assert not event.query(), "the host waited"
        copy = shared.clone()
    assert producer.asked == [ours.cuda_stream if on_side else 1]
    ours.synchronize()
    assert bool((copy == 7).all())
    torch.cuda.synchronize()


@pytest.mark.parametrize("convert", [dlferry.to_numpy, dlferry.to_host], ids=lambda f: f.__name__)
def test_a_strangers_array_to_the_host(device: torch.device, convert: Any) -> None:
    theirs = new_stream(device)
    tensor = torch.zeros(BIG, device=device)
    torch.cuda.synchronize()
    with torch.cuda.stream(theirs):
        keep_busy(theirs)
        tensor += 7
    assert bool((convert(Stranger(tensor, theirs)) == 7).all())


@pytest.mark.parametrize("which", ["legacy", "per thread", "handle"])
def test_a_described_array_waits_for_its_stream(device: torch.device, which: str) -> None:
    external: Any = torch.cuda.ExternalStream
    handle = {"legacy": 1, "per thread": 2}.get(which)
    ours = new_stream(device)
    theirs = new_stream(device)
    if which == "legacy":
        theirs = torch.cuda.default_stream(device)
    elif which == "per thread":
        theirs = external(2, device=device)
    tensor = torch.zeros(BIG, device=device)
    torch.cuda.synchronize()
    with torch.cuda.stream(theirs):
        event = keep_busy(theirs)
        tensor += 7
    with torch.cuda.stream(ours):
        shared = dlferry.asarray(Described(tensor, stream=handle or theirs.cuda_stream))
        assert shared.data_ptr() == tensor.data_ptr() and not event.query()
        copy = shared.clone()
    ours.synchronize()
    assert bool((copy == 7).all())


def test_a_described_array_without_a_stream(device: torch.device) -> None:
    tensor = torch.ones(3, device=device)
    for source in (
        Described(tensor),
        Described(tensor, version=2),
        Described(tensor, strides=None),
    ):
        assert host(dlferry.asarray(source)).tolist() == [1, 1, 1]


# --- ours, going out ---


@pytest.mark.parametrize("stream", [None, -1, 1, "handle"])
def test_what_has_just_arrived_is_exported_in_order(device: torch.device, stream: Any) -> None:
    side = new_stream(device)
    consumer = side if stream == "handle" else torch.cuda.default_stream(device)
    for size in (100, BIG):
        made = dlferry.asarray(np.full(size, 6, np.float32), device=device)
        made += 1
        value = side.cuda_stream if stream == "handle" else stream
        capsule = made.__dlpack__(stream=value, max_version=(1, 0))
        with torch.cuda.stream(consumer):
            copy = torch.utils.dlpack.from_dlpack(capsule).clone()
        consumer.synchronize()
        assert bool((copy == 7).all())


def test_the_per_thread_stream_is_torchs_to_refuse(device: torch.device) -> None:
    made = dlferry.asarray(np.ones(3), device=device)
    with pytest.raises(BufferError, match="per-thread"):
        made.__dlpack__(stream=2)


# --- real partners ---


def partner(name: str) -> Any:
    return pytest.importorskip(name, reason=f"{name} is not installed", exc_type=ImportError)


# What they warn of themselves is no concern of these tests.
@pytest.mark.filterwarnings("ignore")
def test_cupy(rng: np.random.Generator, device: torch.device) -> None:
    cupy = partner("cupy")
    theirs = cupy.cuda.Stream(non_blocking=True)
    ours = new_stream(device)
    with theirs:
        array = cupy.arange(BIG, dtype=cupy.float32)
        array *= 2
        with torch.cuda.stream(ours):
            shared = dlferry.asarray(array)
            total = (shared[:1000] * 1).sum()
    ours.synchronize()
    assert float(total) == 999_000 and shared.data_ptr() == array.data.ptr
    for dtype in ("bool", "uint8", "int16", "uint16", "uint64", "float16", "float64", "complex128"):
        values = rng.integers(0, 2, (5, 7)).astype(dtype)
        there = cupy.asarray(values)
        for view, wanted in (
            (there, values),
            (there[::2, 1:], values[::2, 1:]),
            (there.T, values.T),
        ):
            assert np.array_equal(host(dlferry.asarray(view)).numpy(), wanted)
            assert np.array_equal(dlferry.to_numpy(view), wanted)
        turned = dlferry.asarray(there[::-1])
        assert np.array_equal(host(turned).numpy(), values[::-1])
    made = dlferry.asarray(np.arange(10.0), device=device)
    assert cupy.from_dlpack(made).sum() == 45 and cupy.asarray(made).sum() == 45
    torch.cuda.synchronize()
    cupy.get_default_memory_pool().free_all_blocks()


@pytest.mark.filterwarnings("ignore")
def test_jax(device: torch.device) -> None:
    os.environ.setdefault("XLA_PYTHON_CLIENT_PREALLOCATE", "false")
    jax = partner("jax")
    try:
        [gpu, *_] = jax.devices("gpu")
    except RuntimeError as error:
        pytest.skip(f"jax has no GPU here: {error}")
    array = jax.device_put(np.arange(12, dtype=np.float32).reshape(3, 4), gpu) * 2
    wanted = np.arange(12, dtype=np.float32).reshape(3, 4) * 2
    shared = dlferry.asarray(array, readonly="share", copy=False)
    assert shared.device == device and np.array_equal(host(shared).numpy(), wanted)
    copied = dlferry.asarray(array)
    copied += 1
    assert np.array_equal(np.asarray(array), wanted)
    assert np.array_equal(dlferry.to_numpy(array), wanted)
    made = dlferry.asarray(np.arange(10, dtype=np.float32), device=device)
    assert float(jax.dlpack.from_dlpack(made).sum()) == 45
