"""to_numpy: what is shared, what is copied, and what comes in."""

from __future__ import annotations

import sys
from typing import Any

import numpy as np
import pytest
import torch
from kinds import ALL_TO_TORCH, ML_TO_TORCH, NUMPY_TO_TORCH, TORCH_DTYPES, cast, name, quantized
from regions import overlaps, same_memory

import dlferry

LAYOUTS: dict[str, Any] = {
    "contiguous": lambda t: t,
    "transposed": lambda t: t.t(),
    "sliced": lambda t: t[1:, ::2],
    "offset": lambda t: t[2:],
    "expanded": lambda t: t[:, :1].expand(4, 5),
    "0-d": lambda t: t[1, 1],
    "no rows": lambda t: t[:0],
    "no columns": lambda t: t[:, :0],
    "one column": lambda t: t[:, 1:2],
    "leaf": lambda t: t.requires_grad_(),
    "non-leaf": lambda t: t.requires_grad_() * 1,
    "parameter": torch.nn.Parameter,
    "subclass": lambda t: t.as_subclass(Tagged),
}
KIND_OF = {torch_dtype: kind for kind, torch_dtype in ALL_TO_TORCH.items()}


class Tagged(torch.Tensor):
    """A plain subclass."""


def grid() -> torch.Tensor:
    return torch.arange(24.0).reshape(4, 6)


def lazy() -> dict[str, tuple[torch.Tensor, list[Any], tuple[str, ...]]]:
    z = torch.tensor([1 + 2j, 3 - 4j])
    return {
        "conj": (z.conj(), [1 - 2j, 3 + 4j], ("conjugate",)),
        "neg": (z.conj().imag, [-2, 4], ("negative",)),
        "both": (torch._neg_view(z.conj()), [-1 + 2j, -3 - 4j], ("conjugate", "negative")),
    }


@pytest.mark.parametrize("dtype", TORCH_DTYPES, ids=name)
@pytest.mark.parametrize("copy", [None, False])
def test_every_dtype_is_shared(dtype: torch.dtype, copy: bool | None) -> None:
    t = cast(torch.tensor([[1.0, 2.0], [4.0, 8.0]]), dtype)
    a = dlferry.to_numpy(t, copy=copy)
    assert type(a) is np.ndarray and a.dtype == np.dtype(KIND_OF[dtype])
    assert same_memory(a, t)
    assert a.flags.writeable and not a.flags.owndata
    assert np.array_equal(a.astype(np.complex128), cast(t, torch.complex128).numpy())


@pytest.mark.parametrize("kind", ML_TO_TORCH, ids=name)
def test_small_floats_keep_every_bit_pattern(kind: Any) -> None:
    raw = torch.arange(256, dtype=torch.uint8)
    a = dlferry.to_numpy(raw.view(ML_TO_TORCH[kind]))
    assert a.dtype == np.dtype(kind)
    assert np.array_equal(a.view(np.uint8), np.arange(256))
    assert same_memory(a.view(np.uint8), raw)


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("copy", [None, False])
def test_every_layout_is_shared(layout: str, copy: bool | None) -> None:
    t = LAYOUTS[layout](grid())
    before = t.requires_grad
    a = dlferry.to_numpy(t, copy=copy)
    assert type(a) is np.ndarray and same_memory(a, t)
    assert np.array_equal(a, np.array(t.tolist(), np.float32).reshape(a.shape))
    assert t.requires_grad == before


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("dtype", [None, np.float32, np.float64])
def test_every_layout_is_copied(layout: str, dtype: Any) -> None:
    t = LAYOUTS[layout](grid())
    a = dlferry.to_numpy(t, copy=True, dtype=dtype)
    assert not overlaps(a, t) and a.dtype == (dtype or np.float32)
    assert np.array_equal(a, np.array(t.tolist(), np.float32).reshape(a.shape))
    assert a.flags.writeable


