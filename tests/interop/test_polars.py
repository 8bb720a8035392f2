"""polars: series, by Arrow."""

from __future__ import annotations

import gc
from typing import Any

import numpy as np
import polars as pl
import pytest
import torch

import dlferry

DTYPES = {
    pl.Int8: torch.int8, pl.Int16: torch.int16, pl.Int32: torch.int32, pl.Int64: torch.int64,
    pl.UInt8: torch.uint8, pl.UInt16: torch.uint16, pl.UInt32: torch.uint32,
    pl.UInt64: torch.uint64, pl.Float32: torch.float32, pl.Float64: torch.float64,
}  # fmt: skip


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_numbers_are_shared_when_asked(dtype: Any) -> None:
    x = pl.Series([1, 2, 3], dtype=dtype)
    t = dlferry.asarray(x, readonly="share", copy=False)
    assert t.dtype == DTYPES[dtype] and t.tolist() == [1, 2, 3]
    assert t.data_ptr() == x.to_numpy(allow_copy=False).__array_interface__["data"][0]
    assert dlferry.asarray(x).data_ptr() != t.data_ptr()
    with pytest.raises(dlferry.CopyRequired) as caught:
        dlferry.asarray(x, copy=False)
    assert caught.value.reasons == ("read-only",)


def test_booleans_are_expanded() -> None:
    values = [bool(i % 3) for i in range(20)]
    assert dlferry.asarray(pl.Series(values)).tolist() == values
    assert dlferry.asarray(pl.Series(values)[3:17]).tolist() == values[3:17]


def test_chunks_are_joined() -> None:
    x = pl.concat([pl.Series([1, 2]), pl.Series([3])], rechunk=False)
    assert x.n_chunks() == 2
    assert dlferry.asarray(x).tolist() == [1, 2, 3]
    with pytest.raises(dlferry.CopyRequired) as caught:
        dlferry.asarray(x, copy=False, readonly="share")
    assert caught.value.reasons == ("chunks",)


def test_nulls_are_refused_and_nan_is_a_number() -> None:
    for x in (pl.Series([1, None]), pl.Series([True, None]), pl.Series([1.0, None])):
        with pytest.raises(dlferry.UnsupportedInput, match="null"):
            dlferry.asarray(x)
    assert torch.isnan(dlferry.asarray(pl.Series([1.0, np.nan]))).tolist() == [False, True]


def test_arrays_have_inner_axes() -> None:
    x = pl.Series([[[1, 2], [3, 4]], [[5, 6], [7, 8]]], dtype=pl.Array(pl.Int16, (2, 2)))
    assert dlferry.asarray(x).tolist() == x.to_list()


@pytest.mark.parametrize(
    "x",
    [
        pl.Series(["a"]),
        pl.Series([[1], [2, 3]]),
        pl.Series(["a"], dtype=pl.Categorical),
        pl.Series([1]).cast(pl.Decimal(10, 2)),
        pl.Series([{"a": 1}]),
        pl.DataFrame({"a": [1]}),
        pl.Series([1]).cast(pl.Date),
        pl.Series([1]).cast(pl.Datetime("us")),
    ],
    ids=lambda x: str(getattr(x, "dtype", "frame")),
)
def test_other_types_are_refused(x: Any) -> None:
    with pytest.raises(dlferry.UnsupportedInput, match="Arrow array of type"):
        dlferry.asarray(x)


def test_times_are_counts_when_a_dtype_is_named() -> None:
    x = pl.Series([1, 2]).cast(pl.Datetime("us"))
    assert dlferry.asarray(x, dtype=torch.int64).tolist() == [1, 2]


def test_round_trip() -> None:
    x = pl.Series("a", [1.5, 2.5])
    t = dlferry.asarray(x, readonly="share")
    assert pl.Series("a", dlferry.to_numpy(t)).equals(x)


def test_the_series_lives_as_long_as_the_tensor() -> None:
    t = dlferry.asarray(pl.Series(range(10_000)), readonly="share")
    gc.collect()
    assert t.sum() == 49_995_000
