"""ndarray subclasses, NumPy scalars, and element types that torch does not have."""

from __future__ import annotations

import gc
import warnings
import weakref
from typing import Any

import ml_dtypes
import numpy as np
import pytest
import torch
from kinds import ALL_TO_TORCH, NUMPY_TO_TORCH, name
from regions import assert_fresh, same_memory

import dlferry

CONVERTERS = [dlferry.asarray, dlferry.from_dlpack]


class Tagged(np.ndarray[Any, Any]):
    """A plain subclass."""


def matrix() -> np.ndarray[Any, Any]:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", PendingDeprecationWarning)
        return np.matrix([[1.0, 2.0], [3.0, 4.0]])


SUBCLASSES: dict[str, Any] = {
    "view": lambda: np.arange(6.0).view(Tagged),
    "matrix": matrix,
    "recarray field": lambda: np.rec.array([(1, 2.0), (3, 4.0)], dtype="i8,f8").f1,
    "recarray of numbers": lambda: np.arange(6.0).view(np.recarray),
    "masked, no mask": lambda: np.ma.array([1.0, 2.0]),
    "masked, nothing masked": lambda: np.ma.array([1.0, 2.0], mask=[False, False]),
    "masked, empty": lambda: np.ma.array(np.empty(0), mask=np.empty(0, bool)),
}


@pytest.mark.parametrize("kind", SUBCLASSES)
@pytest.mark.parametrize("convert", CONVERTERS)
def test_subclasses_are_shared(kind: str, convert: Any) -> None:
    a = SUBCLASSES[kind]()
    data = np.asarray(a)
    t = convert(a)
    assert same_memory(t, data)
    assert np.array_equal(t.numpy(), data)
    assert same_memory(convert(a, copy=False), data)
    assert_fresh(convert(a, copy=True), data)


@pytest.mark.parametrize("copy", [None, True, False])
@pytest.mark.parametrize("convert", CONVERTERS)
@pytest.mark.parametrize(
    "a",
    [
        np.ma.array([1.0, 2.0], mask=[False, True]),
        np.ma.array([[1, 2], [3, 4]], mask=True),
        np.ma.masked_greater(np.arange(4), 2)[::-1],
        np.ma.array(np.array(1.0), mask=True),
    ],
    ids=["one", "all", "reversed", "0-d"],
)
def test_a_mask_never_vanishes(a: Any, convert: Any, copy: bool | None) -> None:
    with pytest.raises(dlferry.UnsupportedInput, match="mask"):
        convert(a, copy=copy)


def test_a_mask_does_not_vanish_in_a_cast_or_a_list() -> None:
    a = np.ma.array([1, 2], mask=[False, True])
    with pytest.raises(dlferry.UnsupportedInput, match="mask"):
        dlferry.asarray(a, dtype=torch.float32)
    with pytest.raises(dlferry.UnsupportedInput, match="mask"):
        dlferry.asarray([a, a])


# --- NumPy scalars ---


@pytest.mark.parametrize("kind", ALL_TO_TORCH, ids=name)
def test_scalars_keep_their_dtype(kind: Any) -> None:
    for copy in (None, True):
        t = dlferry.asarray(kind(2), copy=copy)
        assert t.dtype == ALL_TO_TORCH[kind] and t.shape == ()
        assert t.to(torch.complex128).item() == complex(kind(2))


def test_scalars_at_the_edges() -> None:
    assert dlferry.asarray(np.uint64(2**64 - 1)).item() == 2**64 - 1
    assert dlferry.asarray(np.int8(-128), dtype=torch.float32).item() == -128


@pytest.mark.parametrize("kind", [np.float32, np.bool_, np.uint64], ids=name)
def test_scalars_cannot_be_shared(kind: Any) -> None:
    with pytest.raises(dlferry.CopyRequired) as caught:
        dlferry.asarray(kind(1), copy=False)
    assert caught.value.reasons


def test_every_result_of_a_scalar_is_its_own_memory() -> None:
    x = np.float64(1.5)
    first, second = dlferry.asarray(x), dlferry.asarray(x)
    first.fill_(7)
    assert second.item() == x == 1.5


# --- element types that torch does not have ---

CONVERTIBLE: list[tuple[Any, torch.dtype]] = [
    (np.array([1.5, -2.25], np.longdouble), torch.float64),
    (np.array([1.5, -2.25], np.longdouble), torch.float32),
    (np.array([1.5, -2.25], np.longdouble), torch.int32),
    (np.array([1.5 - 2j], np.clongdouble), torch.complex128),
    (np.array(["2026-05-22", "1969-12-31"], "M8[D]"), torch.int64),
    (np.array([90, -3], "m8[s]"), torch.int64),
    (np.array(90, "m8[ms]"), torch.int64),
]


@pytest.mark.parametrize(("a", "dtype"), CONVERTIBLE)
@pytest.mark.parametrize("copy", [None, True])
def test_long_doubles_and_times_convert_when_told(
    a: Any, dtype: torch.dtype, copy: bool | None
) -> None:
    want = a.view(np.int64) if a.dtype.kind in "mM" else a.astype(NUMPY_NAMES[dtype])
    for view, values in ((a, want), (a.copy(order="F"), want), (a[..., None], want[..., None])):
        t = dlferry.asarray(view, dtype=dtype, copy=copy)
        assert t.dtype == dtype
        assert np.array_equal(t.numpy(), values)


NUMPY_NAMES = {torch_dtype: kind for kind, torch_dtype in NUMPY_TO_TORCH.items()}


def test_a_missing_time_is_its_raw_count() -> None:
    a = np.array(["NaT"], "M8[ns]")
    assert dlferry.asarray(a, dtype=torch.int64).item() == -(2**63)


