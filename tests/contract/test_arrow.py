"""Arrow's C data interface: columns shared or copied, nulls refused, everything released once."""

from __future__ import annotations

import gc
import struct
import threading
from typing import Any

import numpy as np
import pytest
import torch
from forge_arrow import FORMATS, ArrowArray, ArrowStream, Column
from regions import assert_fresh, same_memory

import dlferry

NUMBERS = [np.dtype(name) for name in FORMATS if name != "bool"]
BITS = np.array([1, 0, 0, 1, 1, 0, 1, 1, 1, 0, 1], bool)


@pytest.fixture(params=[ArrowArray, ArrowStream])
def make(request: pytest.FixtureRequest) -> Any:
    return request.param


def numbers(dtype: Any = np.float32, size: int = 6) -> np.ndarray[Any, Any]:
    return np.arange(size).astype(dtype)


def assert_released(column: Column, arrays: int = 1) -> None:
    expected = {"schema": 1, "array": arrays, "stream": int(isinstance(column, ArrowStream))}
    if column.released != expected:  # a traceback may still hold it
        gc.collect()
    assert column.released == expected


@pytest.mark.parametrize("dtype", NUMBERS, ids=str)
@pytest.mark.parametrize("offset", [0, 2])
def test_numbers_are_shared(make: Any, dtype: Any, offset: int) -> None:
    a = numbers(dtype)
    x = make([a], offset=offset)
    t = dlferry.asarray(x, readonly="share", copy=False)
    assert same_memory(t, a[offset:])
    assert np.array_equal(t.numpy(), a[offset:])
    assert x.released["array"] == 0
    del t
    assert_released(x)


def test_arrow_memory_is_read_only(make: Any) -> None:
    a = numbers()
    x = make([a])
    assert_fresh(dlferry.asarray(x), a)
    assert_released(x)
    for kwargs in ({"copy": False}, {"readonly": "error"}):
        with pytest.raises(dlferry.CopyRequired) as caught:
            dlferry.asarray(make([a]), **kwargs)
        assert caught.value.reasons == ("read-only",)


def test_a_cast(make: Any) -> None:
    x = make([numbers(np.int16)])
    t = dlferry.asarray(x, dtype=torch.float64)
    assert t.dtype == torch.float64 and t.tolist() == [0, 1, 2, 3, 4, 5]
    assert_released(x)


# --- booleans ---


@pytest.mark.parametrize("offset", range(10))
def test_packed_booleans_are_expanded(make: Any, offset: int) -> None:
    x = make([BITS], offset=offset)
    t = dlferry.asarray(x)
    assert t.dtype == torch.bool and t.tolist() == BITS[offset:].tolist()
    assert t.untyped_storage().resizable()
    assert_released(x)


def test_many_booleans(make: Any, rng: np.random.Generator) -> None:
    bits = rng.random(300_001) < 0.5
    assert np.array_equal(dlferry.asarray(make([bits], offset=3)).numpy(), bits[3:])
    t = dlferry.asarray(make([bits], offset=3), dtype=torch.float32)
    assert np.array_equal(t.numpy(), bits[3:].astype(np.float32))


def test_packed_booleans_cannot_be_shared(make: Any) -> None:
    x = make([BITS])
    with pytest.raises(dlferry.CopyRequired, match="packed") as caught:
        dlferry.asarray(x, copy=False, readonly="share")
    assert caught.value.reasons == ("sub-byte",)
    del caught
    assert_released(x)
    with pytest.raises(dlferry.CopyRequired) as caught:
        dlferry.asarray(make([BITS]), copy=False, dtype=torch.int8)
    assert caught.value.reasons == ("dtype", "read-only", "sub-byte")


# --- chunks ---


@pytest.mark.parametrize("dtype", [np.float32, np.uint16, np.bool_])
def test_chunks_are_joined(dtype: Any) -> None:
    chunks = [numbers(dtype, size) for size in (3, 1, 0, 5)]
    x = ArrowStream(chunks)
    t = dlferry.asarray(x)
    assert t.untyped_storage().resizable()
    assert np.array_equal(t.numpy(), np.concatenate(chunks))
    assert_released(x, arrays=4)
    t = dlferry.asarray(ArrowStream(chunks), dtype=torch.float64)
    assert np.array_equal(t.numpy(), np.concatenate(chunks))


