"""from_dlpack of tensors and ndarrays, and what it does not take."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from kinds import ALL_TO_TORCH, TORCH_DTYPES, cast, name, quantized, reference, sample
from regions import assert_fresh, assert_same_values, overlaps, same_memory

import dlferry

LAYOUTS: dict[str, Any] = {
    "contiguous": lambda t: t,
    "transposed": lambda t: t.t(),
    "sliced": lambda t: t[1:, ::2],
    "expanded": lambda t: t[0].expand(5, 6),
    "0-d": lambda t: t[1, 1],
    "empty": lambda t: t[:0],
    "detached": lambda t: t.requires_grad_().detach(),
    "frozen parameter": lambda t: torch.nn.Parameter(t, requires_grad=False),
}


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("copy", [None, False])
def test_a_tensor_becomes_a_new_tensor_on_the_same_memory(layout: str, copy: bool | None) -> None:
    t = LAYOUTS[layout](torch.arange(24.0).reshape(4, 6))
    result = dlferry.from_dlpack(t, copy=copy)
    assert result is not t and type(result) is torch.Tensor
    assert same_memory(result, t)
    assert torch.equal(result, t)
    assert result.stride() == t.stride() or t.numel() == 0
    assert not result.requires_grad


@pytest.mark.parametrize("dtype", TORCH_DTYPES, ids=name)
def test_every_dtype_of_a_tensor(dtype: torch.dtype) -> None:
    t = cast(torch.tensor([1.0, 2.0, 4.0]), dtype)
    shared, copied = dlferry.from_dlpack(t), dlferry.from_dlpack(t, copy=True)
    assert same_memory(shared, t)
    assert_same_values(shared, t)
    assert_same_values(copied, t)
    assert_fresh(copied, t)


@pytest.mark.parametrize("kind", ALL_TO_TORCH, ids=name)
def test_every_dtype_of_an_array(kind: Any) -> None:
    a = sample(kind)
    shared, copied = dlferry.from_dlpack(a), dlferry.from_dlpack(a, copy=True)
    assert same_memory(shared, a)
    assert_same_values(shared, reference(a))
    assert_same_values(copied, reference(a))
    assert_fresh(copied, a)


def test_the_result_outlives_its_source() -> None:
    t = torch.arange(1000.0)
    result = dlferry.from_dlpack(t)
    del t
    torch.zeros(1000)
    assert torch.equal(result, torch.arange(1000.0))


@pytest.mark.parametrize("copy", [None, True, False])
@pytest.mark.parametrize("make", [lambda x: x, lambda x: x * 2, torch.nn.Parameter])
def test_a_tensor_that_requires_grad_is_refused(make: Any, copy: bool | None) -> None:
    t = make(torch.ones(3, requires_grad=True))
    with pytest.raises(BufferError, match="grad"):
        dlferry.from_dlpack(t, copy=copy)
    with torch.no_grad(), pytest.raises(BufferError, match="grad"):
        dlferry.from_dlpack(t, copy=copy)


def lazy() -> dict[str, torch.Tensor]:
    z = torch.tensor([1 + 2j, 3 - 4j])
    return {"conj": z.conj(), "neg": z.conj().imag, "both": torch._neg_view(z.conj())}


@pytest.mark.parametrize("kind", ["conj", "neg", "both"])
@pytest.mark.parametrize("copy", [None, True, False])
def test_no_sign_is_ever_lost(kind: str, copy: bool | None) -> None:
    t = lazy()[kind]
    try:
        result = dlferry.from_dlpack(t, copy=copy)
    except BufferError:
        return
    assert torch.equal(result, t)
    assert copy is None or overlaps(result, t) == (copy is False)


@pytest.mark.parametrize(
    "make",
    [lambda: torch.eye(3).to_sparse(), lambda: torch.empty(3, device="meta")],
    ids=["sparse", "meta"],
)
def test_tensors_without_plain_memory_are_refused(make: Any) -> None:
    with pytest.raises((BufferError, dlferry.UnsupportedInput)):
        dlferry.from_dlpack(make())


def test_a_quantized_tensor_is_refused() -> None:
    t = quantized()
    with pytest.raises((BufferError, dlferry.UnsupportedInput)):
        dlferry.from_dlpack(t)


@pytest.mark.parametrize(
    ("a", "reasons"),
    [
        (np.arange(6.0)[::-1], ("strides",)),
        (np.arange(6, dtype=">f4"), ("byte order",)),
    ],
)
def test_arrays_follow_the_same_policy(a: Any, reasons: tuple[str, ...]) -> None:
    for copy in (None, True):
        t = dlferry.from_dlpack(a, copy=copy)
        assert_fresh(t, a)
        assert np.array_equal(t.numpy(), a)
    with pytest.raises(dlferry.CopyRequired) as caught:
        dlferry.from_dlpack(a, copy=False)
    assert caught.value.reasons == reasons


@pytest.mark.parametrize("device", ["cpu", "cpu:0", torch.device("cpu"), torch.device("cpu", 0)])
def test_the_cpu_by_any_name(device: Any) -> None:
    t, a = torch.ones(3), np.ones(3)
    assert same_memory(dlferry.from_dlpack(t, device=device, copy=False), t)
    assert same_memory(dlferry.from_dlpack(a, device=device, copy=False), a)


def test_another_device() -> None:
    t = torch.ones(3)
    assert dlferry.from_dlpack(t, device="meta").device.type == "meta"
    with pytest.raises(dlferry.CopyRequired) as caught:
        dlferry.from_dlpack(t, device="meta", copy=False)
    assert caught.value.reasons == ("device",)


@pytest.mark.parametrize(
    "x", [[1, 2], (1,), 1, 1.5, True, None, "abc", object(), {1}, {"a": 1}, range(3)], ids=repr
)
def test_objects_without_dlpack_are_refused_by_name(x: Any) -> None:
    for copy in (None, True, False):
        with pytest.raises(dlferry.UnsupportedInput, match=type(x).__name__):
            dlferry.from_dlpack(x, copy=copy)


def test_the_default_device_plays_no_part() -> None:
    t, a = torch.ones(3), np.ones(3)
    torch.set_default_device("meta")
    assert same_memory(dlferry.from_dlpack(t), t)
    assert same_memory(dlferry.from_dlpack(a), a)
    assert dlferry.from_dlpack(a, copy=True).device.type == "cpu"
