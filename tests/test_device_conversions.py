"""Conversions to and from a simulated device: whatever works on the host works there."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from sim_torch import SimDoor, SimTensor, read
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode

import dlferry
from dlferry import _crossing, _link, _torch, _torch_cuda
from dlferry._native import core

pytestmark = pytest.mark.native


def arrived(gpu: SimDoor, tensor: torch.Tensor) -> torch.Tensor:
    """What a tensor holds once the current stream has come so far."""
    assert isinstance(tensor, SimTensor)
    assert gpu.sim.stream_wait(gpu.current_stream(0)) == 0
    return read(tensor)


@pytest.mark.parametrize(
    "source",
    [
        np.arange(12.0).reshape(3, 4),
        np.arange(12, dtype=">f4").reshape(3, 4)[:, ::-1],
        np.arange(600_000, dtype=np.int16).reshape(300, 2000)[::2, ::3],
        torch.arange(10),
        torch.arange(40.0).reshape(5, 8).T,
        bytearray(b"some bytes"),
        [1, 2, 3],
        [[1.5, 2.5], [3.5, 4.5]],
        [np.arange(3), np.arange(3)],
        np.float32(2.5),
        np.zeros((0, 3)),
    ],
    ids=[
        "array", "reversed big-endian", "strided", "tensor", "transposed tensor", "buffer", "ints",
        "nested floats", "arrays", "scalar", "empty",
    ],
)  # fmt: skip
@pytest.mark.parametrize("dtype", [None, torch.float32, torch.float16, torch.int64])
def test_asarray_to_the_device(gpu: SimDoor, source: Any, dtype: torch.dtype | None) -> None:
    on_host = dlferry.asarray(source, dtype=dtype)
    made = dlferry.asarray(source, device="cuda", dtype=dtype)
    assert made.dtype == on_host.dtype
    assert torch.equal(arrived(gpu, made), on_host)


@pytest.mark.parametrize("dtype", [None, torch.float16, torch.float64, torch.uint8])
def test_little_goes_the_short_way(
    gpu: SimDoor, monkeypatch: pytest.MonkeyPatch, dtype: torch.dtype | None
) -> None:
    monkeypatch.setattr(_link, "to_device", None)
    swapped = np.arange(6, dtype=">f4").reshape(2, 3)
    for source in (np.arange(4.0), swapped, np.array(3), torch.arange(6).view(3, 2)):
        on_host = dlferry.asarray(source, dtype=dtype)
        for made in (
            dlferry.asarray(source, device="cuda", dtype=dtype),
            dlferry.to_device(source, "cuda", dtype=dtype),
        ):
            assert made.dtype == on_host.dtype
            assert torch.equal(arrived(gpu, made), on_host)


def test_little_takes_another_way_while_all_slots_are_in_use(gpu: SimDoor) -> None:
    gate = gpu.sim.gate(gpu.current_stream(0))
    sources = [np.full(100, i) for i in range(100)]
    made = [dlferry.asarray(source, device="cuda") for source in sources]
    for source in sources:
        source[:] = -1
    assert gpu.sim.open(gate) == 0
    for i, tensor in enumerate(made):
        assert bool((arrived(gpu, tensor) == i).all())


def test_little_that_changes_while_memory_is_made(
    gpu: SimDoor, monkeypatch: pytest.MonkeyPatch
) -> None:
    source = np.arange(6)
    allocated = _crossing.allocated

    def reshaping(*args: Any, **options: Any) -> torch.Tensor:
        source.shape = (source.size // 2, 2) if source.ndim == 1 else (source.size,)
        return allocated(*args, **options)

    with monkeypatch.context() as patch:
        patch.setattr(_crossing, "allocated", reshaping)
        made = dlferry.asarray(source, device="cuda")
    assert made.numel() == 6
    assert arrived(gpu, made).reshape(6).tolist() == list(range(6))


def test_the_source_may_change_afterwards(gpu: SimDoor) -> None:
    source = np.ones(3_000_000, np.float32)
    made = dlferry.asarray(source, device="cuda")
    source[:] = 0
    assert bool((arrived(gpu, made) == 1).all())


@pytest.mark.parametrize("shape", [(3,), (40, 50), (300, 400)])
@pytest.mark.parametrize("dtype", [None, torch.float16])
def test_stack_goes_straight_to_the_device(
    gpu: SimDoor, rng: np.random.Generator, shape: tuple[int, ...], dtype: torch.dtype | None
) -> None:
    arrays = [rng.random((*shape, 2), dtype=np.float32)[..., i % 2] for i in range(9)]
    made = dlferry.stack(arrays, device="cuda", dtype=dtype)
    assert torch.equal(
        arrived(gpu, made), torch.from_numpy(np.stack(arrays)).to(dtype or torch.float32)
    )


def test_to_numpy_from_the_device(gpu: SimDoor, rng: np.random.Generator) -> None:
    for size in (5, 700_000):
        values = rng.random(size, dtype=np.float32)
        tensor = dlferry.asarray(values, device="cuda")
        assert np.array_equal(dlferry.to_numpy(tensor), values)
        assert dlferry.to_numpy(tensor, dtype=np.float16).dtype == np.float16
        out = np.zeros(size, np.float32)
        assert dlferry.to_numpy(tensor, out=out) is out
        assert np.array_equal(out, values)
        with pytest.raises(dlferry.CopyRequired, match="device"):
            dlferry.to_numpy(tensor, copy=False)


def test_asarray_back_to_the_host(gpu: SimDoor) -> None:
    tensor = dlferry.asarray(np.arange(5), device="cuda")
    assert dlferry.asarray(tensor) is tensor
    assert dlferry.asarray(tensor, device="cpu").tolist() == [0, 1, 2, 3, 4]
    with pytest.raises(dlferry.CopyRequired, match="device"):
        dlferry.asarray(tensor, device="cpu", copy=False)


def test_explain_tells_the_way(gpu: SimDoor) -> None:
    staged = dlferry.explain(np.zeros(1000, np.uint8), device="cuda", dtype=torch.float32)
    assert (staged.route, staged.bytes_moved, staged.reasons) == (
        "staged → cuda:0", 1000, ("dtype", "device"),
    )  # fmt: skip
    pinned = dlferry.explain(dlferry.empty_pinned(20_000, torch.float32), device="cuda")
    assert (pinned.route, pinned.bytes_moved) == ("pinned → cuda:0", 80_000)
    tensor = dlferry.asarray(np.zeros(10), device="cuda")
    filled = dlferry.explain([1.0, 2.0], device="cuda")
    assert (filled.route, filled.bytes_moved) == ("fill → cuda:0", 8)
    back = dlferry.explain(tensor, device="cpu")
    assert (back.route, back.bytes_moved) == ("cuda:0 → cpu", 80)
    assert dlferry.explain(tensor).shares
    assert gpu.sim.count("h2d_bytes") <= 80


def test_copyto_through_bits_that_stand_for_an_operation(gpu: SimDoor) -> None:
    values = torch.complex(torch.arange(5.0), torch.arange(5.0) + 1)
    conjugate = torch.zeros(5, dtype=torch.complex64).conj()
    dlferry.copyto(conjugate, dlferry.asarray(values, device="cuda", copy=True)).synchronize()
    assert torch.equal(conjugate.resolve_conj(), values)
    negative = torch.zeros(5, dtype=torch.complex64).conj().imag
    dlferry.copyto(negative, dlferry.asarray(values.imag, device="cuda")).synchronize()
    assert torch.equal(negative.resolve_neg(), values.imag)


def test_copyto_on_a_device_is_over_when_its_stream_has_come_so_far(
    gpu: SimDoor, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Event:
        over = False

        def query(self) -> bool:
            return self.over

    event, waits = Event(), []
    monkeypatch.setattr(_torch, "fill", lambda out, source: out)
    monkeypatch.setattr(_torch_cuda, "recorded", lambda device: event)
    monkeypatch.setattr(
        _torch_cuda, "wait_event", lambda device, stream, event: waits.append(stream)
    )
    on_device = dlferry.asarray(np.zeros((3, 4), np.float32), device="cuda")
    for dst, src in ((on_device[:, ::2], np.ones((3, 2), np.float32)), (on_device, on_device)):
        handle = dlferry.copyto(dst, src)
        event.over = False
        assert not handle.done()
        event.over = True
        assert handle.done() and handle.result() is dst
        handle.wait(7)
        assert waits.pop() == 7


def test_copyto_in_either_direction(gpu: SimDoor, rng: np.random.Generator) -> None:
    for size in (7, 900_000):
        values = rng.random(size)
        on_device = dlferry.asarray(np.zeros(size, np.float32), device="cuda")
        dlferry.copyto(on_device, values).synchronize()
        assert torch.equal(arrived(gpu, on_device), torch.from_numpy(values).float())
        whole = np.zeros((size, 2))
        handle = dlferry.copyto(whole[:, 1], on_device)
        handle.synchronize()
        assert np.array_equal(whole[:, 1], values.astype(np.float32))
        assert not whole[:, 0].any()


class _AsBytes(TorchFunctionMode):
    """A mode under which torch's new tensors have elements of one byte."""

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        is_factory = func in (torch.empty, torch.empty_strided)
        return func(*args, **{**(kwargs or {}), **({"dtype": torch.uint8} if is_factory else {})})