def test_a_copy_keeps_the_strides_of_a_dense_source() -> None:
    assert dlferry.to_numpy(grid().t(), copy=True).flags.f_contiguous
    assert dlferry.to_numpy(grid(), copy=True).flags.c_contiguous
    assert dlferry.to_numpy(grid()[:, ::2], copy=True).flags.c_contiguous


def test_writes_are_seen_on_both_sides() -> None:
    t = grid()
    a = dlferry.to_numpy(t)
    t[0, 0] = 42
    a[1, 1] = -42
    assert a[0, 0] == 42 and t[1, 1] == -42


@pytest.mark.parametrize("kind", ["conj", "neg", "both"])
def test_lazy_bits_are_resolved(kind: str) -> None:
    t, want, reasons = lazy()[kind]
    for copy in (None, True):
        a = dlferry.to_numpy(t, copy=copy)
        assert a.tolist() == want and not overlaps(a, t)
    with pytest.raises(dlferry.CopyRequired) as caught:
        dlferry.to_numpy(t, copy=False)
    assert set(caught.value.reasons) == set(reasons)
    with pytest.raises(dlferry.CopyRequired) as caught:
        dlferry.to_numpy(t, copy=False, dtype=np.complex128)
    assert set(caught.value.reasons) >= set(reasons)
    out = np.empty(2, t.resolve_conj().resolve_neg().numpy().dtype)
    assert dlferry.to_numpy(t, out=out) is out and out.tolist() == want


@pytest.mark.parametrize("source", TORCH_DTYPES, ids=name)
@pytest.mark.parametrize("target", ALL_TO_TORCH, ids=name)
def test_dtype_converts_as_torch_does(source: torch.dtype, target: Any) -> None:
    t = cast(torch.tensor([[1.0, 2.0], [4.0, 8.0]]), source)
    a = dlferry.to_numpy(t, dtype=target)
    assert a.dtype == np.dtype(target)
    want = cast(cast(t, ALL_TO_TORCH[target]), torch.complex128)
    assert np.array_equal(a.astype(np.complex128), want.numpy())
    assert overlaps(a, t) == (KIND_OF[source] is target)


@pytest.mark.parametrize("dtype", ["float64", "f8", np.float64, np.dtype("float64"), float])
def test_the_dtype_by_any_of_numpys_names(dtype: Any) -> None:
    assert dlferry.to_numpy(grid(), dtype=dtype).dtype == np.float64
    assert dlferry.to_numpy(torch.ones(2, dtype=torch.bfloat16), dtype=dtype).tolist() == [1, 1]


def test_a_cast_is_refused_under_copy_false() -> None:
    with pytest.raises(dlferry.CopyRequired) as caught:
        dlferry.to_numpy(grid(), dtype=np.float64, copy=False)
    assert caught.value.reasons == ("dtype",)
    assert same_memory(dlferry.to_numpy(t := grid(), dtype=np.float32, copy=False), t)


# --- out= ---


@pytest.mark.parametrize(
    "make",
    [
        lambda: np.empty((4, 6), np.float32),
        lambda: np.empty((6, 4), np.float32).T,
        lambda: np.empty((4, 12), np.float32)[:, ::2],
        lambda: np.empty((4, 6), np.float32)[::-1, ::-1],
        lambda: np.empty((4, 6), ">f4"),
        lambda: np.empty((4, 6), np.float64),
    ],
    ids=["plain", "fortran", "strided", "reversed", "foreign order", "wider"],
)
@pytest.mark.parametrize("layout", ["contiguous", "leaf"])
def test_out_receives_the_values(make: Any, layout: str) -> None:
    out = make()
    assert dlferry.to_numpy(LAYOUTS[layout](grid()), out=out) is out
    assert np.array_equal(out, grid().numpy())


@pytest.mark.parametrize("layout", ["transposed", "sliced", "expanded", "0-d", "no rows"])
def test_out_of_every_layout(layout: str) -> None:
    t = LAYOUTS[layout](grid())
    out = np.empty(tuple(t.shape), np.float32)
    assert dlferry.to_numpy(t, out=out) is out
    assert np.array_equal(out, t.numpy())


