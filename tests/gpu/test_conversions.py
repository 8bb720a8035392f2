"""Every dtype, layout and kind of source, to a GPU and back."""

from __future__ import annotations

import array
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from forge import ArrayProducer
from hardware import (
    EVERY_DTYPE,
    LARGE,
    LAYOUTS,
    MIDDLE,
    NUMPYS,
    SMALL,
    host,
    numbers,
    on_device,
    tensor_of,
)
from kinds import ALL_TO_TORCH, cast, name, reference
from regions import assert_same_values, bits

import dlferry

# No two of torch's backends agree on what is no power of two in this one.
CAST_TO = [dtype for dtype in EVERY_DTYPE if name(dtype) != "float8_e8m0fnu"]


def check_both_ways(values: Any, device: torch.device) -> None:
    there = dlferry.asarray(values, device=device)
    assert there.device == device
    assert_same_values(host(there), reference(values))
    back = dlferry.to_numpy(there)
    assert back.dtype == values.dtype.newbyteorder("=")
    assert np.array_equal(back, values)


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("kind", NUMPYS, ids=name)
def test_there_and_back(
    rng: np.random.Generator, device: torch.device, kind: Any, layout: str
) -> None:
    for shape in (SMALL, MIDDLE):
        check_both_ways(LAYOUTS[layout](numbers(rng, shape, kind)), device)


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("kind", [np.uint8, np.float32, np.complex128], ids=name)
def test_there_and_back_in_many_parts(
    rng: np.random.Generator, device: torch.device, kind: Any, layout: str
) -> None:
    check_both_ways(LAYOUTS[layout](numbers(rng, LARGE, kind)), device)


@pytest.mark.parametrize("shape", [(), (7,), SMALL, (0, 3), (1200, 1100)], ids=str)
@pytest.mark.parametrize("dtype", EVERY_DTYPE, ids=name)
def test_tensors_of_every_dtype(
    rng: np.random.Generator, device: torch.device, dtype: torch.dtype, shape: tuple[int, ...]
) -> None:
    values = tensor_of(rng, shape, dtype)
    for source in (values, values.mT if values.dim() > 1 else values):
        there = dlferry.asarray(source, device=device)
        assert there.device == device and there.dtype == dtype and there.shape == source.shape
        if not source.numel():
            assert dlferry.asarray(there, device="cpu").shape == source.shape
            continue
        wanted = bits(source.contiguous().view(torch.uint8) if shape else source)
        got = host(there).contiguous()
        assert torch.equal(bits(got.view(torch.uint8) if shape else got), wanted)
        back = dlferry.asarray(there, device="cpu").contiguous()
        assert torch.equal(bits(back.view(torch.uint8) if shape else back), wanted)


NUMBERS: Any = np.arange(6.0).reshape(2, 3)
SOURCES: dict[str, Callable[[], Any]] = {
    "number": lambda: 2.5,
    "bool": lambda: True,
    "NumPy scalar": lambda: np.uint16(7),
    "numbers": lambda: [1, 2, 3],
    "nested numbers": lambda: [[1.5, 2.5], [3.5, 4.5]],
    "complex numbers": lambda: (1j, 2),
    "range": lambda: range(5),
    "no numbers": list,
    "arrays": lambda: [np.arange(3, dtype=np.int16), np.arange(3, dtype=np.float32)],
    "reversed arrays": lambda: [np.arange(3.0)[::-1]] * 4,
    "tensors": lambda: [torch.arange(3), torch.arange(3)],
    "bytes": lambda: b"some bytes",
    "bytearray": lambda: bytearray(b"some bytes"),
    "array.array": lambda: array.array("d", [1.0, 2.0]),
    "memoryview": lambda: memoryview(NUMBERS[:, ::2]),
    "DLPack": lambda: ArrayProducer(np.arange(6.0).reshape(2, 3)),
    "read-only": lambda: np.broadcast_to(np.float32(3), (2, 3)),
    "conjugate": lambda: torch.arange(4.0).mul(1j).conj(),
    "negative": lambda: torch.arange(4.0).mul(1j).conj().imag,
    "expanded": lambda: torch.arange(3.0).expand(4, 3),
}


@pytest.mark.parametrize("kind", SOURCES)
@pytest.mark.parametrize("dtype", [None, torch.float32, torch.float16, torch.complex64], ids=str)
def test_every_kind_of_source(device: torch.device, kind: str, dtype: torch.dtype | None) -> None:
    source = SOURCES[kind]()
    if dtype is not None and not dtype.is_complex and kind == "complex numbers":
        with pytest.raises(TypeError):
            dlferry.asarray(source, device=device, dtype=dtype)
        return
    expected = dlferry.asarray(source, device="cpu", dtype=dtype)
    made = dlferry.asarray(source, device=device, dtype=dtype)
    assert made.device == device
    assert_same_values(host(made), expected.resolve_conj().resolve_neg())
    there = dlferry.asarray(source, device=device)
    assert dlferry.asarray(there, device=device) is there
    assert dlferry.asarray(there, copy=True).data_ptr() != there.data_ptr() or not there.numel()


@pytest.mark.parametrize("shape", [SMALL, (901, 1103)], ids=str)
@pytest.mark.parametrize("target", CAST_TO, ids=name)
@pytest.mark.parametrize("kind", [np.bool_, np.uint8, np.int64, np.float32, np.float64], ids=name)
def test_casts_on_the_way(
    rng: np.random.Generator,
    device: torch.device,
    kind: Any,
    target: torch.dtype,
    shape: tuple[int, int],
) -> None:
    # Narrower ones while staging, wider ones on the GPU; either way as torch casts on the host.
    values = (
        np.abs(numbers(rng, shape, kind)) if kind is not np.bool_ else numbers(rng, shape, kind)
    )
    expected = cast(torch.from_numpy(values), target)
    assert_same_values(host(dlferry.asarray(values, device=device, dtype=target)), expected)
    tree = dlferry.to_device([values], device, dtype={ALL_TO_TORCH[kind]: target})
    assert_same_values(host(tree[0]), expected)


