"""`__cuda_array_interface__`: what a description must say, and what becomes of it.

There is no GPU here: memory of the host plays the device, and torch's part is played by
`on_host`, which takes the description that torch would be given.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from kinds import FOREIGN_ORDER, NUMPY_TO_TORCH, name, reference, sample
from regions import assert_same_values, misaligned, overlaps, same_memory

import dlferry
from dlferry import _torch_cuda


class Described:
    def __init__(self, array: np.ndarray[Any, Any], **changes: Any) -> None:
        self.array = array
        interface = {
            "version": 3,
            "shape": array.shape,
            "strides": array.strides,
            "typestr": array.dtype.str,
            "data": (array.__array_interface__["data"][0], not array.flags.writeable),
            "stream": None,
        }
        interface.update(changes)
        self.__cuda_array_interface__: Any = interface


@pytest.fixture
def device(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """Lets memory of the host play the device; the list has the streams that were waited for."""
    streams: list[Any] = []

    def on_host(described: Any, stream: Any) -> torch.Tensor:
        interface = dict(described.__cuda_array_interface__)
        assert interface["version"] == 2 and "stream" not in interface
        assert interface["data"][1] is False  # torch takes nothing else
        assert all(step >= 0 for step in interface["strides"])

        class Memory:
            owner = described
            __array_interface__ = interface | {"version": 3}

        streams.append(stream)
        return torch.from_numpy(np.asarray(Memory()))

    monkeypatch.setattr(_torch_cuda, "on_cuda_memory", on_host)
    return streams


# --- without CUDA: validated first, then refused ---


@pytest.mark.parametrize("kwargs", [{}, {"copy": False}, {"copy": True}, {"device": "cpu"}])
def test_without_cuda_a_sound_description_is_refused(
    kwargs: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.cuda, "is_initialized", lambda: False)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(dlferry.DriverUnavailable, match="CUDA"):
        dlferry.asarray(Described(sample(np.float32)), **kwargs)
    with pytest.raises(dlferry.DriverUnavailable, match="CUDA"):
        dlferry.asarray([Described(sample(np.float32))])


MALFORMED: dict[str, dict[str, Any]] = {
    "version 1": {"version": 1},
    "version 4": {"version": 4},
    "no version": {"version": None},
    "no such typestr": {"typestr": "<f3"},
    "typestr is no string": {"typestr": 4},
    "shape is no tuple": {"shape": 3},
    "negative length": {"shape": (-3, 4)},
    "float length": {"shape": (3.0, 4)},
    "strides of another rank": {"strides": (4,)},
    "float strides": {"strides": (16.0, 4.0)},
    "null data": {"data": (0, False)},
    "negative address": {"data": (-64, False)},
    "data is no pair": {"data": 64},
    "three data": {"data": (64, False, 1)},
    "address is no number": {"data": ("0x40", False)},
    "stream 0": {"stream": 0},
    "stream -1": {"stream": -1},
    "stream is no number": {"stream": "default"},
}


@pytest.mark.parametrize("case", MALFORMED)
@pytest.mark.parametrize("copy", [None, True, False])
def test_a_malformed_description_is_a_buffer_error(case: str, copy: bool | None) -> None:
    with pytest.raises(BufferError, match="__cuda_array_interface__"):
        dlferry.asarray(Described(sample(np.float32), **MALFORMED[case]), copy=copy)


@pytest.mark.parametrize("key", ["version", "typestr", "shape", "data"])
def test_every_key_is_needed(key: str) -> None:
    x = Described(sample(np.float32))
    del x.__cuda_array_interface__[key]
    with pytest.raises(BufferError, match=key):
        dlferry.asarray(x)


def test_a_description_that_is_no_dict() -> None:
    x = Described(sample(np.float32))
    x.__cuda_array_interface__ = 7
    with pytest.raises(BufferError, match="malformed"):
        dlferry.asarray(x)


def test_a_mask_does_not_vanish() -> None:
    with pytest.raises(dlferry.UnsupportedInput, match="mask"):
        dlferry.asarray(Described(sample(np.float32), mask=Described(sample(np.bool_))))


@pytest.mark.parametrize("typestr", ["<f16", "<M8[s]", "|V4", "|O8", "<U2", "|S4", "<V2"])
def test_elements_without_a_torch_dtype(typestr: str) -> None:
    with pytest.raises(dlferry.UnsupportedInput, match="dtype"):
        dlferry.asarray(Described(sample(np.float32), typestr=typestr))


def test_an_attribute_that_is_not_there_is_none() -> None:
    class OnTheHost(Described):
        @property
        def __cuda_array_interface__(self) -> Any:  # type: ignore[override]
            raise AttributeError("only for arrays on a device")

        @__cuda_array_interface__.setter
        def __cuda_array_interface__(self, value: Any) -> None:
            self.__array_interface__ = self.array.__array_interface__

    a = sample(np.float32)
    assert same_memory(dlferry.asarray(OnTheHost(a)), a)


# --- the description that torch gets ---


@pytest.mark.parametrize("kind", NUMPY_TO_TORCH, ids=name)
@pytest.mark.parametrize("copy", [None, False])
def test_memory_is_shared(device: Any, kind: Any, copy: bool | None) -> None:
    a = sample(kind)
    t = dlferry.asarray(Described(a), copy=copy)
    assert same_memory(t, a)
    assert_same_values(t, reference(a))
    assert not overlaps(dlferry.asarray(Described(a), copy=True), a)


@pytest.mark.parametrize("version", [2, 3])
def test_strides_may_be_left_out(device: Any, version: int) -> None:
    a = sample(np.float32)
    assert same_memory(dlferry.asarray(Described(a, version=version, strides=None)), a)


@pytest.mark.parametrize("stream", [None, 1, 2, 0x7F00_0000_1000])
def test_the_stream_is_handed_on(device: Any, stream: Any) -> None:
    dlferry.asarray(Described(sample(np.float32), stream=stream))
    assert device == [stream]


def test_an_empty_array_may_have_null_data(device: Any) -> None:
    a = np.empty((0, 3), np.float32)
    assert dlferry.asarray(Described(a, data=(0, False))).shape == (0, 3)


@pytest.mark.parametrize("stride", [-4, 0, 3])
def test_the_stride_of_one_element_plays_no_part(device: Any, stride: int) -> None:
    a = np.ones((1, 3), np.float32)
    assert same_memory(dlferry.asarray(Described(a, strides=(stride, 4)), copy=False), a)


@pytest.mark.parametrize("index", [np.s_[1:, ::2], np.s_[::-1], np.s_[::-2, ::-1], np.s_[1, 2]])
def test_layouts(device: Any, index: Any) -> None:
    a = np.asarray(sample(np.float32, (4, 6))[index])
    t = dlferry.asarray(Described(a))
    assert np.array_equal(t.numpy(), a)
    reversed_ = any(stride < 0 for stride in a.strides)
    assert same_memory(t, a) != reversed_
    if reversed_:
        with pytest.raises(dlferry.CopyRequired) as caught:
            dlferry.asarray(Described(a), copy=False)
        assert caught.value.reasons == ("strides",)


@pytest.mark.parametrize("kind", NUMPY_TO_TORCH, ids=name)
def test_every_dtype_is_turned_round(device: Any, kind: Any) -> None:
    a = sample(kind)
    assert_same_values(dlferry.asarray(Described(a[::-1, ::-2])), reference(a[::-1, ::-2]))


@pytest.mark.parametrize("kind", FOREIGN_ORDER, ids=name)
def test_foreign_byte_order_is_swapped_or_refused(device: Any, kind: Any) -> None:
    a = sample(kind)
    swapped = a.astype(a.dtype.newbyteorder())[:, ::-1]
    assert_same_values(dlferry.asarray(Described(swapped)), reference(a[:, ::-1]))
    with pytest.raises(dlferry.CopyRequired) as caught:
        dlferry.asarray(Described(swapped), copy=False)
    assert caught.value.reasons == ("strides", "byte order")


def test_misaligned_and_odd_strides_are_copied(device: Any) -> None:
    odd = misaligned(np.arange(6, dtype=np.float32))
    field = np.array([(1, 2.5), (3, 4.5)], "i1, f4")["f1"]
    for a in (odd, field):
        t = dlferry.asarray(Described(a))
        assert np.array_equal(t.numpy(), a)
        assert t.data_ptr() % 4 == 0 and not overlaps(t, a)
        with pytest.raises(dlferry.CopyRequired):
            dlferry.asarray(Described(a), copy=False)


def test_read_only_memory(device: Any) -> None:
    a = sample(np.float32)
    a.flags.writeable = False
    assert not overlaps(dlferry.asarray(Described(a)), a)
    assert same_memory(dlferry.asarray(Described(a), readonly="share", copy=False), a)
    for kwargs in ({"copy": False}, {"readonly": "error"}):
        with pytest.raises(dlferry.CopyRequired) as caught:
            dlferry.asarray(Described(a), **kwargs)
        assert caught.value.reasons == ("read-only",)


def test_a_cast(device: Any) -> None:
    assert dlferry.asarray(Described(sample(np.int16)), dtype=torch.float32).dtype == torch.float32
    with pytest.raises(dlferry.CopyRequired) as caught:
        dlferry.asarray(Described(sample(np.int16)), dtype=torch.float32, copy=False)
    assert caught.value.reasons == ("dtype",)
