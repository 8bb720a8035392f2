"""stack: arrays of one shape -> one tensor with a new leading axis."""

from __future__ import annotations

import inspect
from typing import Any

import numpy as np
import pytest
import torch
from forge import ArrayProducer
from kinds import ALL_TO_TORCH, name, reference, sample
from regions import assert_fresh, assert_same_values, misaligned

import dlferry


def test_signature() -> None:
    first, *rest = inspect.signature(dlferry.stack).parameters.values()
    assert first.kind is inspect.Parameter.POSITIONAL_ONLY
    assert all(p.kind is inspect.Parameter.KEYWORD_ONLY for p in rest)
    assert {p.name: p.default for p in rest} == {"dtype": None, "device": None, "out": None}
    assert "Example:" in (inspect.getdoc(dlferry.stack) or "")


@pytest.mark.parametrize("arguments", [(), ([[1]], 0), ([[1]], torch.int64)])
def test_the_number_of_arguments(arguments: tuple[Any, ...]) -> None:
    with pytest.raises(TypeError):
        dlferry.stack(*arguments)
    for keyword in ("dim", "axis", "copy", "arrays"):
        with pytest.raises(TypeError):
            dlferry.stack([np.ones(2)], **{keyword: None})


@pytest.mark.parametrize("kind", ALL_TO_TORCH, ids=name)
@pytest.mark.parametrize("wrap", [np.asarray, reference], ids=["ndarray", "tensor"])
def test_every_dtype(kind: Any, wrap: Any) -> None:
    a, b = sample(kind), sample(kind)[::-1].copy()
    t = dlferry.stack([wrap(a), wrap(b)])
    assert_same_values(t, torch.stack([reference(a), reference(b)]))
    assert_fresh(t, a)


@pytest.mark.parametrize("shape", [(), (1,), (0,), (2, 0), (3, 4), (2, 3, 4)])
@pytest.mark.parametrize("count", [1, 2, 5])
@pytest.mark.parametrize("container", [list, tuple])
def test_shapes(shape: tuple[int, ...], count: int, container: Any) -> None:
    arrays = [np.full(shape, i, np.float32) for i in range(count)]
    t = dlferry.stack(container(arrays))
    assert t.is_contiguous() and torch.equal(t, torch.from_numpy(np.stack(arrays)))
    assert t.untyped_storage().resizable() and not t.requires_grad


@pytest.mark.parametrize(
    ("arrays", "dtype"),
    [
        ([np.ones(2, np.uint8), torch.ones(2, dtype=torch.int8)], torch.int16),
        ([np.ones(2, np.uint16), np.ones(2, np.int16)], torch.int32),
        ([np.ones(2, np.float32), [1, 2]], torch.float32),
        ([np.ones(2, np.int64), [0.5, 1]], torch.float32),
        ([ArrayProducer(np.ones(2)), range(2), (True, 1j)], torch.complex128),
        ([np.float16(1), 2, torch.tensor(3)], torch.float16),
        ([bytearray(b"ab"), np.zeros(2, np.uint8)], torch.uint8),
    ],
)
def test_mixed_arrays_are_promoted_as_in_a_list(arrays: list[Any], dtype: torch.dtype) -> None:
    t = dlferry.stack(arrays)
    assert t.dtype == dtype
    assert_same_values(t, dlferry.asarray(arrays))


def test_any_layout_is_taken() -> None:
    a = np.arange(12, dtype=np.int32).reshape(3, 4)
    frozen = a.copy()
    frozen.flags.writeable = False
    arrays = [a, a[::-1], a[:, ::-1], np.asfortranarray(a), a.astype(">i4"), frozen, misaligned(a)]
    arrays.append(np.broadcast_to(a[0], (3, 4)))
    want = np.stack(arrays)
    assert np.array_equal(dlferry.stack(arrays).numpy(), want)
    out = torch.empty(want.shape, dtype=torch.float64)
    assert np.array_equal(dlferry.stack(arrays, out=out).numpy(), want)


@pytest.mark.parametrize("shape", [(4, 4), (300, 500), (1000, 900)])
def test_a_transposition(shape: tuple[int, int], rng: np.random.Generator) -> None:
    m = rng.standard_normal(shape).astype(np.float32)
    for matrix in (m.T, torch.from_numpy(m).T):
        t = dlferry.stack([matrix])
        assert t.is_contiguous() and np.array_equal(t[0].numpy(), m.T)


@pytest.mark.parametrize("shape", [(3, 64, 64), (700, 701), (5,)])
@pytest.mark.parametrize("dtype", [None, torch.float32, torch.bfloat16])
def test_large_stacks(
    shape: tuple[int, ...], dtype: torch.dtype | None, rng: np.random.Generator
) -> None:
    arrays = [rng.integers(0, 255, shape).astype(np.uint8) for _ in range(50)]
    arrays.append(np.ascontiguousarray(arrays[0].T).T)
    want = torch.from_numpy(np.stack(arrays)).to(dtype or torch.uint8)
    assert torch.equal(dlferry.stack(arrays, dtype=dtype), want)


def test_dtype_converts_as_torch_does() -> None:
    a = np.array([1.7, -1.7, 300.0])
    t = dlferry.stack([a, a], dtype=torch.int32)
    assert t.dtype == torch.int32 and t.tolist() == [[1, -1, 300]] * 2
    assert dlferry.stack([a], dtype=torch.bool).tolist() == [[True] * 3]
    z = np.array([1 + 2j])
    assert dlferry.stack([z], dtype=torch.float32).tolist() == [[1]]
    with pytest.raises(OverflowError):
        dlferry.stack([300, 1], dtype=torch.uint8)


