"""pyarrow: arrays, chunked arrays, buffers and tensors."""

from __future__ import annotations

import gc
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
import torch

import dlferry

NUMBERS = [
    pa.int8(), pa.int16(), pa.int32(), pa.int64(), pa.uint8(), pa.uint16(), pa.uint32(),
    pa.uint64(), pa.float16(), pa.float32(), pa.float64(),
]  # fmt: skip


def array(kind: pa.DataType = NUMBERS[-1]) -> pa.Array:
    return pa.array(np.arange(6).astype(kind.to_pandas_dtype()))


def address(x: pa.Array) -> int:
    return int(x.buffers()[1].address) + x.offset * x.type.bit_width // 8


@pytest.mark.parametrize("kind", NUMBERS, ids=str)
@pytest.mark.parametrize("make", [lambda x: x, lambda x: pa.chunked_array([x]), lambda x: x[2:]])
def test_numbers_are_shared_when_asked(kind: Any, make: Any) -> None:
    x = make(array(kind))
    first = x.chunk(0) if isinstance(x, pa.ChunkedArray) else x
    t = dlferry.asarray(x, readonly="share", copy=False)
    assert t.data_ptr() == address(first)
    assert np.array_equal(t.numpy(), x.to_numpy())
    assert dlferry.asarray(x).data_ptr() != address(first)
    with pytest.raises(dlferry.CopyRequired) as caught:
        dlferry.asarray(x, copy=False)
    assert caught.value.reasons == ("read-only",)


def test_from_dlpack() -> None:
    x = array()
    assert dlferry.from_dlpack(x, readonly="share").data_ptr() == address(x)
    with pytest.raises(BufferError, match="declined to export"):
        dlferry.from_dlpack(pa.array([True]))


@pytest.mark.parametrize("start", [0, 1, 7, 8, 13])
def test_booleans_are_expanded(start: int) -> None:
    values = [bool(i % 3) for i in range(40)]
    x = pa.array(values)[start:33]
    t = dlferry.asarray(x)
    assert t.dtype == torch.bool and t.tolist() == values[start:33]
    with pytest.raises(dlferry.CopyRequired) as caught:
        dlferry.asarray(x, copy=False, readonly="share")
    assert caught.value.reasons == ("sub-byte",)


def test_chunks_are_joined() -> None:
    x = pa.chunked_array([[1, 2], [], [3]])
    assert dlferry.asarray(x).tolist() == [1, 2, 3]
    assert dlferry.asarray(x, dtype=torch.float32).tolist() == [1, 2, 3]
    with pytest.raises(dlferry.CopyRequired) as caught:
        dlferry.asarray(x, copy=False, readonly="share")
    assert caught.value.reasons == ("chunks",)
    column = pa.table({"a": x})["a"]
    assert dlferry.asarray(column).tolist() == [1, 2, 3]


@pytest.mark.parametrize(
    "x",
    [
        pa.array([1, None, 3]),
        pa.array([True, None]),
        pa.chunked_array([[1.0], [None, 2.0]]),
        pa.array([[1, 2], None, [3, None]], pa.list_(pa.int8(), 2)),
    ],
    ids=lambda x: str(x.type),
)
def test_nulls_are_refused(x: Any) -> None:
    with pytest.raises(dlferry.UnsupportedInput, match="null"):
        dlferry.asarray(x)
    with pytest.raises(dlferry.UnsupportedInput, match="null"):
        dlferry.asarray([x])


def test_nulls_outside_of_a_slice_do_not_count() -> None:
    assert dlferry.asarray(pa.array([None, 1, 2])[1:]).tolist() == [1, 2]
    assert dlferry.asarray(pa.array([None, True, False])[1:]).tolist() == [True, False]


def test_not_a_number_is_a_number() -> None:
    assert torch.isnan(dlferry.asarray(pa.array([1.0, np.nan])))[1]


def test_fixed_size_lists_have_inner_axes() -> None:
    x = pa.array([[[1, 2], [3, 4]], [[5, 6], [7, 8]]], pa.list_(pa.list_(pa.int16(), 2), 2))
    assert dlferry.asarray(x).tolist() == x.to_pylist()
    assert dlferry.asarray(x[1:]).tolist() == x[1:].to_pylist()
    flags = pa.array([[True, False, True], [False, False, True]], pa.list_(pa.bool_(), 3))
    assert dlferry.asarray(flags[1:]).tolist() == flags[1:].to_pylist()


