"""Trees across the link, and the handles of their transfers."""

from __future__ import annotations

import asyncio
import dataclasses
import gc
import weakref
from collections import OrderedDict, UserDict, defaultdict
from concurrent.futures import CancelledError
from typing import Any, NamedTuple

import numpy as np
import pytest
import torch
from hardware import LIMIT, Stranger, host, keep_busy, new_stream, on_device, settle
from regions import assert_same_values

import dlferry

BIG = 6_000_000
"""Elements of float32: more than is staged at once."""


class Pair(NamedTuple):
    x: Any
    y: Any


@dataclasses.dataclass(frozen=True)
class Sample:
    image: Any
    label: Any = None


def trees(rng: np.random.Generator) -> dict[str, tuple[Any, Any]]:
    """Trees, and how to get at two of their leaves."""
    a, b = rng.random(7, dtype=np.float32), rng.random(200_000)
    return {
        "array": (a, lambda t: [t]),
        "dict": ({"a": a, "b": b, "name": "x"}, lambda t: [t["a"], t["b"]]),
        "ordered dict": (OrderedDict(a=a, b=b), lambda t: [t["a"], t["b"]]),
        "defaultdict": (defaultdict(list, {"a": a, "b": b}), lambda t: [t["a"], t["b"]]),
        "mapping": (UserDict({"a": a, "b": b}), lambda t: [t["a"], t["b"]]),
        "list": ([a, b, None], lambda t: t[:2]),
        "tuple": ((a, b, 1), lambda t: list(t[:2])),
        "named tuple": (Pair(a, b), lambda t: [t.x, t.y]),
        "dataclass": (Sample(a, b), lambda t: [t.image, t.label]),
        "nested": ([{"x": (a, Pair(b, "y"))}], lambda t: [t[0]["x"][0], t[0]["x"][1].x]),
    }


@pytest.mark.parametrize("kind", list(trees(np.random.default_rng(0))))
@pytest.mark.parametrize("pack", [True, False])
def test_containers_are_kept(
    rng: np.random.Generator, device: torch.device, kind: str, pack: bool
) -> None:
    tree, leaves = trees(rng)[kind]
    there = dlferry.to_device(tree, device, pack=pack)
    back = dlferry.to_host(there)
    assert type(there) is type(back) or kind == "array"
    assert type(there) is type(tree) or kind == "array"
    for was, on_gpu, again in zip(leaves(tree), leaves(there), leaves(back), strict=True):
        assert on_gpu.device == device and again.device.type == "cpu"
        assert_same_values(host(on_gpu), torch.from_numpy(was))
        assert_same_values(again, torch.from_numpy(was))
    if kind == "defaultdict":
        assert there.default_factory is list
    if kind == "dict":
        assert there["name"] == "x"


def test_optree_types_are_containers(rng: np.random.Generator, device: torch.device) -> None:
    optree = pytest.importorskip("optree", reason="optree is not installed", exc_type=ImportError)

    class Box:
        def __init__(self, inside: Any) -> None:
            self.inside = inside

    optree.register_pytree_node(
        Box,
        lambda box: ([box.inside], None),
        lambda _, inside: Box(inside[0]),
        namespace=vars(optree.registry)["__GLOBAL_NAMESPACE"],
    )
    values = rng.random(5)
    there = dlferry.to_device(Box(values), device)
    assert type(there) is Box and np.array_equal(host(there.inside), values)


# --- packing ---


def test_small_arrays_are_packed(rng: np.random.Generator, device: torch.device) -> None:
    tree = {str(i): rng.random(1 + 97 * i) for i in range(80)}
    tree |= {"large": rng.random((3000, 100)), "empty": np.zeros((0, 2)), "number": np.array(2.5)}
    there = dlferry.to_device(tree, device)
    small = [there[key] for key in tree if key not in {"large", "empty"}]
    assert len({tensor.untyped_storage().data_ptr() for tensor in small}) == 1
    for key, tensor in there.items():
        assert np.array_equal(host(tensor), tree[key])
        assert tensor.data_ptr() % 256 == 0 and tensor.is_contiguous()
    # Tensors in their own right: in-place work on one says nothing about the others.
    versions = [tensor._version for tensor in small]
    small[3] += 1
    assert [tensor._version - was for tensor, was in zip(small, versions, strict=True)] == [
        int(i == 3) for i in range(len(small))
    ]
    assert np.array_equal(host(small[3]), tree["3"] + 1)
    assert np.array_equal(host(small[4]), tree["4"]) and np.array_equal(host(small[2]), tree["2"])
    kept = small[5]
    del there, small
    assert np.array_equal(host(kept), tree["5"])


