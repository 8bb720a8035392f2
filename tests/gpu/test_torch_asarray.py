"""What torch's own tests ask of `torch.asarray` and of DLPack, on a GPU."""

from __future__ import annotations

import gc
import weakref
from typing import Any

import numpy as np
import pytest
import torch
from asarray_cases import (
    PLAIN,
    WITH_BOOL,
    Source,
    check_autograd_history,
    check_copying,
    check_lists,
    check_sharing,
)
from forge import CUDA, Export, Producer
from hardware import Described, Stranger, host
from kinds import NUMPY_TO_TORCH, name

import dlferry

to_dlpack: Any = vars(torch.utils.dlpack)["to_dlpack"]
WRAPS: dict[str, tuple[Any, list[torch.dtype]]] = {
    "tensor": (lambda t: t, WITH_BOOL),
    "capsule": (to_dlpack, PLAIN),
    "DLPack": (Stranger, WITH_BOOL),
    "CUDA array": (Described, [t for t in WITH_BOOL if t in NUMPY_TO_TORCH.values()]),
}
CASES = [
    pytest.param(
        wrap, dtype, id=f"{kind}-{name(dtype)}",
        marks=pytest.mark.native if kind == "capsule" else (),
    )
    for kind, (wrap, dtypes) in WRAPS.items()
    for dtype in dtypes
]  # fmt: skip


def source_of(wrap: Any, device: torch.device) -> Source:
    return Source(wrap, True, (5, 5), str(device))


@pytest.mark.parametrize(("wrap", "dtype"), CASES)
def test_sharing(device: torch.device, wrap: Any, dtype: torch.dtype) -> None:
    check_sharing(source_of(wrap, device), dtype)


@pytest.mark.parametrize(("wrap", "dtype"), CASES)
def test_copying(device: torch.device, wrap: Any, dtype: torch.dtype) -> None:
    check_copying(source_of(wrap, device), dtype)


@pytest.mark.parametrize("dtype", WITH_BOOL, ids=name)
def test_lists(device: torch.device, dtype: torch.dtype) -> None:
    check_lists(device, dtype)


@pytest.mark.parametrize("dtype", [torch.float32, torch.complex64], ids=name)
@pytest.mark.parametrize("copy", [None, True, False])
@pytest.mark.parametrize("requires_grad", [None, True, False])
def test_autograd_history(
    device: torch.device, dtype: torch.dtype, copy: bool | None, requires_grad: bool | None
) -> None:
    check_autograd_history(device, dtype, copy, requires_grad)


def test_sharing_that_is_impossible(device: torch.device) -> None:
    t = torch.rand(5, 5, device=device)
    for source in (t, Stranger(t), Described(t)):
        with pytest.raises(dlferry.CopyRequired, match="with dtype '.*' into dtype '.*'"):
            dlferry.asarray(source, dtype=torch.float64, copy=False)
        with pytest.raises(dlferry.CopyRequired, match=f"from device '{device}' to 'cpu'"):
            dlferry.asarray(source, device="cpu", copy=False)
        assert torch.equal(dlferry.asarray(source, device="cpu"), host(t))
    with pytest.raises(dlferry.CopyRequired, match=f"from device 'cpu' to '{device}'"):
        dlferry.asarray(torch.rand(5), device=device, copy=False)
    with pytest.raises(ValueError, match="can't alias arbitrary sequence"):
        dlferry.asarray([1, 2], device=device, copy=False)


def test_the_default_device(device: torch.device) -> None:
    with device:
        assert dlferry.asarray([1, 2]).device == device
        assert dlferry.asarray(3.5).device == device
        assert dlferry.asarray(np.arange(3)).device.type == "cpu"
        assert dlferry.to_device([np.arange(3)], device)[0].device == device
        assert dlferry.to_host(torch.ones(3)).device.type == "cpu"
    assert dlferry.asarray([1, 2]).device.type == "cpu"


def test_a_tensor_that_is_there_is_itself(device: torch.device) -> None:
    t = torch.ones(3, device=device)
    for named in ("cuda", torch.device("cuda"), str(device), device, device.index):
        assert dlferry.asarray(t, device=named) is t
        assert dlferry.asarray(t, device=named, copy=False) is t


# --- DLPack and __cuda_array_interface__ ---


def test_an_import_can_be_a_copy(device: torch.device) -> None:
    t = torch.arange(6.0, device=device).reshape(2, 3).T
    for source in (t, Stranger(t)):
        for made in (dlferry.from_dlpack(source, copy=True), dlferry.asarray(source, copy=True)):
            assert made.device == device and made.data_ptr() != t.data_ptr()
            assert torch.equal(host(made), host(t))
        there = dlferry.from_dlpack(source, device="cpu")
        assert there.device.type == "cpu" and torch.equal(there, host(t))


