"""Copies across the link on the simulated driver: every element, whatever its dtype and layout."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from sim_torch import SimDoor, SimTensor, block_of, read, write

import dlferry
from dlferry import _link, _page_locked, _torch
from dlferry._native import core

pytestmark = pytest.mark.native

Array = np.ndarray[Any, Any]

DTYPES = [name for name in _torch.DTYPE_NAMES if hasattr(torch, name)]

LAYOUTS: dict[str, Callable[[Array], Array]] = {
    "contiguous": lambda a: a,
    "every other row": lambda a: a[::2],
    "every third column": lambda a: a[:, ::3],
    "reversed": lambda a: a[::-1, ::-1],
    "transposed": lambda a: a.T,
    "broadcast": lambda a: np.broadcast_to(a[0], a.shape),
    "byte-swapped": lambda a: a.astype(a.dtype.newbyteorder()),
    "misaligned": lambda a: misaligned(a),
    "0-d": lambda a: a[0, 0, ...],
    "empty": lambda a: a[:0],
}
SHAPES = {"small": (37, 41), "large": (1201, 1303)}


def misaligned(array: Array) -> Array:
    memory = np.empty(array.nbytes + 1, np.uint8)
    moved = memory[1:].view(array.dtype).reshape(array.shape)
    moved[:] = array
    return moved


def numbers(rng: np.random.Generator, shape: tuple[int, ...], dtype: str) -> Array:
    """Any bits but those that a cast or comparison could lose."""
    if dtype == "bool":
        return rng.integers(0, 2, shape).astype(bool)
    values = rng.integers(0, 100, shape)
    return (values + 1j * values[::-1] if "complex" in dtype else values).astype(dtype)


def source(array: Array) -> core.Source:
    found = core.ingest(array, False)
    assert found is not None
    return found


def expected(array: Array) -> torch.Tensor:
    return torch.from_numpy(array.astype(array.dtype.newbyteorder("="), order="C"))


def same(one: torch.Tensor, other: torch.Tensor) -> bool:
    """Bit by bit."""
    if one.shape != other.shape or one.dtype != other.dtype:
        return False
    if one.numel() == 0:
        return True
    return torch.equal(one.reshape(-1).view(torch.uint8), other.reshape(-1).view(torch.uint8))


@pytest.mark.parametrize("size", SHAPES)
@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("dtype", ["uint8", "int16", "float32", "complex128"])
def test_every_layout_arrives(
    gpu: SimDoor, rng: np.random.Generator, dtype: str, layout: str, size: str
) -> None:
    array = LAYOUTS[layout](numbers(rng, SHAPES[size], dtype))
    wanted = expected(array)
    [tensor] = _link.to_device([source(array)], [wanted.dtype], 0).tensors()
    assert isinstance(tensor, SimTensor)
    gpu.sim.stream_wait(gpu.current_stream(0))
    assert same(read(tensor), wanted)
    assert tensor.stride() == dlferry.asarray(array, copy=True).stride()
    [back] = _link.to_host([tensor], [wanted.dtype]).tensors()
    assert same(back, wanted)
    assert back.stride() == tensor.stride()


@pytest.mark.filterwarnings("ignore:ComplexHalf:UserWarning")  # torch's, once in a process
@pytest.mark.parametrize("dtype", DTYPES)
def test_every_dtype_goes_there_and_back(
    gpu: SimDoor, rng: np.random.Generator, dtype: str
) -> None:
    wanted = getattr(torch, dtype)
    tensor = torch.from_numpy(numbers(rng, (300, 500), "uint8"))
    tensor = tensor.to(torch.bool) if dtype == "bool" else tensor
    host = tensor.repeat_interleave(wanted.itemsize, 1).view(wanted)
    [there] = _link.to_device([host], [wanted], 0).tensors()
    [back] = _link.to_host([there], [wanted]).tensors()
    assert same(back, host)


PERMUTED = {
    "transposed": torch.arange(6000.0).reshape(20, 300).T,
    "channels last": torch.arange(6000.0).reshape(5, 20, 20, 3).permute(0, 3, 1, 2),
    "one channel, last": torch.arange(2000.0).reshape(5, 20, 20, 1).permute(0, 3, 1, 2),
    "large": torch.arange(2_000_000.0).reshape(100, 50, 400).permute(2, 0, 1),
}


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.float64])
@pytest.mark.parametrize("name", PERMUTED)
@pytest.mark.parametrize("packed", [False, True])
def test_dense_tensors_keep_their_strides(
    gpu: SimDoor, name: str, dtype: torch.dtype, packed: bool
) -> None:
    host = PERMUTED[name]
    wanted = host.to(dtype)
    tensors = _link.to_device([host, host], [dtype] * 2, 0, packed=packed).tensors()
    for tensor in tensors:
        assert tensor.stride() == wanted.stride()
        [back] = _link.to_host([tensor], [torch.float32]).tensors()
        assert same(back, wanted.float())
        assert back.stride() == host.stride()
        assert not back._is_view()


def test_what_has_gaps_arrives_without(gpu: SimDoor) -> None:
    host = torch.arange(6000.0).reshape(20, 300).T[::2]
    [tensor] = _link.to_device([host], [torch.float32], 0).tensors()
    gpu.sim.stream_wait(gpu.current_stream(0))
    assert tensor.is_contiguous()
    assert same(read(tensor), host.contiguous())
    [back] = _link.to_host([tensor[:, 1:]], [torch.float32]).tensors()
    assert same(back, host[:, 1:].contiguous())


@pytest.mark.filterwarnings("ignore:The PyTorch API of nested tensors:UserWarning")
def test_nested_tensors_are_torchs(gpu: SimDoor) -> None:
    nested = torch.nested.nested_tensor([torch.ones(2), torch.ones(3)])
    assert not _link.takes(nested, torch.device("cuda", 0))


def test_bits_that_stand_for_an_operation_are_resolved(gpu: SimDoor) -> None:
    host = torch.complex(torch.arange(5.0), torch.arange(5.0)).conj()
    [tensor, imaginary] = _link.to_device(
        [host, host.imag], [torch.complex64, torch.float32], 0
    ).tensors()
    gpu.sim.stream_wait(gpu.current_stream(0))
    assert same(read(tensor), host.resolve_conj())
    assert same(read(imaginary), host.imag.resolve_neg())


@pytest.mark.parametrize("size", SHAPES)
@pytest.mark.parametrize(
    ("given", "wanted", "wire"),
    [
        ("uint8", "float32", 1), ("int64", "int32", 4), ("float64", "float16", 2),
        ("float32", "bfloat16", 2), ("float32", "bool", 1), ("int32", "float32", 4),
        ("uint8", "complex64", 1), ("float64", "float8_e5m2", 1),
    ],
)  # fmt: skip
def test_the_narrower_dtype_crosses_the_link(
    gpu: SimDoor, rng: np.random.Generator, given: str, wanted: str, wire: int, size: str
) -> None:
    array = numbers(rng, SHAPES[size], given)
    dtype = getattr(torch, wanted)
    crossed = gpu.sim.count("h2d_bytes")
    [tensor] = _link.to_device([source(array)], [dtype], 0).tensors()
    gpu.sim.stream_wait(gpu.current_stream(0))
    assert same(read(tensor), torch.from_numpy(array).to(dtype))
    assert gpu.sim.count("h2d_bytes") - crossed == array.size * wire

    crossed = gpu.sim.count("d2h_bytes")
    device = gpu.empty(array.shape, getattr(torch, given), 0, gpu.current_stream(0))
    write(device, torch.from_numpy(array))
    [host] = _link.to_host([device], [dtype]).tensors()
    assert same(host, torch.from_numpy(array).to(dtype))
    assert gpu.sim.count("d2h_bytes") - crossed == array.size * wire


@pytest.mark.parametrize("packed", [False, True])
def test_many_arrays_of_many_sizes(gpu: SimDoor, rng: np.random.Generator, packed: bool) -> None:
    sizes = [0, 1, 3, 100, 4096, 70_000, 1, 5_000_000, 17, 2_000_000, 0, 9]
    arrays = [numbers(rng, (n,), "int16") for n in sizes]
    dtypes = [torch.int16] * len(arrays)
    tensors = _link.to_device([source(a) for a in arrays], dtypes, 0, packed=packed).tensors()
    for tensor in tensors:
        if packed:
            assert tensor.numel() == 0 or tensor.data_ptr() % 256 == 0
            assert block_of(tensor) is block_of(tensors[0])
    for array, host in zip(arrays, _link.to_host(tensors, dtypes).tensors(), strict=True):
        assert same(host, torch.from_numpy(array))


def test_packed_arrays_cross_the_link_as_one(gpu: SimDoor, rng: np.random.Generator) -> None:
    arrays = [numbers(rng, (n,), "float32") for n in range(1, 101)]
    dtypes = [torch.float32] * len(arrays)
    _link.to_device([source(a) for a in arrays], dtypes, 0, packed=True).synchronize()
    assert gpu.sim.count("h2d_copies") == 1


@pytest.mark.parametrize("rows", [3, 3000])
def test_existing_memory_on_the_host_of_any_layout(gpu: SimDoor, rows: int) -> None:
    values = torch.arange(rows * 700.0).reshape(rows, 700)
    device = gpu.empty((700, rows), torch.float32, 0, gpu.current_stream(0))
    write(device, values.T.contiguous())
    memory = torch.zeros(rows, 1400, dtype=torch.float64)
    _link.into_host([memory[:, ::2]], [device.t()]).synchronize()
    assert torch.equal(memory[:, ::2], values.double())
    assert not memory[:, 1::2].any()


def test_existing_memory_on_the_device(gpu: SimDoor) -> None:
    stream = gpu.current_stream(0)
    device = gpu.empty((4, 5), torch.float64, 0, stream)
    gate = gpu.sim.gate(stream)
    gpu.sim.fill(stream, device.data_ptr(), 0xFF, device.nbytes)
    crossing = _link.into_device([device], [torch.arange(20).reshape(4, 5)])
    assert not crossing.done()  # it comes after what was queued before
    gpu.sim.open(gate)
    assert crossing.synchronize(10)
    assert torch.equal(read(device), torch.arange(20.0).double().reshape(4, 5))


def test_existing_memory_on_the_device_must_be_dense(gpu: SimDoor) -> None:
    device = gpu.empty((4, 5), torch.float32, 0, gpu.current_stream(0))
    values = torch.arange(20.0).reshape(5, 4)
    assert _link.into_device([device.t()], [values]).synchronize(10)
    assert torch.equal(read(device.t()), values)
    with pytest.raises(ValueError, match="dense"):
        _link.into_device([device[:, ::2]], [torch.zeros(4, 3)])


@pytest.mark.parametrize("count", [20_000, 3_000_000])
def test_page_locked_memory_is_not_staged(gpu: SimDoor, count: int) -> None:
    host = _page_locked.results.empty((count,), torch.float32)
    host.copy_(torch.arange(count))
    gpu.sim.log_clear()
    [tensor] = _link.to_device([host], [torch.float32], 0).tensors()
    gpu.sim.stream_wait(gpu.current_stream(0))
    assert torch.equal(read(tensor), host)
    back = _page_locked.results.empty((count,), torch.float32)
    assert _link.into_host([back], [tensor]).synchronize(10)
    assert torch.equal(back, host)
    copies = [event for event in gpu.sim.events() if event["what"] == "transfer"]
    assert {event["name"] for event in copies} == {"H2D", "D2H"}
    inside = range(host.data_ptr(), host.data_ptr() + host.nbytes)
    assert all(event["source"] in inside for event in copies if event["name"] == "H2D")
    inside = range(back.data_ptr(), back.data_ptr() + back.nbytes)
    assert all(event["destination"] in inside for event in copies if event["name"] == "D2H")