def test_chunks_cannot_be_shared() -> None:
    with pytest.raises(dlferry.CopyRequired) as caught:
        dlferry.asarray(ArrowStream([numbers(), numbers()]), copy=False, readonly="share")
    assert caught.value.reasons == ("chunks",)
    with pytest.raises(dlferry.CopyRequired) as caught:
        dlferry.asarray(ArrowStream([BITS, BITS]), copy=False)
    assert caught.value.reasons == ("read-only", "sub-byte", "chunks")


def test_one_chunk_among_empty_ones_is_shared() -> None:
    a = numbers()
    x = ArrowStream([a[:0], a, a[:0]])
    assert same_memory(dlferry.asarray(x, readonly="share", copy=False), a)
    assert_released(x, arrays=3)


@pytest.mark.parametrize("chunks", [[], [numbers()[:0]], [numbers()[:0]] * 3])
def test_no_elements(chunks: Any) -> None:
    t = dlferry.asarray(ArrowStream(chunks), readonly="share")
    assert t.shape == (0,) and t.dtype == torch.float32


# --- what cannot be represented ---


@pytest.mark.parametrize("dtype", [np.float32, np.bool_])
@pytest.mark.parametrize("null_count", [1, -1])
def test_nulls_are_refused(make: Any, dtype: Any, null_count: int) -> None:
    x = make([numbers(dtype)], valid=[1, 1, 0, 1, 1, 1], null_count=null_count)
    with pytest.raises(dlferry.UnsupportedInput, match="fill_null") as caught:
        dlferry.asarray(x)
    del caught
    assert_released(x)


def test_nulls_outside_of_a_slice_do_not_count(make: Any) -> None:
    valid = [0, 0, 1, 1, 1, 1]
    t = dlferry.asarray(make([numbers()], offset=2, valid=valid), readonly="share")
    assert t.tolist() == [2, 3, 4, 5]


def test_a_null_in_a_later_chunk_is_refused() -> None:
    x = ArrowStream([numbers()] * 2, valid=[1] * 5 + [0])
    with pytest.raises(dlferry.UnsupportedInput, match="null"):
        dlferry.asarray(x)


OTHER_TYPES = {
    "n": "null", "z": "binary", "Z": "large_binary", "vz": "binary_view", "u": "string",
    "U": "large_string", "vu": "string_view", "d:19,10": "decimal", "d:19,10,256": "decimal",
    "w:42": "fixed_size_binary", "tiM": "interval", "tiD": "interval", "+l": "list",
    "+L": "large_list", "+vl": "list_view", "+vL": "list_view", "+s": "struct", "+m": "map",
    "+ud:0,1": "union", "+us:0,1": "union", "+r": "run_end_encoded", "??": r"'\?\?'",
}  # fmt: skip


@pytest.mark.parametrize("form", OTHER_TYPES)
@pytest.mark.parametrize("dtype", [None, torch.int64])
def test_other_types_are_refused_by_name(make: Any, form: str, dtype: Any) -> None:
    x = make([numbers()], format=form)
    with pytest.raises(dlferry.UnsupportedInput, match=f"type {OTHER_TYPES[form]} ") as caught:
        dlferry.asarray(x, dtype=dtype)
    del caught
    if not x.released["schema"]:
        gc.collect()
    assert x.released["schema"] == 1


def test_an_extension_type_is_refused_by_name(make: Any) -> None:
    def text(value: bytes) -> bytes:
        return struct.pack("i", len(value)) + value

    pairs = [b"unit", b"mm", b"ARROW:extension:name", b"arrow.uuid"]
    metadata = struct.pack("i", 2) + b"".join(map(text, pairs))
    with pytest.raises(dlferry.UnsupportedInput, match=r"extension<arrow\.uuid>"):
        dlferry.asarray(make([numbers()], metadata=metadata))
    metadata = struct.pack("i", 1) + b"".join(map(text, pairs[:2]))
    assert dlferry.asarray(make([numbers()], metadata=metadata)).shape == (6,)