def test_bits_of_a_tensor_are_seen(device: torch.device) -> None:
    numbers = torch.tensor([1 + 2j, 3 - 4j], device=device)
    for t in (numbers.conj(), numbers.conj().imag):
        assert torch.equal(host(dlferry.from_dlpack(t)), host(t))
        assert np.array_equal(dlferry.to_numpy(t), host(t).resolve_conj().resolve_neg().numpy())
        assert torch.equal(dlferry.to_host(t), host(t))


@pytest.mark.parametrize("index", [np.s_[:], np.s_[::2], np.s_[:, 1:2], np.s_[..., None], np.s_[1]])
def test_layouts_are_shared(device: torch.device, index: Any) -> None:
    t = torch.arange(20.0, device=device).reshape(4, 5)[index]
    for source in (t, Stranger(t), Described(t)):
        shared = dlferry.asarray(source, copy=False)
        assert shared.data_ptr() == t.data_ptr() and shared.stride() == t.stride()
    for source in (t, Stranger(t), to_dlpack(t)):
        shared = dlferry.from_dlpack(source)
        assert shared is not t and shared.data_ptr() == t.data_ptr()
        shared += 1
    assert torch.equal(host(t), torch.arange(20.0).reshape(4, 5)[index] + 3)


def test_zero_elements(device: torch.device) -> None:
    t = torch.zeros((0, 3), device=device)
    for source in (t, Stranger(t), Described(t)):
        made = dlferry.asarray(source)
        assert made.shape == (0, 3) and made.device == device


def test_the_owner_lives_as_long_as_the_memory_is_used(device: torch.device) -> None:
    for wrap in (Stranger, Described):
        tensor = torch.arange(4.0, device=device)
        storage = weakref.ref(tensor.untyped_storage())
        made = dlferry.asarray(wrap(tensor))
        del tensor
        gc.collect()
        assert storage() is not None and host(made).tolist() == [0, 1, 2, 3]
        del made
        gc.collect()
        assert storage() is None


def test_a_gradient_is_not_exported(device: torch.device) -> None:
    t = torch.ones(3, device=device, requires_grad=True)
    with pytest.raises(BufferError):
        dlferry.from_dlpack(t)
    assert dlferry.from_dlpack(t.detach()).data_ptr() == t.data_ptr()


REVERSED = [
    np.uint8,
    np.uint16,
    np.uint32,
    np.uint64,
    np.float16,
    np.float32,
    np.complex128,
    np.bool_,
]


@pytest.mark.parametrize("kind", REVERSED, ids=name)
def test_reversed_memory_is_copied(device: torch.device, kind: Any) -> None:
    values = np.arange(6).astype(kind)
    t = torch.from_numpy(values).to(device)
    size = t.element_size()
    source = Described(t, strides=(-size,), data=(t.data_ptr() + 5 * size, False))
    made = dlferry.asarray(source)
    assert np.array_equal(host(made).numpy(), values[::-1])
    with pytest.raises(dlferry.CopyRequired) as caught:
        dlferry.asarray(source, copy=False)
    assert caught.value.reasons == ("strides",)


def test_foreign_byte_order_and_misaligned_memory_are_copied(device: torch.device) -> None:
    values = np.arange(5, dtype=">f4")
    swapped = torch.from_numpy(values.view(np.uint8)).to(device)
    made = dlferry.asarray(Described(swapped, typestr=">f4", shape=(5,), strides=(4,)))
    assert host(made).tolist() == [0, 1, 2, 3, 4]
    moved = np.concatenate([np.zeros(1, np.uint8), values.astype("<f4").view(np.uint8)])
    odd = torch.from_numpy(moved).to(device)
    place = (odd.data_ptr() + 1, False)
    made = dlferry.asarray(Described(odd, typestr="<f4", shape=(5,), strides=(4,), data=place))
    assert host(made).tolist() == [0, 1, 2, 3, 4] and made.data_ptr() % 4 == 0


@pytest.mark.native
def test_a_reversed_export_does_not_end_the_process(device: torch.device) -> None:
    t = torch.arange(4.0, device=device)
    export = Export(np.arange(4, dtype=np.float32)).set_shape((4,), (-1,))
    export.tensor.data = t.data_ptr() + 12
    export.tensor.device.type, export.tensor.device.id = CUDA, device.index
    with pytest.raises(dlferry.UnsupportedInput, match="strides"):
        dlferry.asarray(Producer(export, device=(CUDA, device.index)))