def test_packed_arrays_take_part_in_autograd(device: torch.device) -> None:
    weights, inputs = dlferry.to_device([np.ones(5, np.float32), np.arange(5.0)], device)
    weights.requires_grad_()
    torch.autograd.backward((weights * inputs).sum())
    assert weights.grad is not None and host(weights.grad).tolist() == [0, 1, 2, 3, 4]


def test_unpacked_arrays_have_their_own_memory(
    rng: np.random.Generator, device: torch.device
) -> None:
    arrays = [rng.random(10 + i) for i in range(30)]
    apart = dlferry.to_device(arrays, device, pack=False)
    assert len({tensor.untyped_storage().data_ptr() for tensor in apart}) == len(arrays)
    for tensor, array in zip(apart, arrays, strict=True):
        assert np.array_equal(host(tensor), array)
        assert tensor.untyped_storage().nbytes() == array.nbytes


@pytest.mark.parametrize("count", [10, BIG])
def test_casts_in_trees(rng: np.random.Generator, device: torch.device, count: int) -> None:
    tree = {"x": rng.random(count), "ids": rng.integers(0, 9, count)}
    there = dlferry.to_device(tree, device, dtype=torch.bfloat16)
    assert_same_values(host(there["x"]), torch.from_numpy(tree["x"]).bfloat16())
    assert_same_values(host(there["ids"]), torch.from_numpy(tree["ids"]))
    exact = dlferry.to_device(tree, device, dtype={torch.int64: torch.float64})
    assert_same_values(host(exact["ids"]), torch.from_numpy(tree["ids"]).double())
    assert exact["x"].dtype == torch.float64


def test_what_is_there_stays(device: torch.device) -> None:
    tensor = torch.ones(3, device=device)
    moved = dlferry.to_device({"x": tensor, "again": tensor, "other": Stranger(tensor)}, device)
    assert moved["x"] is tensor and moved["again"] is tensor
    assert moved["other"].data_ptr() == tensor.data_ptr()
    assert dlferry.to_host([Stranger(tensor)])[0].tolist() == [1, 1, 1]


# --- handles ---


def test_a_result_is_the_same_each_time(device: torch.device) -> None:
    for size in (10, BIG):
        handle = dlferry.transfer(np.full(size, 3, np.uint8), device, dtype=torch.float32)
        first = handle.result()
        assert handle.result(LIMIT) is first and bool((first == 3).all())
        handle.synchronize(LIMIT)
        assert handle.done() and not handle.cancel()


@pytest.mark.parametrize("size", [10, BIG])
def test_a_timeout_leaves_a_transfer_as_it_is(device: torch.device, size: int) -> None:
    tensor = torch.zeros(size, device=device)
    event = keep_busy()
    tensor += 5
    handle = dlferry.transfer([tensor], "cpu")
    assert not handle.done()
    with pytest.raises(TimeoutError, match="goes on"):
        handle.result(timeout=0.001)
    assert not event.query()
    assert bool((handle.result(LIMIT)[0] == 5).all()) and handle.done()


@pytest.mark.native
def test_a_cancelled_transfer(device: torch.device) -> None:
    tensor = torch.zeros(BIG, device=device)
    keep_busy()
    handle = dlferry.transfer([tensor], "cpu")
    assert handle.cancel()
    with pytest.raises(CancelledError):
        handle.result(LIMIT)
    with pytest.raises(CancelledError):
        handle.synchronize()
    assert handle.done() and not handle.cancel()
    assert not dlferry.to_host(tensor).any()


