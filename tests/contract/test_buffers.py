"""The buffer protocol: formats, layouts, and buffers that stay exported while a tensor lives."""

from __future__ import annotations

import array
import ctypes
import gc
import mmap
import struct
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from kinds import FOREIGN_ORDER, NUMPY_TO_TORCH, name, reference, sample
from regions import assert_fresh, assert_same_values, misaligned, same_memory

import dlferry


def writable(*values: int) -> bytearray:
    return bytearray(values)


# --- dtype, shape and strides are the buffer's own ---


@pytest.mark.parametrize("kind", NUMPY_TO_TORCH, ids=name)
@pytest.mark.parametrize("copy", [None, False])
def test_every_format_is_shared(kind: Any, copy: bool | None) -> None:
    a = sample(kind)
    t = dlferry.asarray(memoryview(a), copy=copy)
    assert same_memory(t, a)
    assert_same_values(t, reference(a))


@pytest.mark.parametrize("code", "bBhHiIlLqQfd")
def test_array_array(code: str) -> None:
    x = array.array(code, [1, 2, 3])
    t = dlferry.asarray(x, copy=False)
    assert t.tolist() == [1, 2, 3] and t.element_size() == x.itemsize
    t[0] = 7
    assert x[0] == 7


@pytest.mark.parametrize("code", "bBhHiIlLqQnNfd?")
def test_formats_of_struct(code: str) -> None:
    values = [1, 0, 1, 0, 1, 1]
    raw = bytearray(struct.pack(f"6{code}", *values))
    t = dlferry.asarray(memoryview(raw).cast("B").cast(code, [2, 3]), copy=False)
    assert t.shape == (2, 3) and t.flatten().tolist() == values
    assert t.dtype.is_signed == (code not in "BHILQN?")


@pytest.mark.parametrize("kind", FOREIGN_ORDER, ids=name)
def test_foreign_byte_order_is_swapped_or_refused(kind: Any) -> None:
    a = sample(kind)
    swapped = memoryview(a.astype(a.dtype.newbyteorder()))
    assert_same_values(dlferry.asarray(swapped), reference(a))
    with pytest.raises(dlferry.CopyRequired) as caught:
        dlferry.asarray(swapped, copy=False)
    assert caught.value.reasons == ("byte order",)


@pytest.mark.parametrize("index", [np.s_[1:, ::2], np.s_[:0], np.s_[:, None, 1], np.s_[1, 1:]])
def test_layouts(index: Any) -> None:
    a = sample(np.int16, (4, 6))[index]
    for view in (a, a.T):
        assert same_memory(dlferry.asarray(memoryview(view), copy=False), view)


def test_a_scalar_buffer() -> None:
    x = ctypes.c_int32(7)
    t = dlferry.asarray(x, copy=False)
    assert t.shape == () and t.item() == 7
    t.fill_(8)
    assert x.value == 8


def test_reversed_and_misaligned_buffers_are_copied() -> None:
    a = np.arange(6, dtype=np.int32)
    t = dlferry.asarray(memoryview(a[::-1]))
    assert_fresh(t, a)
    assert t.tolist() == [5, 4, 3, 2, 1, 0]
    odd = misaligned(a)
    assert_fresh(dlferry.asarray(memoryview(odd)), odd)
    with pytest.raises(dlferry.CopyRequired) as caught:
        dlferry.asarray(memoryview(odd[::-1]), copy=False)
    assert set(caught.value.reasons) == {"strides", "alignment"}


@pytest.mark.parametrize(
    ("kind", "dtype"),
    [
        (ctypes.c_bool, torch.bool),
        (ctypes.c_uint8, torch.uint8),
        (ctypes.c_int16, torch.int16),
        (ctypes.c_uint32, torch.uint32),
        (ctypes.c_long, torch.int64),
        (ctypes.c_size_t, torch.uint64),
        (ctypes.c_float, torch.float32),
        (ctypes.c_double, torch.float64),
    ],
)
def test_ctypes_arrays(kind: Any, dtype: torch.dtype) -> None:
    x = ((kind * 3) * 2)()
    x[1][2] = 1
    t = dlferry.asarray(x, copy=False)
    assert t.dtype == dtype and t.tolist() == [[0, 0, 0], [0, 0, 1]]
    assert t.data_ptr() == ctypes.addressof(x)


def test_big_endian_ctypes() -> None:
    x = (ctypes.c_int32.__ctype_be__ * 2)(1, 2)
    assert dlferry.asarray(x).tolist() == [1, 2]


def test_long_doubles_follow_the_rule_for_them() -> None:
    for x in (np.ones(3, np.longdouble), (ctypes.c_longdouble * 3)(1, 1, 1)):
        with pytest.raises(dlferry.UnsupportedInput, match="float64"):
            dlferry.asarray(memoryview(x))
        assert dlferry.asarray(memoryview(x), dtype=torch.float64).tolist() == [1, 1, 1]


class Pair(ctypes.Structure):
    _fields_ = [("a", ctypes.c_int), ("b", ctypes.c_float)]