def test_fixed_shape_tensors_keep_their_shape() -> None:
    a = np.arange(12.0).reshape(2, 3, 2)
    t = dlferry.asarray(pa.FixedShapeTensorArray.from_numpy_ndarray(a), readonly="share")
    assert np.array_equal(t.numpy(), a)


@pytest.mark.parametrize(
    ("x", "match"),
    [
        (pa.array(["a"]), "string"),
        (pa.array(["a"]).dictionary_encode(), "dictionary"),
        (pa.array([b"a"]), "binary"),
        (pa.array([[1, 2], [3]]), "list"),
        (pa.array([{"a": 1}]), "struct"),
        (pa.nulls(3), "null"),
        (pa.array([1], pa.decimal128(10, 2)), "decimal"),
        (pa.table({"a": [1]}), "struct"),
        (pa.record_batch({"a": [1]}), "struct"),
        (pa.array([1], pa.date32()), "int32"),
        (pa.array([1], pa.timestamp("us")), "int64"),
        (pa.scalar(1.0), "protocols"),
    ],
    ids=lambda x: str(getattr(x, "type", "")),
)
def test_other_types_are_refused_by_name(x: Any, match: str) -> None:
    with pytest.raises(dlferry.UnsupportedInput, match=match):
        dlferry.asarray(x)


@pytest.mark.parametrize(
    ("kind", "dtype"),
    [
        (pa.date32(), torch.int32),
        (pa.timestamp("s"), torch.int64),
        (pa.timestamp("ns", "UTC"), torch.int64),
        (pa.duration("ms"), torch.int64),
    ],
    ids=str,
)
def test_times_are_counts_when_a_dtype_is_named(kind: Any, dtype: torch.dtype) -> None:
    x = pa.array([1, 2], kind)
    t = dlferry.asarray(x, dtype=dtype, readonly="share", copy=False)
    assert t.tolist() == [1, 2] and t.data_ptr() == address(x)


def test_buffers_and_tensors_are_memory_of_their_own_kind() -> None:
    a = np.arange(6.0).reshape(2, 3)
    x = pa.Tensor.from_numpy(a)
    assert dlferry.asarray(x).data_ptr() == a.ctypes.data
    buffer = pa.py_buffer(bytearray(b"ab"))
    assert dlferry.asarray(buffer, copy=False).data_ptr() == buffer.address


def test_round_trip() -> None:
    x = array(pa.float32())
    t = dlferry.asarray(x, readonly="share")
    assert pa.array(dlferry.to_numpy(t)).equals(x)
    column = pa.chunked_array([x, x])
    assert pa.array(dlferry.to_numpy(column)).equals(column.combine_chunks())


def test_the_memory_goes_with_the_last_tensor_on_any_thread(tmp_path: Path) -> None:
    pool = pa.proxy_memory_pool(pa.default_memory_pool())
    size = 1 << 20
    x = pa.chunked_array([pa.array(range(size // 8), memory_pool=pool)])
    kept = [dlferry.asarray(x, readonly="share", copy=False)]
    del x
    gc.collect()
    assert pool.bytes_allocated() >= size
    thread = threading.Thread(target=kept.clear)
    thread.start()
    thread.join()
    assert pool.bytes_allocated() == 0


def test_a_file_in_arrows_format(tmp_path: Path) -> None:
    path = str(tmp_path / "x.arrow")
    table = pa.table({"a": pa.array(np.arange(1000.0)), "flag": [True, False] * 500})
    with pa.OSFile(path, "wb") as file, pa.ipc.new_file(file, table.schema) as writer:
        writer.write_table(table)
    with pa.memory_map(path) as source:
        read = pa.ipc.open_file(source).read_all()
    t = dlferry.asarray(read["a"], readonly="share", copy=False)
    assert t.sum() == 499500
    assert dlferry.asarray(read["flag"]).sum() == 500


@pytest.mark.parametrize("expression", ["pa.array([1.0])", "pa.chunked_array([[1.0]])"])
def test_a_tensor_may_outlive_the_interpreter(expression: str) -> None:
    script = f"import pyarrow as pa, dlferry; t = dlferry.asarray({expression}, readonly='share')"
    command = [sys.executable, "-W", "error", "-c", f"{script}\nimport torch; torch.kept = t"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)
    assert (done.returncode, done.stderr) == (0, "")
