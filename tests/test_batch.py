"""The small arrays of a tree, which cross the link to a simulated device as one."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from sim_torch import SimDoor, read

import dlferry
from dlferry import _blocks, _torch_cuda
from dlferry._native import core

pytestmark = pytest.mark.native

SMALL = 64 << 10


def arrived(gpu: SimDoor, tensor: torch.Tensor) -> torch.Tensor:
    assert gpu.sim.stream_wait(gpu.current_stream(0)) == 0
    return read(tensor)


LEAVES: dict[str, Any] = {
    "floats": np.arange(10.0),
    "more floats": np.arange(10.0) + 7,
    "a matrix": np.arange(12, dtype=np.int16).reshape(3, 4),
    "a scalar": np.array(2.5),
    "flags": np.array([True, False, True]),
    "big-endian": np.arange(6, dtype=">f4"),
    "read-only": np.frombuffer(bytes(range(16)), np.uint8),
    "complex": np.arange(3) * 1j,
    "a tensor": torch.arange(8),
    "half": torch.arange(8).half(),
    "as large as may be": np.arange(SMALL, dtype=np.uint8),
    # For the general way:
    "too large": np.arange(SMALL + 1, dtype=np.uint8),
    "empty": np.zeros((0, 3)),
    "transposed": np.arange(12.0).reshape(3, 4).T,
    "strided": np.arange(12.0)[::2],
    "column": np.arange(12.0).reshape(4, 3)[:, :1],
    "with grad": torch.ones(3, requires_grad=True),
    "negative": torch._neg_view(torch.arange(3.0)),
    "a view": torch.arange(12.0).reshape(3, 4)[:, 1],
    "no array": "text",
}


def same(gpu: SimDoor, made: Any, want: Any) -> bool:
    if not isinstance(want, torch.Tensor):
        return bool(made == want)
    held = made.detach() if made.device.type == "cpu" else arrived(gpu, made)
    return made.dtype == want.dtype and torch.equal(held, want.detach().resolve_neg())


@pytest.mark.parametrize(
    "dtype", [None, torch.float16, {torch.uint8: torch.float32, torch.float64: torch.float32}]
)
def test_the_leaves_of_a_tree_are_what_they_are_one_by_one(gpu: SimDoor, dtype: Any) -> None:
    leaves = {name: leaf for name, leaf in LEAVES.items() if name != "with grad"}
    together = dlferry.to_device(leaves, "cuda", dtype=dtype)
    one_by_one = dlferry.to_device(leaves, "cuda", dtype=dtype, pack=False)
    on_host = dlferry.to_device(leaves, "cpu", dtype=dtype)
    for name in leaves:
        assert same(gpu, together[name], on_host[name]), name
        assert same(gpu, one_by_one[name], on_host[name]), name


def test_which_leaves_are_taken() -> None:
    batch = core.batch_of(list(LEAVES.values()), SMALL)
    assert batch is not None
    names = [list(LEAVES)[number] for number in batch.numbers]
    assert names == list(LEAVES)[:11]
    assert core.batch_of([np.arange(3)], SMALL) is None  # there is nothing to put together
    assert core.batch_of([], SMALL) is None


def test_arrays_of_one_kind_are_one_run(rng: np.random.Generator) -> None:
    arrays = [rng.random((3, 5)) for _ in range(4)] + [rng.random(7)] + [rng.random((3, 5))]
    batch = core.batch_of(arrays, SMALL)
    assert batch is not None
    size, runs = batch.place({torch.float64: torch.float32})
    assert size == 6 * 256
    assert [run[:4] for run in runs] == [
        (4, 0, 256, (3, 5)),
        (1, 1024, 256, (7,)),
        (1, 1280, 256, (3, 5)),
    ]
    assert all(run[4:] == (torch.float64, torch.float32) for run in runs)


def test_leaves_begin_at_lines_of_the_device_and_share_a_block(gpu: SimDoor) -> None:
    moved = dlferry.to_device([np.arange(n + 1.0) for n in range(50)], "cuda")
    assert all(tensor.data_ptr() % 256 == 0 for tensor in moved)
    assert len({tensor.untyped_storage()._cdata for tensor in moved}) == 1
    assert torch.equal(arrived(gpu, moved[9]), torch.arange(10, dtype=torch.float64))
    assert gpu.sim.count("h2d_copies") == 1


RUNS = [
    _blocks.Run(3, 0, 256, (2, 3), torch.float64, torch.float64),
    _blocks.Run(1, 768, 256, (), torch.int16, torch.int16),
    _blocks.Run(2, 1024, 512, (70,), torch.complex64, torch.complex64),
    _blocks.Run(1, 2048, 256, (5, 1, 2), torch.uint8, torch.uint8),
]


@pytest.mark.parametrize("around", [torch.no_grad, torch.enable_grad, torch.inference_mode])
def test_carved_tensors_are_tensors_in_their_own_right(around: Any) -> None:
    with around():
        block = torch.arange(2304, dtype=torch.int64).to(torch.uint8)
        tensors = _blocks.carve_runs(block, RUNS)
        one_by_one = [
            _torch_cuda.carve(block, run.offset + i * run.distance, run.shape, run.dtype)
            for run in RUNS
            for i in range(run.length)
        ]
    for tensor, want in zip(tensors, one_by_one, strict=True):
        assert tensor.shape == want.shape and tensor.stride() == want.stride()
        assert tensor.dtype == want.dtype and tensor.data_ptr() == want.data_ptr()
        assert tensor.untyped_storage()._cdata == block.untyped_storage()._cdata
        assert tensor._base is None and not tensor._is_view() and type(tensor) is torch.Tensor
        assert tensor.is_inference() == want.is_inference()
    if around is torch.inference_mode:
        return
    versions = [tensor._version for tensor in (block, *tensors)]
    tensors[1].add_(1)
    versions[2] += 1
    assert [tensor._version for tensor in (block, *tensors)] == versions
    leaf = tensors[0].requires_grad_()
    (leaf * 2).sum().backward()
    assert torch.equal(leaf.grad, torch.full((2, 3), 2.0, dtype=torch.float64))
    assert not tensors[1].requires_grad


def test_a_tensor_that_moves_meanwhile_is_refused(
    gpu: SimDoor, monkeypatch: pytest.MonkeyPatch
) -> None:
    moving = torch.arange(4.0)
    real = _blocks.allocated

    def meddle(*args: Any) -> torch.Tensor:
        moving.set_(torch.zeros(4))
        return real(*args)

    with monkeypatch.context() as patch:
        patch.setattr(_blocks, "allocated", meddle)
        with pytest.raises(ValueError, match="was changed while its transfer was started"):
            dlferry.to_device([moving, np.arange(3.0)], "cuda")
    made = dlferry.to_device([moving, np.arange(3.0)], "cuda")
    assert torch.equal(arrived(gpu, made[0]), torch.zeros(4))


def test_sources_are_kept_until_they_are_read(gpu: SimDoor, rng: np.random.Generator) -> None:
    want = [rng.random(3000) for _ in range(40)]
    handle = dlferry.transfer([array.copy() for array in want], "cuda")
    tensors = [torch.from_numpy(array.copy()) for array in want]
    other = dlferry.transfer(tensors, "cuda")
    for tensor in tensors:
        tensor.set_()  # its memory stays where it was
    for made in (handle.result(), other.result()):
        for tensor, array in zip(made, want, strict=True):
            assert torch.equal(arrived(gpu, tensor), torch.from_numpy(array))