@pytest.mark.parametrize(
    "x",
    [
        memoryview(b"ab").cast("c"),
        array.array("u", "ab"),
        (ctypes.c_char * 2)(),
        (ctypes.c_void_p * 2)(),
        Pair(),
        memoryview(np.array(["ab"])),
        memoryview(np.array([b"ab"])),
        memoryview(np.array([None])),
        memoryview(np.zeros(2, "i4, f4")),
    ],
    ids=lambda x: memoryview(x).format,
)
@pytest.mark.parametrize("copy", [None, True, False])
def test_other_formats_are_unsupported(x: Any, copy: bool | None) -> None:
    with pytest.raises(dlferry.UnsupportedInput, match=r"format|elements"):
        dlferry.asarray(x, copy=copy)


# --- read-only buffers ---


@pytest.mark.parametrize(
    "x", [b"\1\2\3", memoryview(b"\1\2\3"), memoryview(bytearray(b"\1\2\3")).toreadonly()]
)
def test_read_only_buffers(x: Any) -> None:
    a = np.asarray(memoryview(x))
    assert_fresh(dlferry.asarray(x), a)
    assert dlferry.asarray(x).tolist() == [1, 2, 3]
    assert same_memory(dlferry.asarray(x, readonly="share", copy=False), a)
    for kwargs in ({"copy": False}, {"readonly": "error"}):
        with pytest.raises(dlferry.CopyRequired) as caught:
            dlferry.asarray(x, **kwargs)
        assert caught.value.reasons == ("read-only",)


def test_an_empty_buffer() -> None:
    assert dlferry.asarray(bytearray()).shape == (0,)
    assert dlferry.asarray(b"").dtype == torch.uint8


# --- lifetime ---


def test_a_bytearray_keeps_its_size_while_a_tensor_lives() -> None:
    x = writable(1, 2, 3)
    t = dlferry.asarray(x)
    view = t[1:]
    del t
    gc.collect()
    with pytest.raises(BufferError):
        x.extend(b"more")
    view[0] = 9
    assert x == b"\1\x09\3"
    del view
    gc.collect()
    x.extend(b"more")


def test_an_array_keeps_its_size_while_a_tensor_lives() -> None:
    x = array.array("d", [1, 2])
    t = dlferry.asarray(x)
    with pytest.raises(BufferError):
        x.append(3)
    del t
    gc.collect()
    x.append(3)


def test_a_copy_lets_the_buffer_go() -> None:
    x = writable(1, 2, 3)
    t = dlferry.asarray(x, copy=True)
    gc.collect()
    x.extend(b"more")
    assert t.tolist() == [1, 2, 3]


def test_a_refusal_lets_the_buffer_go() -> None:
    x = bytearray(8)
    with pytest.raises(dlferry.CopyRequired):
        dlferry.asarray(x, dtype=torch.float32, copy=False)
    gc.collect()
    x.extend(b"more")


def test_a_released_memoryview_says_so() -> None:
    view = memoryview(bytearray(3))
    view.release()
    with pytest.raises(ValueError, match="released"):
        dlferry.asarray(view)


def test_a_memoryview_may_be_released_before_the_tensor() -> None:
    x = writable(1, 2, 3)
    view = memoryview(x)
    t = dlferry.asarray(view)
    view.release()
    assert t.tolist() == [1, 2, 3]
    with pytest.raises(BufferError):
        x.clear()


@pytest.fixture
def path(tmp_path: Path) -> Path:
    (tmp_path / "bytes").write_bytes(bytes(range(64)))
    return tmp_path / "bytes"


def test_a_mapped_file_is_not_closed_while_a_tensor_lives(path: Path) -> None:
    with path.open("r+b") as file:
        mapped = mmap.mmap(file.fileno(), 0)
    t = dlferry.asarray(memoryview(mapped).cast("i"), copy=False)
    with pytest.raises(BufferError):
        mapped.close()
    assert t[1].item() == struct.unpack("i", bytes([4, 5, 6, 7]))[0]
    t[0] = 0
    assert mapped[:4] == bytes(4)
    del t
    gc.collect()
    mapped.close()


def test_a_read_only_mapped_file_asks_first(path: Path) -> None:
    with path.open("rb") as file:
        mapped = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
    for x in (mapped, memoryview(mapped)[8:], memoryview(mapped).cast("d")):
        with pytest.raises(dlferry.CopyRequired, match="mapped file"):
            dlferry.asarray(x)
        assert same_memory(dlferry.asarray(x, readonly="share"), np.asarray(memoryview(x)))
        assert dlferry.asarray(x, copy=True).numel() == len(memoryview(x))


# --- elsewhere ---


def test_buffers_inside_lists_are_arrays() -> None:
    t = dlferry.asarray([array.array("h", [1, 2]), memoryview(np.array([3, 4], np.int16))])
    assert t.dtype == torch.int16 and t.tolist() == [[1, 2], [3, 4]]


def test_to_numpy_takes_buffers() -> None:
    x = array.array("h", [1, 2])
    a = dlferry.to_numpy(x)
    assert a.dtype == np.int16
    a[0] = 9
    assert x[0] == 9


def test_from_dlpack_does_not() -> None:
    with pytest.raises(dlferry.UnsupportedInput, match="__dlpack__"):
        dlferry.from_dlpack(bytearray(3))