@pytest.mark.parametrize("target", [torch.float32, torch.float16, torch.int32, torch.complex64])
@pytest.mark.parametrize("kind", [np.uint8, np.float32, np.complex64], ids=name)
def test_casts_on_the_way_back(
    rng: np.random.Generator, device: torch.device, kind: Any, target: torch.dtype
) -> None:
    for shape in (SMALL, MIDDLE):
        values = np.abs(numbers(rng, shape, kind)).astype(kind)
        there = on_device(torch.from_numpy(values), device)
        expected = cast(torch.from_numpy(values), target)
        assert_same_values(dlferry.asarray(there, device="cpu", dtype=target), expected)
        into = torch.zeros(shape, dtype=target)
        dlferry.copyto(into, there).synchronize()
        assert_same_values(into, expected)


@pytest.mark.parametrize("shape", [(3,), (40, 50), (3, 224, 224)], ids=str)
@pytest.mark.parametrize("dtype", [None, torch.float32, torch.uint8])
@pytest.mark.parametrize("index", [np.s_[...], np.s_[..., ::-1], np.s_[..., ::2]], ids=str)
def test_stacks(
    rng: np.random.Generator,
    device: torch.device,
    shape: tuple[int, ...],
    dtype: torch.dtype | None,
    index: Any,
) -> None:
    images = [numbers(rng, shape, np.uint8)[index] for _ in range(40)]
    expected = torch.from_numpy(np.stack(images)).to(dtype or torch.uint8)
    assert_same_values(host(dlferry.stack(images, device=device, dtype=dtype)), expected)
    out = torch.zeros(expected.shape, dtype=expected.dtype, device=device)
    assert dlferry.stack(images, out=out) is out
    assert_same_values(host(out), expected)
    there = [dlferry.asarray(image, device=device) for image in images[:3]]
    assert_same_values(host(dlferry.stack(there, dtype=dtype)), expected[:3])


@pytest.mark.parametrize("shape", [SMALL, MIDDLE, LARGE], ids=str)
def test_to_numpy(rng: np.random.Generator, device: torch.device, shape: tuple[int, ...]) -> None:
    values = numbers(rng, shape, np.float32)
    there = on_device(torch.from_numpy(values), device)
    assert np.array_equal(dlferry.to_numpy(there), values)
    assert np.array_equal(dlferry.to_numpy(there.T), values.T)
    assert np.array_equal(dlferry.to_numpy(there, dtype=np.float16), values.astype(np.float16))
    for out in (
        np.zeros(shape, np.float32), np.zeros(shape, ">i4"), np.zeros(shape, np.float64)[::-1],
        np.zeros((*shape, 2), np.float32)[..., 1], np.zeros(shape, np.float64).T.copy().T,
    ):  # fmt: skip
        assert dlferry.to_numpy(there, out=out) is out
        assert np.array_equal(out, values)
    with pytest.raises(dlferry.CopyRequired, match="device"):
        dlferry.to_numpy(there, copy=False)


def test_copyto_in_either_direction(rng: np.random.Generator, device: torch.device) -> None:
    for shape in (SMALL, MIDDLE, LARGE):
        values = numbers(rng, shape, np.float64)
        there = torch.zeros(shape, dtype=torch.float32, device=device)
        dlferry.copyto(there, values[::-1]).synchronize()
        assert np.array_equal(host(there), values[::-1])
        with_steps = torch.zeros((*shape, 2), dtype=torch.float32, device=device)
        dlferry.copyto(with_steps[..., 1], values).synchronize()
        assert np.array_equal(host(with_steps[..., 1]), values)
        assert not host(with_steps[..., 0]).any()
        whole = np.zeros((*shape, 2), np.float64)
        dlferry.copyto(whole[..., 0], there).synchronize()
        assert np.array_equal(whole[..., 0], values[::-1]) and not whole[..., 1].any()
        again = torch.zeros_like(there)
        assert dlferry.copyto(again, there).result() is again
        assert torch.equal(host(again), host(there))


def test_gradients_flow_through(device: torch.device) -> None:
    for size in (4, 300_000):
        weight = torch.ones(size, requires_grad=True)
        for there in (
            dlferry.to_device([weight], device)[0],
            dlferry.asarray(weight, device=device),
        ):
            torch.autograd.backward(there.sum())
        assert weight.grad is not None and bool((weight.grad == 2).all())


def test_explain_tells_the_way(device: torch.device) -> None:
    staged = dlferry.explain(np.zeros(1000, np.uint8), device=device, dtype=torch.float32)
    assert (staged.route, staged.bytes_moved) == (f"staged → {device}", 1000)
    pinned = dlferry.explain(dlferry.empty_pinned(20_000, torch.float32), device=device)
    assert (pinned.route, pinned.bytes_moved) == (f"pinned → {device}", 80_000)
    there = torch.zeros(10, device=device)
    assert dlferry.explain([1.0, 2.0], device=device).route == f"fill → {device}"
    back = dlferry.explain(there, device="cpu")
    assert (back.route, back.bytes_moved) == (f"{device} → cpu", 40)
    assert dlferry.explain(there).shares


def test_more_than_there_is_room_for(device: torch.device) -> None:
    with pytest.raises(torch.cuda.OutOfMemoryError):
        dlferry.asarray(np.broadcast_to(np.float32(1), (2**44,)), device=device)
    check_both_ways(np.arange(1_000_000), device)
