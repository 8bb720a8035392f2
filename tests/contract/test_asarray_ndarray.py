"""asarray of ndarrays: every dtype, every layout, and what cannot be shared."""

from __future__ import annotations

import warnings
from typing import Any

import numpy as np
import pytest
import torch
from kinds import (
    ALL_TO_TORCH,
    FOREIGN_ORDER,
    ML_TO_TORCH,
    NUMPY_TO_TORCH,
    TORCH_DTYPES,
    cast,
    name,
    reference,
    sample,
)
from numpy.lib.stride_tricks import as_strided
from regions import assert_fresh, assert_same_values, misaligned, overlaps, same_memory

import dlferry


def grid(kind: Any = np.float32) -> np.ndarray[Any, Any]:
    return np.arange(24).astype(kind).reshape(4, 6)


def record(**fields: Any) -> np.ndarray[Any, Any]:
    """A structured array of four rows, each field counting from one."""
    out = np.zeros(4, dtype=list(fields.items()))
    for field in fields:
        out[field] = np.arange(1, 5)
    return out


# Everything a torch tensor can represent.
SHAREABLE: dict[str, Any] = {
    "contiguous": grid,
    "0-d": lambda: np.array(2.5),
    "transposed": lambda: grid().T,
    "fortran order": lambda: np.asfortranarray(grid()),
    "permuted": lambda: np.arange(24.0).reshape(2, 3, 4).transpose(2, 0, 1),
    "sliced": lambda: grid()[1:, ::2],
    "overlapping windows": lambda: as_strided(np.arange(8.0), (5, 4), (8, 8)),
    "broadcast": lambda: as_strided(np.arange(3.0), (4, 3), (0, 8)),
    "field view": lambda: record(a="f4", b="f4", c="i8")["b"],
    "length-1 axis, odd stride": lambda: as_strided(np.arange(3.0), (1, 3), (7, 8)),
    "length-1 axis, negative stride": lambda: as_strided(np.arange(3.0), (1, 3), (-8, 8)),
    "one element, reversed": lambda: np.array([5.0])[::-1],
    "one row, reversed": lambda: grid()[2:3][::-1],
    "matrix column": lambda: grid()[:, 1:2],
    "new axes": lambda: grid()[None, :, None],
    "many axes": lambda: np.zeros((1,) * 40 + (2,)),
}
EMPTY = [(0,), (3, 0), (0, 3), (2, 0, 4)]
COPY_REASONS: dict[str, tuple[Any, set[str]]] = {
    "reversed": (lambda: grid()[::-1], {"strides"}),
    "mirrored": (lambda: grid()[:, ::-1], {"strides"}),
    "rotated": (lambda: np.rot90(grid()), {"strides"}),
    "both axes reversed": (lambda: grid()[::-1, ::-2], {"strides"}),
    "reversed, broadcast": (lambda: as_strided(np.arange(3.0)[2:], (2, 3), (0, -8)), {"strides"}),
    "misaligned": (lambda: misaligned(grid()), {"alignment"}),
    "misaligned 0-d": (lambda: misaligned(np.array(2.5)), {"alignment"}),
    "foreign order": (lambda: grid(">f4"), {"byte order"}),
    "foreign 0-d": (lambda: np.array(2.5, ">f8"), {"byte order"}),
    "foreign, reversed": (lambda: grid(">i4")[::-1], {"byte order", "strides"}),
    "foreign, misaligned": (lambda: misaligned(grid(">i4")), {"byte order", "alignment"}),
}


@pytest.mark.parametrize("kind", ALL_TO_TORCH, ids=name)
@pytest.mark.parametrize("copy", [None, False])
def test_every_dtype_is_shared(kind: Any, copy: bool | None) -> None:
    a = sample(kind)
    t = dlferry.asarray(a, copy=copy)
    assert type(t) is torch.Tensor and not t.requires_grad and t.device.type == "cpu"
    assert t.dtype == ALL_TO_TORCH[kind]
    assert same_memory(t, a)
    assert_same_values(t, reference(a))


@pytest.mark.parametrize("kind", ALL_TO_TORCH, ids=name)
def test_every_dtype_is_copied(kind: Any) -> None:
    a = sample(kind)
    t = dlferry.asarray(a, copy=True)
    assert_fresh(t, a)
    assert_same_values(t, reference(a))


@pytest.mark.parametrize("kind", ML_TO_TORCH, ids=name)
def test_ml_dtypes_keep_every_bit_pattern(kind: Any) -> None:
    raw = np.arange(256, dtype=np.uint8)
    t = dlferry.asarray(raw.view(kind))
    assert same_memory(t.view(torch.uint8), raw)
    copied = dlferry.asarray(raw.view(kind), copy=True)
    assert np.array_equal(copied.view(torch.uint8).numpy(), raw)


def test_writes_are_seen_on_both_sides() -> None:
    a = grid()
    t = dlferry.asarray(a)
    a[1, 2] = -7
    t[3, 4] = 99
    assert t[1, 2] == -7 and a[3, 4] == 99