def test_out_over_the_tensors_own_memory() -> None:
    t = grid()
    a = t.numpy()
    assert dlferry.to_numpy(t, out=a[::-1]) is not None
    assert np.array_equal(a, np.arange(24).reshape(4, 6)[::-1])


def test_out_that_does_not_fit() -> None:
    frozen = np.empty((4, 6), np.float32)
    frozen.flags.writeable = False
    for out in (np.empty((6, 4), np.float32), np.empty(24, np.float32), frozen):
        with pytest.raises(ValueError):
            dlferry.to_numpy(grid(), out=out)
    for wrong in (grid(), [1.0] * 24, "out"):
        with pytest.raises(TypeError):
            dlferry.to_numpy(grid(), out=wrong)
    with pytest.raises((ValueError, TypeError)):
        dlferry.to_numpy(grid(), out=np.empty((4, 6), np.float32), copy=False)
    with pytest.raises((ValueError, TypeError)):
        dlferry.to_numpy(grid(), out=np.empty((4, 6), np.float32), dtype=np.float64)


# --- what comes in ---


def test_an_array_passes_through() -> None:
    a = np.arange(6.0).reshape(2, 3)
    assert dlferry.to_numpy(a) is a
    assert dlferry.to_numpy(a, copy=False, dtype=np.float64) is a
    copied = dlferry.to_numpy(a, copy=True)
    assert np.array_equal(copied, a) and not overlaps(copied, a)
    assert dlferry.to_numpy(a, dtype=np.float32).dtype == np.float32
    with pytest.raises(dlferry.CopyRequired) as caught:
        dlferry.to_numpy(a, dtype=np.float32, copy=False)
    assert caught.value.reasons == ("dtype",)
    out = np.empty((2, 3))
    assert dlferry.to_numpy(a, out=out) is out and np.array_equal(out, a)


UNSUPPORTED: dict[str, Any] = {
    "sparse": lambda: torch.eye(3).to_sparse(),
    "meta": lambda: torch.empty(3, device="meta"),
    "quantized": quantized,
    "complex32": lambda: cast(torch.ones(3), torch.complex32),
    "float4": lambda: torch.zeros(3, dtype=torch.uint8).view(torch.float4_e2m1fn_x2),
    "bits8": lambda: torch.zeros(3, dtype=torch.uint8).view(torch.bits8),
    "uint4": lambda: torch.empty(3, dtype=torch.uint4),
    "object": object,
    "None": lambda: None,
    "str": lambda: "abc",
}


@pytest.mark.parametrize("kind", UNSUPPORTED)
@pytest.mark.parametrize("copy", [None, True, False])
def test_what_numpy_cannot_hold_is_refused_by_name(kind: str, copy: bool | None) -> None:
    x = UNSUPPORTED[kind]()
    with pytest.raises(dlferry.UnsupportedInput) as caught:
        dlferry.to_numpy(x, copy=copy)
    words = {"sparse": "sparse", "meta": "meta", "quantized": "quantized", "None": "NoneType"}
    dtype = str(getattr(x, "dtype", type(x).__name__)).removeprefix("torch.")
    assert words.get(kind, dtype) in str(caught.value)


def test_complex32_converts_when_told() -> None:
    t = cast(torch.tensor([1 + 2j]), torch.complex32)
    assert dlferry.to_numpy(t, dtype=np.complex64).tolist() == [1 + 2j]


def test_an_inference_tensor() -> None:
    with torch.inference_mode():
        t = torch.ones(3)
    assert same_memory(dlferry.to_numpy(t), t)