TIMES = {
    "tdD": ("date32", np.int32), "tdm": ("date64", np.int64), "tts": ("time32", np.int32),
    "ttm": ("time32", np.int32), "ttu": ("time64", np.int64), "ttn": ("time64", np.int64),
    "tss:": ("timestamp", np.int64), "tsn:Europe/Paris": ("timestamp", np.int64),
    "tDm": ("duration", np.int64),
}  # fmt: skip


@pytest.mark.parametrize("form", TIMES)
def test_times_are_counts_when_a_dtype_is_named(make: Any, form: str) -> None:
    title, dtype = TIMES[form]
    a = numbers(dtype)
    own = torch.from_numpy(a).dtype
    with pytest.raises(dlferry.UnsupportedInput, match=f"type {title} .*dtype={own}"):
        dlferry.asarray(make([a], format=form))
    t = dlferry.asarray(make([a], format=form), dtype=own, readonly="share", copy=False)
    assert same_memory(t, a)
    assert dlferry.asarray(make([a], format=form), dtype=torch.float64).tolist() == a.tolist()


# --- malformed exports ---


@pytest.mark.parametrize("fields", [{"n_buffers": 1}, {"n_buffers": 3}, {"data": None}])
def test_malformed_structures_are_buffer_errors(make: Any, fields: Any) -> None:
    x = make([numbers()], **fields)
    with pytest.raises(BufferError) as caught:
        dlferry.asarray(x)
    del caught
    assert_released(x)


def test_a_capsule_is_taken_once() -> None:
    class Twice(Column):
        def __arrow_c_array__(self) -> Any:
            self.capsules = self.capsules or list(self.pair())
            return tuple(self.capsules)

    x = Twice([numbers()])
    assert dlferry.asarray(x).shape == (6,)
    with pytest.raises(BufferError, match="released"):
        dlferry.asarray(x)
    assert_released(x)


def test_a_fixed_size_list_without_its_child_is_refused(make: Any) -> None:
    with pytest.raises(dlferry.UnsupportedInput):
        dlferry.asarray(make([numbers()], format="+w:2"))


@pytest.mark.parametrize("result", [None, 7, (), (1, 2), (1, 2, 3), "swapped"])
def test_something_else_than_capsules(result: Any) -> None:
    class Odd(Column):
        def __arrow_c_array__(self) -> Any:
            return self.pair()[::-1] if result == "swapped" else result

    with pytest.raises(BufferError):
        dlferry.asarray(Odd([numbers()]))


def test_a_failing_stream_says_why() -> None:
    x = ArrowStream([numbers()])
    x.error = 5
    with pytest.raises(BufferError, match="out of chunks") as caught:
        dlferry.asarray(x)
    del caught
    assert_released(x)
    with pytest.raises(BufferError, match="out of chunks"):
        dlferry.asarray(ArrowStream([numbers()], schema_error=22))


class Declines(ArrowStream):
    def __init__(self, error: Exception) -> None:
        super().__init__([numbers()])
        self.raised = error

    def __arrow_c_array__(self) -> Any:
        raise self.raised


def test_a_declined_array_hands_over_to_the_stream() -> None:
    assert dlferry.asarray(Declines(BufferError())).shape == (6,)
    assert dlferry.asarray(Declines(NotImplementedError())).shape == (6,)
    with pytest.raises(RuntimeError, match="broken"):
        dlferry.asarray(Declines(RuntimeError("broken")))


# --- lifetime ---


def test_the_last_tensor_releases_on_any_thread() -> None:
    x = ArrowArray([numbers()])
    kept = [dlferry.asarray(x, readonly="share")]
    kept.append(kept[0][2:])
    del kept[0]
    gc.collect()
    assert x.released["array"] == 0
    thread = threading.Thread(target=kept.clear)
    thread.start()
    thread.join()
    assert_released(x)


def test_columns_inside_lists() -> None:
    t = dlferry.asarray([ArrowArray([numbers()]), ArrowStream([numbers()[:2], numbers()[2:]])])
    assert t.shape == (2, 6) and torch.equal(t[0], t[1])