@pytest.mark.parametrize(
    ("arrays", "place"),
    [
        ([np.zeros(2), np.zeros(3)], "arrays[1]"),
        ([np.zeros(2), np.zeros(2), np.zeros((2, 1))], "arrays[2]"),
        ([torch.zeros(2), [1.0]], "arrays[1]"),
        ([np.zeros(2), 1.0], "arrays[1]"),
        ([[np.zeros(2)] * 2, [np.zeros(2), np.zeros(1)]], "arrays[1][1]"),
    ],
)
def test_shapes_that_differ_name_the_place(arrays: list[Any], place: str) -> None:
    out = torch.full((2, 2), 7.0)
    for request in ({}, {"dtype": torch.float16}, {"out": out}):
        with pytest.raises(ValueError) as caught:
            dlferry.stack(arrays, **request)
        assert place in str(caught.value) and f"{place}[" not in str(caught.value)
    assert bool((out == 7).all())


@pytest.mark.parametrize(
    "arrays",
    [
        np.ones((2, 2)), torch.ones(2, 2), 1.5, np.float32(1), "ab", b"ab", {1: 2}, {1}, None,
        (x for x in [np.ones(2)]), object(), [None], ["a"], [object()], [np.array(["a"])],
    ],
    ids=lambda x: type(x).__name__,
)  # fmt: skip
def test_what_is_no_sequence_of_arrays_is_refused(arrays: Any) -> None:
    with pytest.raises(dlferry.UnsupportedInput):
        dlferry.stack(arrays)


@pytest.mark.parametrize("nothing", [[], (), range(0)])
def test_no_arrays_at_all(nothing: Any) -> None:
    with pytest.raises(ValueError, match="at least one"):
        dlferry.stack(nothing)


def test_numbers_and_nested_lists() -> None:
    assert dlferry.stack([1, 2]).dtype == torch.int64
    assert dlferry.stack(range(3)).tolist() == [0, 1, 2]
    assert dlferry.stack([[1, 2.5], [3, 4]]).tolist() == [[1, 2.5], [3, 4]]


# --- device ---


def test_arrays_stay_where_they_are() -> None:
    torch.set_default_device("meta")
    assert dlferry.stack([np.ones(2)]).device.type == "cpu"
    assert dlferry.stack([torch.ones(2, device="cpu")]).device.type == "cpu"
    assert dlferry.stack([np.ones(2), [1.0, 2.0]]).device.type == "cpu"
    assert dlferry.stack([1.0, 2.0]).device.type == "meta"
    assert dlferry.stack([1.0, 2.0], device="cpu").device.type == "cpu"


def test_tensors_elsewhere() -> None:
    far = torch.ones(2, 3, device="meta")
    t = dlferry.stack([far, far])
    assert t.device.type == "meta" and tuple(t.shape) == (2, 2, 3)
    with pytest.raises(ValueError, match=r"several devices \(cpu, meta\)"):
        dlferry.stack([far, np.ones((2, 3))])
    assert dlferry.stack([np.ones(2)], device="meta").device.type == "meta"
    with pytest.raises(ValueError, match="device"):
        dlferry.stack([np.ones(2)], device="nowhere")


# --- autograd ---


@pytest.mark.parametrize("dtype", [None, torch.float64])
def test_gradients_flow(dtype: torch.dtype | None) -> None:
    x = torch.ones(3, requires_grad=True)
    t = dlferry.stack([x, np.ones(3, np.float32), x * 3], dtype=dtype)
    assert t.requires_grad and t.dtype == (dtype or torch.float32)
    (t**2).sum().backward()
    assert x.grad is not None and x.grad.tolist() == [20.0] * 3


@pytest.mark.filterwarnings("ignore:.*torch.jit.script:DeprecationWarning")  # torch's own use
def test_forward_gradients_flow() -> None:
    forward = torch.autograd.forward_ad
    with forward.dual_level():
        dual = forward.make_dual(torch.ones(2), torch.full((2,), 3.0))
        for join in (dlferry.stack, dlferry.asarray):
            tangent = forward.unpack_dual(join([dual, dual])).tangent
            assert tangent is not None and tangent.tolist() == [[3, 3], [3, 3]]


def test_lazy_bits_are_resolved() -> None:
    z = torch.tensor([1 + 2j, 3 - 4j])
    assert dlferry.stack([z.conj(), z]).tolist() == [[1 - 2j, 3 + 4j], [1 + 2j, 3 - 4j]]
    assert dlferry.stack([z.conj().imag, z.imag]).tolist() == [[-2, 4], [2, -4]]


def test_inside_vmap() -> None:
    t = torch.arange(6.0).reshape(2, 3)
    out = torch.vmap(lambda row: dlferry.stack([row, row]) * 2)(t)
    assert torch.equal(out, torch.stack([t, t], 1) * 2)


# --- lifetimes ---


def test_a_leaf_that_empties_the_list_does_no_harm() -> None:
    class Evil(ArrayProducer):
        def __dlpack__(self, **request: Any) -> Any:
            home.clear()
            return super().__dlpack__(**request)

    home: list[Any] = []
    home.extend([np.ones(2), Evil(np.zeros(2)), np.ones(2)])
    assert dlferry.stack(home).tolist() == [[1, 1], [0, 0], [1, 1]]
