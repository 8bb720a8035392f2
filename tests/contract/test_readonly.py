"""Read-only memory: what `readonly=` allows, and mapped files, which nobody means to read whole."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from forge import ArrayProducer, Export, Producer
from kinds import ALL_TO_TORCH, name, reference, sample
from regions import assert_fresh, assert_same_values, misaligned, same_memory

import dlferry

CONVERTERS = [dlferry.asarray, dlferry.from_dlpack]


def frozen(kind: Any = np.float32) -> np.ndarray[Any, Any]:
    a = sample(kind)
    a.flags.writeable = False
    return a


def from_bytes() -> np.ndarray[Any, Any]:
    return np.frombuffer(b"\x00\x01\x02\x03", np.uint8)


def broadcast() -> np.ndarray[Any, Any]:
    return np.broadcast_to(np.arange(3.0), (4, 3))


ARRAYS = [frozen, from_bytes, broadcast]


@pytest.mark.parametrize("make", ARRAYS)
@pytest.mark.parametrize("convert", CONVERTERS)
def test_read_only_arrays_are_copied_unless_asked(make: Any, convert: Any) -> None:
    a = make()
    for t in (convert(a), convert(a, readonly="copy"), convert(a, copy=True, readonly="share")):
        assert_fresh(t, a)
        assert np.array_equal(t.numpy(), a)
    assert not a.flags.writeable


@pytest.mark.parametrize("make", ARRAYS)
@pytest.mark.parametrize("convert", CONVERTERS)
@pytest.mark.parametrize("copy", [None, False])
def test_share_hands_out_the_memory(make: Any, convert: Any, copy: bool | None) -> None:
    a = make()
    assert same_memory(convert(a, readonly="share", copy=copy), a)
    assert not a.flags.writeable


@pytest.mark.parametrize("make", ARRAYS)
@pytest.mark.parametrize("convert", CONVERTERS)
@pytest.mark.parametrize("copy", [None, False])
def test_error_refuses(make: Any, convert: Any, copy: bool | None) -> None:
    with pytest.raises(dlferry.CopyRequired) as caught:
        convert(make(), readonly="error", copy=copy)
    assert caught.value.reasons == ("read-only",)
    assert "readonly=" in str(caught.value)


@pytest.mark.parametrize("make", ARRAYS)
@pytest.mark.parametrize("convert", CONVERTERS)
def test_copy_false_refuses_by_default(make: Any, convert: Any) -> None:
    with pytest.raises(dlferry.CopyRequired) as caught:
        convert(make(), copy=False)
    assert caught.value.reasons == ("read-only",)
    assert "share" in str(caught.value)


@pytest.mark.parametrize("readonly", ["copy", "share", "error"])
def test_readonly_plays_no_part_where_a_copy_happens_anyway(readonly: Any) -> None:
    a = frozen()
    assert dlferry.asarray(a, dtype=torch.float64, readonly=readonly).dtype == torch.float64
    assert dlferry.asarray(a, device="meta", readonly=readonly).device.type == "meta"
    assert_fresh(dlferry.asarray(a, copy=True, readonly=readonly), a)


@pytest.mark.parametrize("readonly", ["copy", "share"])
def test_a_layout_copy_of_read_only_memory(readonly: Any) -> None:
    a = frozen()[::-1]
    assert np.array_equal(dlferry.asarray(a, readonly=readonly).numpy(), a)


def test_refusals_of_read_only_memory_list_every_other_reason_too() -> None:
    a = misaligned(np.arange(6, dtype=">i4"))[::-1]
    a.flags.writeable = False
    with pytest.raises(dlferry.CopyRequired) as caught:
        dlferry.asarray(a, copy=False)
    assert set(caught.value.reasons) == {"read-only", "alignment", "byte order", "strides"}
    with pytest.raises(dlferry.CopyRequired) as caught:
        dlferry.asarray(a, copy=False, readonly="share")
    assert set(caught.value.reasons) == {"alignment", "byte order", "strides"}


@pytest.mark.parametrize("kind", ALL_TO_TORCH, ids=name)
@pytest.mark.parametrize("readonly", ["copy", "share"])
def test_every_dtype_can_be_read_only(kind: Any, readonly: Any) -> None:
    a = frozen(kind)
    t = dlferry.asarray(a, readonly=readonly)
    assert_same_values(t, reference(a))
    assert same_memory(t, a) == (readonly == "share")


@pytest.mark.parametrize("readonly", ["copy", "share", "error"])
@pytest.mark.parametrize("copy", [None, False])
def test_writable_memory_is_shared_whatever_readonly_says(readonly: Any, copy: bool | None) -> None:
    a = sample(np.float32)
    assert same_memory(dlferry.asarray(a, readonly=readonly, copy=copy), a)
    t = torch.ones(3)
    assert dlferry.asarray(t, readonly=readonly, copy=copy) is t


# --- DLPack's own flag ---


@pytest.mark.parametrize("convert", CONVERTERS)
@pytest.mark.parametrize(
    "make", [lambda: Producer(Export(frozen())), lambda: ArrayProducer(frozen())]
)
def test_the_dlpack_flag_counts_as_read_only(convert: Any, make: Any) -> None:
    x = make()
    a = x.export.array if isinstance(x, Producer) else x.array
    assert_fresh(convert(x), a)
    assert same_memory(convert(x, readonly="share"), a)
    assert same_memory(convert(x, readonly="share", copy=False), a)
    assert convert(x, copy=True).data_ptr() != a.ctypes.data
    for request_ in ({"copy": False}, {"readonly": "error"}):
        with pytest.raises(dlferry.CopyRequired) as caught:
            convert(x, **request_)
        assert caught.value.reasons == ("read-only",)


# --- mapped files ---


@pytest.fixture
def path(tmp_path: Path) -> Path:
    np.arange(12, dtype=np.float32).tofile(tmp_path / "numbers")
    return tmp_path / "numbers"


def mapped(path: Path, mode: Any) -> np.memmap[Any, Any]:
    return np.memmap(path, np.float32, mode, shape=(3, 4))


@pytest.mark.parametrize("convert", CONVERTERS)
@pytest.mark.parametrize("index", [np.s_[:], np.s_[1:], np.s_[:, ::2]])
@pytest.mark.parametrize("copy", [None, False])
def test_a_read_only_mapped_file_asks_first(
    path: Path, convert: Any, index: Any, copy: bool | None
) -> None:
    with pytest.raises(dlferry.CopyRequired) as caught:
        convert(mapped(path, "r")[index], copy=copy)
    assert caught.value.reasons == ("read-only",)
    assert "readonly=" in str(caught.value) and "copy=True" in str(caught.value)


@pytest.mark.parametrize("convert", CONVERTERS)
def test_a_read_only_mapped_file_is_shared_or_read_when_asked(path: Path, convert: Any) -> None:
    a = mapped(path, "r")
    assert same_memory(convert(a, readonly="share"), a)
    assert_fresh(convert(a, copy=True), a)
    assert np.array_equal(convert(a, copy=True).numpy(), a)
    with pytest.raises(dlferry.CopyRequired):
        convert(a, readonly="error")


def test_a_cast_of_a_mapped_file_reads_it(path: Path) -> None:
    assert dlferry.asarray(mapped(path, "r"), dtype=torch.float64).sum() == 66


@pytest.mark.parametrize("mode", ["r+", "c"])
def test_writable_mapped_files_are_shared(path: Path, mode: str) -> None:
    a = mapped(path, mode)
    t = dlferry.asarray(a, copy=False)
    t[0, 0] = 42
    assert a[0, 0] == 42


def test_a_mapped_file_stays_mapped_while_a_tensor_needs_it(path: Path) -> None:
    t = dlferry.asarray(mapped(path, "r"), readonly="share")
    path.unlink()
    assert t.sum() == 66


class Based(Producer):
    """A read-only producer whose `base` is of another meaning, and never ends."""

    @property
    def base(self) -> Based:
        return self


@pytest.mark.parametrize("convert", [dlferry.asarray, dlferry.from_dlpack])
def test_a_base_without_an_end(convert: Any) -> None:
    export = Export()
    export.managed.flags = 1
    assert convert(Based(export)).tolist() == [[0, 1, 2], [3, 4, 5]]