@pytest.mark.parametrize("kind", NUMPY_TO_TORCH, ids=name)
def test_there_and_back_again(kind: Any) -> None:
    a = np.ones((2, 3), kind)
    back = dlferry.to_numpy(dlferry.asarray(a))
    assert back.dtype == a.dtype and same_memory(back, a)
    t = torch.ones(2, 3).to(NUMPY_TO_TORCH[kind])
    assert same_memory(dlferry.asarray(dlferry.to_numpy(t)), t)


def test_the_default_device_plays_no_part() -> None:
    t = grid()
    torch.set_default_device("meta")
    assert same_memory(dlferry.to_numpy(t), t)
    assert dlferry.to_numpy(t, copy=True, dtype=np.float64)[0, 1] == 1


@pytest.mark.parametrize(
    ("numbers", "dtype"),
    [
        ([0.1], "f8"), ([2**53 + 1, 0.5], "i8"), ([16777217.0], "i8"), ([1e300], "f8"),
        ([2**63], "u8"), ([0.1, 1e300], ">f8"),
    ],
)  # fmt: skip
def test_numbers_become_the_dtype_at_once(numbers: list[Any], dtype: str) -> None:
    expected = [int(n) if np.dtype(dtype).kind in "iu" else n for n in numbers]
    assert dlferry.to_numpy(numbers, dtype=dtype).tolist() == expected
    assert dlferry.to_numpy(numbers, out=np.empty(len(numbers), dtype)).tolist() == expected


def test_numbers_outside_of_the_dtype_are_refused() -> None:
    with pytest.raises(OverflowError):
        dlferry.to_numpy([300], dtype=np.uint8)
    out = np.zeros(1, np.uint8)
    with pytest.raises(OverflowError):
        dlferry.to_numpy([300], out=out)
    assert out[0] == 0


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float8_e5m2])
def test_float64_is_not_the_dtype_of_what_numpy_lacks(
    dtype: torch.dtype, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "ml_dtypes", None)
    tensor = torch.ones(2).to(dtype)
    for wanted in (np.float64, "d", torch.float64, np.float32):
        assert dlferry.to_numpy(tensor, dtype=wanted).tolist() == [1, 1]
    with pytest.raises(dlferry.CopyRequired):
        dlferry.to_numpy(tensor, dtype=np.float64, copy=False)


@pytest.mark.parametrize("order", ["<", ">"])
def test_out_whose_elements_share_memory_is_refused(order: str) -> None:
    view = np.lib.stride_tricks.as_strided
    for out in (
        view(np.zeros(1, f"{order}f8"), (3, 2), (0, 0)),
        view(np.zeros(4, f"{order}f8"), (3, 2), (8, 8)),
        view(np.zeros(9, f"{order}f8")[1:], (3, 2), (-4, 16)),
    ):
        with pytest.raises(ValueError, match="share memory"):
            dlferry.to_numpy(torch.arange(6.0).view(3, 2), out=out)
        assert not out.any()


def test_out_that_hides_elements_is_refused() -> None:
    out = np.ma.MaskedArray([1.0, 2.0], mask=[False, True])
    with pytest.raises(ValueError, match="masked"):
        dlferry.to_numpy(torch.ones(2), out=out)
    assert dlferry.to_numpy(torch.ones(2), out=out.data).tolist() == [1, 1]


@pytest.mark.parametrize("dtype", ["?", "u2", "u4", "u8", "i4"])
def test_the_negative_bit_is_resolved_before_a_cast(dtype: str) -> None:
    tensor = torch.tensor([1 - 5j, 2 - 3j]).conj().imag
    assert tensor.is_neg() and tensor.tolist() == [5, 3]
    expected = np.array([5, 3]).astype(dtype).tolist()
    assert dlferry.to_numpy(tensor, out=np.zeros(2, dtype)).tolist() == expected
    wanted = dlferry.asarray(np.zeros(1, dtype)).dtype
    assert dlferry.asarray([tensor, tensor], dtype=wanted).tolist() == [expected] * 2
    assert dlferry.stack([tensor], dtype=wanted).tolist() == [expected]