@pytest.mark.parametrize("layout", SHAREABLE)
@pytest.mark.parametrize("copy", [None, False])
def test_what_torch_can_represent_is_shared(layout: str, copy: bool | None) -> None:
    a = SHAREABLE[layout]()
    assert a.flags.writeable
    t = dlferry.asarray(a, copy=copy)
    assert same_memory(t, a)
    assert np.array_equal(t.numpy(), a)
    for axis, length in enumerate(a.shape):
        if length > 1:
            assert t.stride(axis) * a.itemsize == a.strides[axis]


@pytest.mark.parametrize("layout", SHAREABLE)
@pytest.mark.parametrize("dtype", [None, torch.float16])
def test_every_layout_is_copied(layout: str, dtype: torch.dtype | None) -> None:
    a = SHAREABLE[layout]()
    t = dlferry.asarray(a, copy=True, dtype=dtype)
    assert_fresh(t, a)
    assert np.array_equal(t.numpy(), a.astype(np.float16) if dtype else a)


@pytest.mark.parametrize("shape", EMPTY)
@pytest.mark.parametrize("kind", ALL_TO_TORCH, ids=name)
def test_empty_arrays_keep_shape_and_dtype(shape: tuple[int, ...], kind: Any) -> None:
    for copy in (None, True, False):
        t = dlferry.asarray(np.empty(shape, kind), copy=copy)
        assert tuple(t.shape) == shape and t.dtype == ALL_TO_TORCH[kind]
        assert t.numel() == 0


def test_an_empty_reversed_array_is_no_trouble() -> None:
    for a in (np.arange(4.0)[::-1][:0], np.empty((0, 3))[:, ::-1], np.empty((3, 0), ">f4")):
        assert tuple(dlferry.asarray(a).shape) == a.shape


@pytest.mark.parametrize("case", COPY_REASONS)
@pytest.mark.parametrize("dtype", [None, torch.float64, torch.int32])
@pytest.mark.parametrize("copy", [None, True])
def test_what_torch_cannot_represent_is_copied(
    case: str, dtype: torch.dtype | None, copy: bool | None
) -> None:
    a = COPY_REASONS[case][0]()
    t = dlferry.asarray(a, dtype=dtype, copy=copy)
    native = np.array(a, dtype=a.dtype.newbyteorder("="))
    want = torch.from_numpy(native) if native.shape else torch.tensor(native)
    assert_same_values(t, want if dtype is None else want.to(dtype))
    assert_fresh(t, a)


@pytest.mark.parametrize("case", COPY_REASONS)
def test_sharing_is_refused_with_every_reason(case: str) -> None:
    make, reasons = COPY_REASONS[case]
    with pytest.raises(dlferry.CopyRequired) as caught:
        dlferry.asarray(make(), copy=False)
    assert set(caught.value.reasons) == reasons
    with pytest.raises(dlferry.CopyRequired) as caught:
        dlferry.asarray(make(), copy=False, dtype=torch.complex128)
    assert set(caught.value.reasons) == reasons | {"dtype"}


@pytest.mark.parametrize(
    ("fields", "aligned"),
    [({"b": "<f4", "a": "u1"}, True), ({"a": "u1", "b": "<f4"}, False)],
)
def test_strides_that_are_no_multiple_of_the_item_size(
    fields: dict[str, str], aligned: bool
) -> None:
    a = record(**fields)["b"]
    assert a.strides == (5,)
    t = dlferry.asarray(a)
    assert_fresh(t, a)
    assert t.tolist() == [1, 2, 3, 4]
    with pytest.raises(dlferry.CopyRequired) as caught:
        dlferry.asarray(a, copy=False)
    assert "strides" in caught.value.reasons
    assert aligned or "alignment" in caught.value.reasons


@pytest.mark.parametrize("kind", FOREIGN_ORDER, ids=name)
@pytest.mark.parametrize("layout", ["contiguous", "transposed", "sliced", "reversed"])
def test_foreign_byte_order(kind: Any, layout: str) -> None:
    native = grid(kind)
    a = native.astype(np.dtype(kind).newbyteorder("S"))
    views = {"contiguous": np.s_[:], "transposed": None, "sliced": np.s_[1:, ::2]}
    index = views.get(layout, np.s_[::-1])
    view, want = (a.T, native.T) if index is None else (a[index], native[index])
    t = dlferry.asarray(view)
    assert t.dtype == NUMPY_TO_TORCH[kind]
    assert_fresh(t, a)
    assert np.array_equal(t.numpy(), want)


def test_one_byte_items_have_no_byte_order() -> None:
    a = np.arange(4, dtype=">i1")
    assert same_memory(dlferry.asarray(a, copy=False), a)


# --- layout of copies ---


@pytest.mark.parametrize("layout", ["contiguous", "transposed", "fortran order", "permuted"])
@pytest.mark.parametrize("dtype", [None, torch.float64, torch.bfloat16])
def test_a_copy_keeps_the_strides_of_a_dense_source(layout: str, dtype: Any) -> None:
    a = SHAREABLE[layout]()
    t = dlferry.asarray(a, copy=True, dtype=dtype)
    assert [step * a.itemsize for step in t.stride()] == list(a.strides)


