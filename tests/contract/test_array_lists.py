"""Lists of ndarrays, tensors and NumPy scalars: stacked, with shapes kept and dtypes promoted."""

from __future__ import annotations

import itertools
import warnings
from typing import Any

import numpy as np
import pytest
import torch
from forge import ArrayProducer
from kinds import ALL_TO_TORCH, NUMPY_TO_TORCH, name, reference, sample
from regions import assert_fresh, assert_same_values, misaligned

import dlferry

PAIRS = list(itertools.combinations_with_replacement(NUMPY_TO_TORCH, 2))


def promoted(a: Any, b: Any) -> torch.dtype:
    """torch's promotion, and NumPy's where torch has none."""
    try:
        return torch.promote_types(NUMPY_TO_TORCH[a], NUMPY_TO_TORCH[b])
    except RuntimeError:
        return NUMPY_TO_TORCH[np.promote_types(a, b).type]


@pytest.mark.parametrize(("a", "b"), PAIRS, ids=lambda k: k.__name__)
def test_dtypes_are_promoted(a: Any, b: Any) -> None:
    want = promoted(a, b)
    for pair in ([a(1), b(1)], [b(1), a(1)]):
        t = dlferry.asarray(pair)
        assert t.dtype == want and t.to(torch.complex128).tolist() == [1, 1]
    arrays = [sample(a), sample(b)]
    t = dlferry.asarray(arrays)
    assert t.dtype == want and tuple(t.shape) == (2, 3, 4)
    values = [x.astype(np.complex128) for x in arrays]
    assert np.array_equal(t.to(torch.complex128).numpy(), np.stack(values))


@pytest.mark.parametrize(
    ("x", "dtype"),
    [
        ([np.float32(1), np.float32(2)], torch.float32),
        ([np.float16(1), 2], torch.float16),
        ([np.float16(1), 1.0], torch.float32),
        ([np.uint8(255), np.int8(-1)], torch.int16),
        ([np.int8(1), True], torch.int8),
        ([np.float64(1), 1j], torch.complex128),
        ([[np.int32(1)], [2.5]], torch.float32),
        ([np.bool_(True), False], torch.bool),
    ],
)
def test_scalars_among_python_numbers_are_torchs(x: Any, dtype: torch.dtype) -> None:
    t = dlferry.asarray(x)
    assert t.dtype == dtype
    assert_same_values(t, torch.tensor(x))


def test_values_survive_promotion_beyond_torchs() -> None:
    t = dlferry.asarray([np.uint64(2**53), np.int64(-1)])
    assert t.dtype == torch.float64 and t.tolist() == [2.0**53, -1.0]
    assert dlferry.asarray([np.uint64(2**64 - 1)]).tolist() == [2**64 - 1]
    assert dlferry.asarray([np.uint32(2**32 - 1), np.int32(-1)]).tolist() == [2**32 - 1, -1]


@pytest.mark.parametrize("kind", ALL_TO_TORCH, ids=name)
@pytest.mark.parametrize("wrap", [np.asarray, torch.tensor, dlferry.asarray], ids=["np", "t", "d"])
def test_every_dtype_is_stacked(kind: Any, wrap: Any) -> None:
    a, b = sample(kind), sample(kind)[::-1].copy()
    parts = [reference(x) if wrap is torch.tensor else wrap(x) for x in (a, b)]
    t = dlferry.asarray(parts)
    assert_same_values(t, torch.stack([reference(a), reference(b)]))
    assert_fresh(t, a)


@pytest.mark.parametrize(
    "x",
    [
        lambda: [np.arange(3), [3, 4, 5]],
        lambda: [[0, 1, 2], np.arange(3, 6)],
        lambda: (torch.arange(3), np.arange(3, 6)),
        lambda: [range(3), torch.arange(3, 6)],
        lambda: [[np.int64(0), 1, torch.tensor(2)], [np.array(3), 4, 5]],
        lambda: [ArrayProducer(np.arange(3)), np.arange(3, 6)],
        lambda: [*np.arange(3).reshape(1, 3).tolist(), torch.arange(3, 6)],
    ],
)
def test_mixed_leaves(x: Any) -> None:
    t = dlferry.asarray(x())
    assert t.dtype == torch.int64 and t.tolist() == [[0, 1, 2], [3, 4, 5]]


