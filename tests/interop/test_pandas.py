"""pandas: series, indexes and frames, by their own `to_numpy`."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest
import torch

import dlferry


def same(t: torch.Tensor, a: np.ndarray[Any, Any]) -> bool:
    return t.data_ptr() == a.__array_interface__["data"][0]


@pytest.mark.parametrize("index", [None, ["a", "b", "c"], [2, 1, 0]])
def test_a_series_is_shared_whatever_its_index(index: Any) -> None:
    x = pd.Series([1.0, np.nan, 3.0], index=index)
    t = dlferry.asarray(x, readonly="share", copy=False)
    assert same(t, x.to_numpy())
    assert np.array_equal(t.numpy(), [1, np.nan, 3], equal_nan=True)


def test_the_policy_is_that_of_the_array() -> None:
    x = pd.Series([1, 2, 3])
    t = dlferry.asarray(x)
    assert same(t, x.to_numpy()) == x.to_numpy().flags.writeable
    assert not same(dlferry.asarray(x, copy=True), x.to_numpy())


@pytest.mark.parametrize("x", [pd.Index([1, 2]), pd.RangeIndex(3)], ids=repr)
def test_an_index_is_immutable(x: Any) -> None:
    before, writeable = list(x), x.to_numpy().flags.writeable
    t = dlferry.asarray(x)
    t.zero_()
    assert list(x) == before
    with pytest.raises(dlferry.CopyRequired) as caught:
        dlferry.asarray(x, copy=False)
    assert caught.value.reasons == ("read-only",)
    assert same(dlferry.asarray(x, readonly="share"), x.to_numpy())
    assert x.to_numpy().flags.writeable == writeable


def test_a_frame_of_one_dtype_is_shared() -> None:
    a = np.arange(6.0).reshape(3, 2)
    x = pd.DataFrame(a, columns=["a", "b"])
    t = dlferry.asarray(x, readonly="share", copy=False)
    assert np.array_equal(t.numpy(), a) and same(t, x.to_numpy())


def test_a_frame_of_several_dtypes_is_a_copy() -> None:
    x = pd.DataFrame({"a": [1, 2], "b": [0.5, 1.5]})
    assert dlferry.asarray(x).tolist() == [[1, 0.5], [2, 1.5]]
    with pytest.raises(dlferry.CopyRequired) as caught:
        dlferry.asarray(x, copy=False)
    assert caught.value.reasons == ("producer copy",)


@pytest.mark.parametrize(
    ("dtype", "expected"),
    [
        ("Int64", torch.int64),
        ("UInt8", torch.uint8),
        ("Float32", torch.float32),
        ("boolean", torch.bool),
        ("int16[pyarrow]", torch.int16),
        ("float64[pyarrow]", torch.float64),
        ("bool[pyarrow]", torch.bool),
    ],
)
def test_nullable_columns(dtype: str, expected: torch.dtype) -> None:
    x = pd.Series([1, 0, 1], dtype=dtype)
    t = dlferry.asarray(x)
    assert t.dtype == expected and t.tolist() == [1, 0, 1]
    assert dlferry.asarray(x.array).tolist() == [1, 0, 1]
    missing = pd.Series([1, None, 1], dtype=dtype)
    for column in (missing, missing.array, missing.to_frame("a"), [missing]):
        with pytest.raises(dlferry.UnsupportedInput, match="missing"):
            dlferry.asarray(column)


def test_categories() -> None:
    x = pd.Series(pd.Categorical([3, 4, 3]))
    assert dlferry.asarray(x).tolist() == [3, 4, 3]
    with pytest.raises(dlferry.UnsupportedInput, match="missing"):
        dlferry.asarray(pd.Series(pd.Categorical([3, None])))


def test_times_are_counts_when_a_dtype_is_named() -> None:
    x = pd.Series(np.array([1, 2], "M8[s]"))
    assert dlferry.asarray(x, dtype=torch.int64).tolist() == [1, 2]
    with pytest.raises(dlferry.UnsupportedInput, match="int64"):
        dlferry.asarray(x)


@pytest.mark.parametrize(
    "x",
    [
        pd.Series(["a", "b"]),
        pd.Series([1, "b"]),
        pd.Series(["a"], dtype=pd.ArrowDtype(pa.string())),
        pd.Series(np.array([1], "M8[s]")).dt.tz_localize("UTC"),
        pd.DataFrame({"a": [1], "b": ["x"]}),
        pd.MultiIndex.from_tuples([(1, 2)]),
        pd.Timestamp(0),
    ],
    ids=lambda x: type(x).__name__,
)
def test_objects_are_unsupported(x: Any) -> None:
    with pytest.raises(dlferry.UnsupportedInput):
        dlferry.asarray(x)


def test_sparse_columns_are_made_dense() -> None:
    x = pd.Series(pd.arrays.SparseArray([1.0, np.nan, 3.0]))
    assert np.array_equal(dlferry.asarray(x).numpy(), [1, np.nan, 3], equal_nan=True)


def test_round_trip() -> None:
    x = pd.DataFrame({"a": [1.0, 2.0], "b": [3.0, 4.0]})
    back = pd.DataFrame(dlferry.to_numpy(dlferry.asarray(x)), columns=x.columns)
    pd.testing.assert_frame_equal(back, x)
    series = pd.Series([1, 2], dtype="int32")
    pd.testing.assert_series_equal(pd.Series(dlferry.to_numpy(series)), series)
