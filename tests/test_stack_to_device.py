"""Lists of arrays straight to a simulated device, without a stack of them on the host."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from sim_torch import SimDoor, SimTensor, read

import dlferry
from dlferry import _blocks, _sequence, _torch_cuda
from dlferry._native import core

pytestmark = pytest.mark.native

CONVERSIONS = [dlferry.stack, dlferry.asarray]
LITTLE, MUCH = (5, 7), (300, 500)
"""Shapes that go on the current stream, and by the ring."""


@pytest.fixture
def straight(gpu: SimDoor, monkeypatch: pytest.MonkeyPatch) -> SimDoor:
    """The simulated GPU, where nobody but the core looks through a list."""

    def scan(*_: object) -> None:
        raise AssertionError("this list was for the core")

    monkeypatch.setattr(_sequence, "scan", scan)
    return gpu


def arrived(gpu: SimDoor, tensor: torch.Tensor) -> torch.Tensor:
    """What a tensor holds once the current stream has come so far."""
    assert isinstance(tensor, SimTensor)
    assert gpu.sim.stream_wait(gpu.current_stream(0)) == 0
    return read(tensor)


def mixed(shape: tuple[int, ...]) -> list[Any]:
    """Arrays of one shape and as many kinds as there are."""
    values = np.arange(np.prod(shape), dtype=np.float32).reshape(shape) % 251
    read_only = values.copy()
    read_only.flags.writeable = False
    return [
        values,
        values[::-1, ::-1],
        np.repeat(values, 2, axis=1)[:, ::2],
        np.asfortranarray(values),
        values.astype(">f4"),
        np.broadcast_to(values[:1], shape),
        read_only,
        torch.from_numpy(values),
        torch.from_numpy(values.T.copy()).T,
        memoryview(values),
    ]


@pytest.mark.parametrize("convert", CONVERSIONS, ids=lambda f: f.__name__)
@pytest.mark.parametrize("shape", [LITTLE, MUCH])
@pytest.mark.parametrize("dtype", [None, torch.float16, torch.float64, torch.uint8])
def test_arrays_of_every_kind(
    straight: SimDoor, convert: Any, shape: Any, dtype: torch.dtype | None
) -> None:
    arrays = mixed(shape)
    made = convert(arrays, device="cuda", dtype=dtype)
    assert made.is_contiguous() and made.dtype == (dtype or torch.float32)
    wanted = torch.from_numpy(np.stack([np.asarray(array) for array in arrays]).astype(np.float32))
    assert torch.equal(arrived(straight, made), wanted.to(made.dtype))


@pytest.mark.parametrize("dtype", [None, torch.float32, torch.int16])
def test_dtypes_are_promoted(straight: SimDoor, dtype: torch.dtype | None) -> None:
    arrays = [np.full(MUCH, 3, np.uint8), np.full(MUCH, -4, np.int16), torch.full(MUCH, 5)]
    made = dlferry.stack(arrays, device="cuda", dtype=dtype)
    assert made.dtype == (dtype or torch.int64)
    assert arrived(straight, made)[:, 1, 1].tolist() == [3, -4, 5]


def test_the_narrower_dtype_crosses_the_link(straight: SimDoor) -> None:
    arrays = [np.full(MUCH, i, np.uint8) for i in range(4)]
    made = dlferry.stack(arrays, device="cuda", dtype=torch.float32)
    assert arrived(straight, made)[:, 1, 1].tolist() == [0, 1, 2, 3]
    assert straight.sim.count("h2d_bytes") == 4 * arrays[0].nbytes


def test_lists_in_lists(straight: SimDoor) -> None:
    rows = [(np.full((2, 3), 10 * i + j) for j in range(4)) for i in range(3)]
    nested = [tuple(row) for row in rows]
    made = dlferry.asarray(nested, device="cuda")
    assert made.shape == (3, 4, 2, 3)
    assert torch.equal(arrived(straight, made), torch.from_numpy(np.array(nested)))


@pytest.mark.parametrize("shape", [(), (0,), (3, 0)])
def test_arrays_with_little_in_them(straight: SimDoor, shape: tuple[int, ...]) -> None:
    made = dlferry.stack([np.full(shape, 7)] * 3, device="cuda")
    assert torch.equal(arrived(straight, made), torch.full((3, *shape), 7))


def test_the_sources_may_change_afterwards(straight: SimDoor) -> None:
    gate = straight.sim.gate(core.copy_stream(0, "h2d"))
    arrays = [np.full(150_000, i, np.uint8) for i in range(64)]
    made = dlferry.stack(arrays, device="cuda")
    for array in arrays:
        array[:] = 255
    assert straight.sim.open(gate) == 0
    assert arrived(straight, made)[:, -1].tolist() == list(range(64))


def test_pinned_arrays_have_been_read_too(straight: SimDoor) -> None:
    arrays = [dlferry.empty_pinned(MUCH, torch.uint8).fill_(i) for i in range(5)]
    made = dlferry.stack(arrays, device="cuda")
    for array in arrays:
        array.fill_(255)
    assert arrived(straight, made)[:, 1, 1].tolist() == [0, 1, 2, 3, 4]


def test_memory_that_a_tensor_gives_up_is_kept(straight: SimDoor) -> None:
    gate = straight.sim.gate(core.copy_stream(0, "h2d"))
    tensors = [torch.full((24 << 20,), i, dtype=torch.uint8) for i in range(2)]
    found = core.arrays_of(tensors, None)
    assert found is not None
    crossing = _blocks.stack_to_device(found, 0)
    for tensor in tensors:
        tensor.data = torch.zeros(1, dtype=torch.uint8)
    del found, tensor, tensors
    assert straight.sim.open(gate) == 0
    made = arrived(straight, crossing.tensors()[0])
    assert bool((made[0] == 0).all()) and bool((made[1] == 1).all())


@pytest.mark.parametrize("shape", [LITTLE, MUCH])
def test_tensors_that_change_while_torch_makes_memory(
    straight: SimDoor, monkeypatch: pytest.MonkeyPatch, shape: tuple[int, ...]
) -> None:
    tensor = torch.zeros(shape)

    def meddled(meddle: Callable[[], object]) -> torch.Tensor:
        def empty(*arguments: Any) -> torch.Tensor:
            meddle()
            return straight.empty(*arguments)

        monkeypatch.setattr(_torch_cuda, "empty", empty)
        return dlferry.stack([tensor, np.zeros(shape, np.float32)], device="cuda")

    made = meddled(lambda: tensor.set_(torch.ones(shape)))
    assert arrived(straight, made)[:, 1, 1].tolist() == [1, 0]
    with pytest.raises(ValueError, match="changed while the others were converted"):
        meddled(lambda: tensor.resize_(1))


@pytest.mark.parametrize(
    "odd",
    [
        [1, 2], [[1.5], [2]], [np.float32(1), np.ones((), np.float32)], [[], []], [],
        [np.ones(2), [1.0, 2.0]], [np.ones(2), np.ones(3)], [torch.ones(2, requires_grad=True)],
        [torch.ones(2, dtype=torch.complex64).conj()], [torch.ones(2).to_sparse()],
        [torch.empty(2, device="meta")], ["a"], [None], [np.ones(2), {}],
        [torch.nn.Parameter(torch.ones(2))],
    ],
    ids=str,
)  # fmt: skip
def test_what_the_general_route_takes(odd: list[Any]) -> None:
    assert core.arrays_of(odd, None) is None


@pytest.mark.parametrize("convert", CONVERSIONS, ids=lambda f: f.__name__)
def test_refusals_name_the_place(gpu: SimDoor, convert: Any) -> None:
    name = "arrays" if convert is dlferry.stack else "obj"
    with pytest.raises(ValueError, match=rf"ragged input: {name}\[1\] has shape \(3,\)"):
        convert([np.ones(2), np.ones(3)], device="cuda")
    with pytest.raises(dlferry.UnsupportedInput, match=rf"{name}\[1\] is a str"):
        convert([np.ones(2), "ab"], device="cuda")
    with pytest.raises(dlferry.UnsupportedInput, match="common dtype"):
        convert([torch.ones(2).to(torch.float8_e5m2), np.ones(2)], device="cuda")
    assert gpu.sim.count("h2d_bytes") == 0


def test_what_is_odd_arrives_all_the_same(gpu: SimDoor) -> None:
    z = torch.complex(torch.ones(3), torch.ones(3))
    made = dlferry.stack([z.conj(), z], device="cuda")
    assert arrived(gpu, made).tolist() == [[1 - 1j] * 3, [1 + 1j] * 3]
    for convert in CONVERSIONS:
        made = convert([np.ones(2), [2, 3]], device="cuda")
        assert arrived(gpu, made).tolist() == [[1, 1], [2, 3]]


@pytest.mark.parametrize("shape", [LITTLE, MUCH])
def test_a_capture_is_refused(straight: SimDoor, shape: tuple[int, ...]) -> None:
    stream = straight.current_stream(0)
    assert straight.sim.capture_begin(stream, 0) == 0
    with pytest.raises(dlferry.CudaError, match="captured"):
        dlferry.stack([np.ones(shape)] * 3, device="cuda")
    assert straight.sim.capture_end(stream, None) == 0