@pytest.mark.parametrize("shape", [(), (1,), (1, 1), (0,), (2, 0), (3, 4)])
@pytest.mark.parametrize("count", [1, 3])
def test_shapes_are_kept(shape: tuple[int, ...], count: int) -> None:
    for parts in ([np.ones(shape)] * count, [torch.ones(shape).double()] * count):
        t = dlferry.asarray(parts)
        assert tuple(t.shape) == (count, *shape) and t.dtype == torch.float64
        assert bool((t == 1).all())
        nested = dlferry.asarray([parts, tuple(parts)])
        assert tuple(nested.shape) == (2, count, *shape)


def test_any_layout_can_be_a_leaf() -> None:
    a = np.arange(12, dtype=np.int32).reshape(3, 4)
    frozen = a.copy()
    frozen.flags.writeable = False
    leaves = [a, a[::-1], a[:, ::-1], np.asfortranarray(a), a.astype(">i4"), frozen, misaligned(a)]
    t = dlferry.asarray(leaves)
    assert t.dtype == torch.int32
    assert np.array_equal(t.numpy(), np.stack([np.asarray(x) for x in leaves]))
    wide = dlferry.asarray(leaves, dtype=torch.float64)
    assert wide.dtype == torch.float64 and np.array_equal(wide.numpy(), t.numpy())


def test_lazy_bits_of_leaves_are_resolved() -> None:
    z = torch.tensor([1 + 2j, 3 - 4j])
    t = dlferry.asarray([z.conj(), z])
    assert t.tolist() == [[1 - 2j, 3 + 4j], [1 + 2j, 3 - 4j]]
    assert dlferry.asarray([z.conj().imag, z.imag]).tolist() == [[-2, 4], [2, -4]]


@pytest.mark.parametrize("dtype", [None, torch.float64])
def test_tensors_that_require_grad_stay_differentiable(dtype: torch.dtype | None) -> None:
    x = torch.ones(3, requires_grad=True)
    y = torch.ones(3)
    for parts in ([x, y], [[x], [y]], (x, x * 2)):
        t = dlferry.asarray(parts, dtype=dtype)
        assert t.requires_grad and t.grad_fn is not None
        assert t.dtype == (dtype or torch.float32)
    x.grad = None
    (dlferry.asarray([x, y, x * 3], dtype=dtype) ** 2).sum().backward()
    assert torch.equal(x.grad, torch.full((3,), 20.0))
    assert not dlferry.asarray([x, y], requires_grad=False).requires_grad
    assert x.requires_grad and not y.requires_grad


def test_scalar_tensors_that_require_grad_stay_differentiable() -> None:
    x = torch.tensor(2.0, requires_grad=True)
    t = dlferry.asarray([x, 1.0, x * x])
    assert t.tolist() == [2, 1, 4] and t.requires_grad
    t.sum().backward()
    assert x.grad == 5


def test_a_long_list_of_arrays_warns_nobody(rng: np.random.Generator) -> None:
    parts = [rng.standard_normal((3, 8)).astype(np.float32) for _ in range(100)]
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        t = dlferry.asarray(parts)
    assert np.array_equal(t.numpy(), np.stack(parts))


def test_leaves_that_are_refused_alone_are_refused_in_a_list() -> None:
    for leaf in (
        np.array(["a"]),
        np.array([None]),
        np.zeros(2, "i4,f4"),
        np.ones(2, np.longdouble),
    ):
        with pytest.raises(dlferry.UnsupportedInput):
            dlferry.asarray([leaf, leaf])


def test_a_leaf_that_empties_the_list_does_no_harm() -> None:
    class Evil:
        def __init__(self, home: list[Any]) -> None:
            self.home = home

        def __dlpack_device__(self) -> tuple[int, int]:
            return 1, 0

        def __dlpack__(self, **request: Any) -> Any:
            self.home.clear()
            return np.ones(2).__dlpack__(**request)

    home: list[Any] = []
    home.extend([np.ones(2), Evil(home), np.ones(2)])
    try:
        assert dlferry.asarray(home).dtype == torch.float64
    except (ValueError, RuntimeError):
        pass