def test_awaiting(device: torch.device) -> None:
    tensor = torch.zeros(BIG, device=device)

    async def ticks(rounds: int) -> int:
        for _ in range(rounds):
            await asyncio.sleep(0)
        return rounds

    async def main() -> None:
        keep_busy()
        tensor.add_(1)
        handle = dlferry.transfer({"x": tensor}, "cpu")
        both = await asyncio.gather(_result_of(handle), ticks(100))
        assert bool((both[0]["x"] == 1).all()) and both[1] == 100
        there = await dlferry.transfer(np.arange(BIG), device)
        assert int(there[-1]) == BIG - 1
        keep_busy()
        task = asyncio.ensure_future(_result_of(dlferry.transfer([tensor], "cpu")))
        await asyncio.sleep(0)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task

    asyncio.run(main())


async def _result_of(handle: dlferry.Transfer) -> Any:
    return await handle


def test_streams_wait_for_a_transfer(device: torch.device) -> None:
    side, other = new_stream(device), new_stream(device)
    for how in (side, side.cuda_stream, None):
        handle = dlferry.transfer(np.full(BIG, 2, np.float32), device)
        with torch.cuda.stream(side):
            handle.wait(how)
            doubled = handle.result() * 2
        with torch.cuda.stream(other):
            tripled = handle.result() * 3
        for stream in (side, other):
            stream.synchronize()
        assert bool((doubled == 4).all()) and bool((tripled == 6).all())
    for handle_of_the_null_stream in (0, 1, 2):
        handle = dlferry.transfer(np.ones(BIG, np.float32), device)
        handle.wait(handle_of_the_null_stream)
        assert bool((handle.result() == 1).all())
    with pytest.raises(TypeError, match="stream"):
        dlferry.transfer(np.ones(3), device).wait("default")


def test_a_cast_is_ordered_for_every_stream(device: torch.device) -> None:
    side, other = new_stream(device), new_stream(device)
    handle = dlferry.transfer(np.full(BIG, 3, np.uint8), device, dtype=torch.float32)
    with torch.cuda.stream(side):
        keep_busy(side)
        first = handle.result()  # casts behind what keeps `side` busy
    with torch.cuda.stream(other):
        sums = handle.result().sum()
    other.synchronize()
    assert first.dtype == torch.float32 and float(sums) == 3 * BIG


@pytest.mark.parametrize("size", [100, BIG])
def test_a_dropped_handle_keeps_both_sides(device: torch.device, size: int) -> None:
    source, target = torch.arange(float(size)), torch.zeros(size, device=device)
    storage = weakref.ref(source.untyped_storage())
    keep_busy()
    dlferry.copyto(target, source)
    del source
    gc.collect()
    assert storage() is not None
    settle()
    assert torch.equal(host(target), torch.arange(float(size)))
    gc.collect()
    assert storage() is None


def test_memory_of_results_goes_with_them(device: torch.device) -> None:
    for size in (100, 300_000, BIG):
        before = torch.cuda.memory_allocated()
        made = dlferry.to_device([np.ones(size, np.float32)], device)
        assert torch.cuda.memory_allocated() >= before + 4 * size
        del made
        assert torch.cuda.memory_allocated() == before


def test_a_source_that_fails_leaves_the_others_right(device: torch.device) -> None:
    class Broken:
        def __dlpack_device__(self) -> tuple[int, int]:
            return (1, 0)

        def __dlpack__(self, **_: Any) -> Any:
            raise BufferError("none of yours")

    small, large = np.arange(1000.0), np.arange(float(BIG))
    for _ in range(3):
        keep_busy()
        with pytest.raises(dlferry.UnsupportedInput, match="declines"):
            dlferry.to_device([small, small, large, Broken()], device)
        with pytest.raises(ValueError, match="shape"):
            dlferry.stack([small, small[1:]], device=device)
        there = dlferry.to_device([small, small + 1, large], device)
        for made, wanted in zip(there, (small, small + 1, large), strict=True):
            assert np.array_equal(dlferry.to_numpy(made), wanted)
    settle()


def test_no_such_device(device: torch.device) -> None:
    with pytest.raises(dlferry.DriverUnavailable, match="there is no cuda:"):
        dlferry.to_device(np.ones(3), f"cuda:{torch.cuda.device_count()}")
    assert host(on_device(torch.ones(2), device)).tolist() == [1, 1]