@pytest.mark.parametrize("layout", ["sliced", "overlapping windows", "broadcast", "field view"])
@pytest.mark.parametrize("dtype", [None, torch.complex128, torch.bfloat16])
def test_other_copies_are_contiguous(layout: str, dtype: Any) -> None:
    assert dlferry.asarray(SHAREABLE[layout](), copy=True, dtype=dtype).is_contiguous()


@pytest.mark.parametrize("case", ["reversed", "mirrored", "misaligned", "foreign order"])
def test_gathered_copies_are_contiguous(case: str) -> None:
    assert dlferry.asarray(COPY_REASONS[case][0]()).is_contiguous()


def test_a_foreign_copy_keeps_fortran_order() -> None:
    a = np.asfortranarray(grid(">f4"))
    assert dlferry.asarray(a).stride() == (1, 4)


# --- dtype= ---


@pytest.mark.parametrize("kind", ALL_TO_TORCH, ids=name)
@pytest.mark.parametrize("dtype", TORCH_DTYPES, ids=name)
def test_casts_are_torchs(kind: Any, dtype: torch.dtype) -> None:
    a = sample(kind, (5, 4))
    for view in (a, a[::2], a.T, a[::-1]):
        t = dlferry.asarray(view, dtype=dtype)
        assert_same_values(t, cast(reference(view), dtype))
        shares = dtype == ALL_TO_TORCH[kind] and min(view.strides) > 0
        assert overlaps(t, view) == shares


@pytest.mark.parametrize("kind", [np.float32, np.float64, np.float16, np.int32], ids=name)
@pytest.mark.parametrize(
    "dtype", [d for d in TORCH_DTYPES if d.is_floating_point or d.is_complex], ids=name
)
def test_casts_round_as_torch_rounds(
    kind: Any, dtype: torch.dtype, rng: np.random.Generator
) -> None:
    a = (rng.standard_normal(4000) * 10.0 ** rng.integers(-6, 3, 4000)).astype(kind)
    if dtype == torch.float8_e8m0fnu:
        a = np.abs(a) + a.dtype.type(1)
    assert_same_values(dlferry.asarray(a, dtype=dtype), cast(torch.from_numpy(a), dtype))


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float8_e5m2], ids=name)
def test_casts_of_special_values(dtype: torch.dtype) -> None:
    a = np.array([np.inf, -np.inf, np.nan, -0.0, 0.0, 1e-30, 1e30], np.float32)
    assert_same_values(dlferry.asarray(a, dtype=dtype), torch.from_numpy(a).to(dtype))


def test_casting_to_bool_asks_for_non_zero() -> None:
    a = np.array([0.0, -0.0, 0.25, np.nan, -3.0])
    assert dlferry.asarray(a, dtype=torch.bool).tolist() == [False, False, True, True, True]
    wide = np.array([0, 256, 2**32, -1])
    assert dlferry.asarray(wide, dtype=torch.bool).tolist() == [False, True, True, True]


def test_whole_numbers_wrap_as_in_c() -> None:
    a = np.array([256 + 7, -1, 2**31], np.int64)
    assert dlferry.asarray(a, dtype=torch.uint8).tolist() == [7, 255, 0]
    assert dlferry.asarray(a, dtype=torch.int32).tolist() == [263, -1, -(2**31)]


def test_imaginary_parts_are_dropped_without_a_warning() -> None:
    a = np.array([1 + 2j, 3 - 4j])
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert dlferry.asarray(a, dtype=torch.float64).tolist() == [1, 3]
        assert dlferry.asarray(a[::-1], dtype=torch.int64).tolist() == [3, 1]


def test_the_default_device_does_not_move_arrays() -> None:
    a = grid()
    torch.set_default_device("meta")
    assert same_memory(dlferry.asarray(a), a)
    for request_ in ({"copy": True}, {"dtype": torch.float64}):
        assert dlferry.asarray(a, **request_).device.type == "cpu"
    assert dlferry.asarray(a[::-1]).device.type == "cpu"


def test_another_device_goes_through_torch() -> None:
    t = dlferry.asarray(grid(), device="meta", dtype=torch.float64)
    assert t.device.type == "meta" and t.shape == (4, 6) and t.dtype == torch.float64


@pytest.mark.parametrize("copy", [None, True])
def test_requires_grad_of_an_array(copy: bool | None) -> None:
    a = grid()
    t = dlferry.asarray(a, requires_grad=True, copy=copy)
    assert t.requires_grad and t.is_leaf
    assert overlaps(t, a) == (copy is None)
    assert not dlferry.asarray(a, requires_grad=False).requires_grad
    assert dlferry.asarray(a, dtype=torch.float64, requires_grad=True).is_leaf


@pytest.mark.filterwarnings("ignore:ComplexHalf:UserWarning")  # torch's, once in a process
def test_complex32_is_reached_from_every_dtype() -> None:
    for kind in NUMPY_TO_TORCH:
        for x in (sample(kind), sample(kind)[:, ::-1], sample(kind, ())):
            t = dlferry.asarray(x, dtype=torch.complex32)
            assert t.dtype == torch.complex32
            assert np.array_equal(t.to(torch.complex64).numpy(), x.astype(np.complex64))