@pytest.mark.parametrize("a", [a for a, _ in CONVERTIBLE])
@pytest.mark.parametrize("convert", CONVERTERS)
def test_long_doubles_and_times_are_refused_otherwise(a: Any, convert: Any) -> None:
    with pytest.raises(dlferry.UnsupportedInput, match=str(a.dtype).split("[")[0]) as caught:
        convert(a)
    if convert is dlferry.asarray:
        assert "dtype=" in str(caught.value)


@pytest.mark.parametrize("x", [np.longdouble(1), np.datetime64("2026"), np.timedelta64(1, "s")])
def test_scalars_of_those_kinds_too(x: Any) -> None:
    with pytest.raises(dlferry.UnsupportedInput):
        dlferry.asarray(x)
    assert dlferry.asarray(x, dtype=torch.int64).item() == x.astype(np.int64)


UNSUPPORTED: dict[str, Any] = {
    "bytes": lambda: np.array([b"ab"]),
    "str": lambda: np.array(["ab", "c"]),
    "variable str": lambda: np.array(["ab", "c"], np.dtypes.StringDType()),
    "object": lambda: np.array([1, None], object),
    "object numbers": lambda: np.array([1, 2], object),
    "void": lambda: np.zeros(2, "V8"),
    "structured": lambda: np.zeros(2, "i4,f4"),
    "recarray": lambda: np.rec.array([(1, 2.0)], dtype="i8,f8"),
    "empty object": lambda: np.empty(0, object),
    "0-d object": lambda: np.array({1}, object),
    "int4": lambda: np.array([1, 2], ml_dtypes.int4),
    "uint4": lambda: np.array([1, 2], ml_dtypes.uint4),
    "float4": lambda: np.array([1, 2], ml_dtypes.float4_e2m1fn),
    "float6": lambda: np.array([1, 2], ml_dtypes.float6_e2m3fn),
    "float8_e3m4": lambda: np.array([1, 2], ml_dtypes.float8_e3m4),
    "float8_e4m3b11fnuz": lambda: np.array([1, 2], ml_dtypes.float8_e4m3b11fnuz),
}


@pytest.mark.parametrize("kind", UNSUPPORTED)
@pytest.mark.parametrize("convert", CONVERTERS)
@pytest.mark.parametrize("copy", [None, True, False])
def test_other_element_types_are_refused_by_name(
    kind: str, convert: Any, copy: bool | None
) -> None:
    a = UNSUPPORTED[kind]()
    with pytest.raises(dlferry.UnsupportedInput) as caught:
        convert(a, copy=copy)
    words = {a.dtype.name, str(a.dtype), a.dtype.type.__name__, a.dtype.kind.upper()}
    assert any(word in str(caught.value) for word in words | {"structured", "string", "object"})


@pytest.mark.parametrize("kind", ["str", "bytes", "object", "structured", "void"])
def test_a_dtype_does_not_make_them_numbers(kind: str) -> None:
    with pytest.raises(dlferry.UnsupportedInput):
        dlferry.asarray(UNSUPPORTED[kind](), dtype=torch.float32)


@pytest.mark.parametrize(
    ("shape", "strides"),
    [
        ((3, 3), (2**61, 2**61)),
        ((2, 2), (2**62, 2**62)),
        ((2,), (-(2**62),)),
        ((3,), (-(2**63) + 8,)),
    ],
)
@pytest.mark.parametrize("copy", [None, False, True])
def test_memory_that_cannot_exist_is_refused(
    shape: tuple[int, ...], strides: tuple[int, ...], copy: bool | None
) -> None:
    # torch ends the process over some of these when they reach it through DLPack.
    array = np.lib.stride_tricks.as_strided(np.zeros(4), shape, strides)
    for convert in (dlferry.asarray, dlferry.from_dlpack):
        with pytest.raises(BufferError, match="as_strided"):
            convert(array, copy=copy)


@pytest.mark.parametrize("convert", CONVERTERS)
@pytest.mark.parametrize("kind", ["c8", "c16"])
def test_complex_numbers_whose_parts_alone_are_aligned_are_copied(kind: str, convert: Any) -> None:
    size = np.dtype(kind).itemsize
    block = np.arange(34, dtype=f"f{size // 2}")
    at = (block.ctypes.data // (size // 2)) % 2  # where a whole one would be aligned
    skewed, aligned = block[1 - at :][:32].view(kind), block[at:][:32].view(kind)
    assert aligned.ctypes.data % size == 0 and skewed.ctypes.data % size
    assert np.shares_memory(convert(aligned).numpy(), block)
    made = convert(skewed)
    assert not np.shares_memory(made.numpy(), block)
    assert made[::2].contiguous().tolist() == skewed[::2].tolist()
    with pytest.raises(dlferry.CopyRequired) as caught:
        dlferry.asarray(skewed, copy=False)
    assert caught.value.reasons == ("alignment",)
    out = np.zeros(4, kind)
    assert dlferry.to_numpy(np.broadcast_to(skewed[:1], (4,)), out=out) is out
    assert out.tolist() == [skewed[0]] * 4
    assert dlferry.stack([skewed, aligned])[0].tolist() == skewed.tolist()


class Frame(np.ndarray[Any, Any]):
    """An array of the user's own."""


@pytest.mark.parametrize("convert", CONVERTERS)
@pytest.mark.parametrize("kind", [np.ndarray, Frame])
def test_the_very_object_lives_as_long_as_the_tensor(kind: Any, convert: Any) -> None:
    pool = np.zeros((4, 3))
    row = pool[0].view(kind)
    gone = weakref.finalize(row, lambda: None)
    tensor = convert(row)
    del row
    gc.collect()
    assert gone.alive and tensor.data_ptr() == pool.ctypes.data
    del tensor
    gc.collect()
    assert not gone.alive