@pytest.mark.parametrize("source", [np.arange(6.0), np.arange(6.0)[::2], [np.arange(3.0)] * 2])
def test_memory_that_is_not_as_asked_is_not_written_to(gpu: SimDoor, source: Any) -> None:
    with _AsBytes(), pytest.raises(BufferError, match="leave the mode"):
        dlferry.asarray(source, device="cuda")
    with _AsBytes(), pytest.raises(BufferError, match="leave the mode"):
        dlferry.to_device({"a": source[0], "b": source}, "cuda")
    made = dlferry.asarray(source, device="cuda")
    assert torch.equal(arrived(gpu, made), dlferry.asarray(source))
    with _AsBytes(), pytest.raises(BufferError, match="leave the mode"):
        dlferry.to_numpy(made)


@pytest.mark.parametrize("count", [1, 3])
def test_a_tensor_of_zeros_without_memory_is_left_to_torch(gpu: SimDoor, count: int) -> None:
    zeros = torch._efficientzerotensor((5,))
    assert not _torch_cuda.is_plain(zeros)
    with pytest.raises(BufferError, match="null"):
        core.start_transfer(
            "h2d", [(zeros, 256, zeros.dtype, None)] * count, device=0, stream=0, packed=False,
            ordered=False, on_stream=False, keep_host=None, keep_device=None,
        )  # fmt: skip
    with pytest.raises(BufferError, match="has no memory"):
        core.start_transfer(
            "h2d", [(torch.ones(5), 0, zeros.dtype, None)], device=0, stream=0, packed=False,
            ordered=False, on_stream=False, keep_host=None, keep_device=None,
        )  # fmt: skip


class _Watching(TorchDispatchMode):
    """Sees all that torch does, and changes nothing."""

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        return func(*args, **(kwargs or {}))


@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # of torch.jit
def test_what_is_watched_is_left_to_torch(gpu: SimDoor) -> None:
    host, device = torch.ones(3), torch.device("cuda", 0)
    assert _link.takes(host, device)
    with _Watching():
        assert not _link.takes(host, device)
    assert _link.takes(host, device)

    def traced(x: torch.Tensor) -> torch.Tensor:
        assert not _link.takes(host, device)
        return x + 1

    torch.jit.trace(traced, (host,), check_trace=False)
