"""Copies between host memory: every layout, byte order and cast, bit for bit.

The source's elements are what NumPy reads, and a cast is torch's own of contiguous memory. A copy
that changes no dtype keeps every bit. In a cast a NaN stays a NaN, and its payload is not compared:
torch's own differs between its vector and its scalar loops. Numbers that an integer dtype cannot
hold are left out, since C leaves their cast undefined.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from arena import Axis, place, scramble
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from kinds import ALL_TO_TORCH, FOREIGN_ORDER, NUMPY_TO_TORCH, cast, name, reference
from regions import assert_fresh, assert_same_values

import dlferry

MIB = 1 << 20
KINDS = list(ALL_TO_TORCH)
INTEGERS = [kind for kind in NUMPY_TO_TORCH if np.dtype(kind).kind in "iu"]
quick = settings(
    max_examples=500,
    deadline=None,
    derandomize=True,
    database=None,
    suppress_health_check=list(HealthCheck),
)

Copy = Callable[[np.ndarray[Any, Any], torch.dtype | None], torch.Tensor]


def as_asked(a: np.ndarray[Any, Any], dtype: torch.dtype | None) -> torch.Tensor:
    return dlferry.asarray(a, dtype=dtype, copy=True)


def among_others(a: np.ndarray[Any, Any], dtype: torch.dtype | None) -> torch.Tensor:
    """The middle one of a list of three."""
    return dlferry.asarray([a, a, a], dtype=dtype)[1]


def stacked(a: np.ndarray[Any, Any], dtype: torch.dtype | None) -> torch.Tensor:
    return dlferry.stack([a, a, a], dtype=dtype)[1]


COPIES: list[Copy] = [as_asked, among_others, stacked]

# --- layouts ---

axes = st.builds(
    Axis,
    st.sampled_from([0, 1, 1, 2, 3, 4, 5, 7, 8, 9, 15, 16, 17, 31, 33]),
    st.sampled_from([1, 1, 1, 1, -1, -1, 2, 3, -2, 0]),
)


@st.composite
def layouts(draw: st.DrawFn, kinds: list[Any]) -> np.ndarray[Any, Any]:
    """An array of at most 4096 elements at the edge of memory that may be read."""
    shape: list[Axis] = []
    for axis in draw(st.lists(axes, max_size=5)):
        if np.prod([max(a.length, 1) for a in [axis, *shape]]) <= 4096:
            shape.append(axis)
    kind = draw(st.sampled_from(kinds))
    foreign = kind in FOREIGN_ORDER and draw(st.booleans())
    dtype = np.dtype(kind).newbyteorder(">" if foreign else "=")
    reach = np.prod([float(max(a.length, 1) * max(abs(a.step), 1)) for a in shape])
    gap = draw(st.sampled_from([0, 0, 0, 1, 2, 3, dtype.itemsize]))
    if reach * (dtype.itemsize + gap) > 1 << 19:
        shape = [axis._replace(step=1) for axis in shape]
    order = draw(st.permutations(range(len(shape))))
    return place(shape, order, dtype, gap, at_end=draw(st.booleans()))


def exact_bits(t: torch.Tensor) -> bytes:
    # A single element may have any stride, which clone makes one.
    flat = t.clone(memory_format=torch.contiguous_format).view(-1)
    return flat.view(torch.uint8).numpy().tobytes() if t.numel() else b""


def assert_torchs(result: torch.Tensor, expected: torch.Tensor) -> None:
    """Asserts equal dtype, shape and bits, whatever the strides."""
    assert_same_values(result.clone(memory_format=torch.contiguous_format), expected)


def native_bits(a: np.ndarray[Any, Any]) -> bytes:
    return np.array(a, a.dtype.newbyteorder("="), order="C", copy=True).tobytes()


@pytest.mark.parametrize("copy", COPIES)
@given(a=layouts(KINDS), seed=st.integers(0, 2**32 - 1))
@quick
def test_a_copy_of_any_layout_keeps_every_bit(
    copy: Copy, a: np.ndarray[Any, Any], seed: int
) -> None:
    scramble(np.random.default_rng(seed), a)
    before = a.tobytes()
    t = copy(a, None)
    assert_fresh(t, a)
    assert t.dtype == ALL_TO_TORCH[a.dtype.newbyteorder("=").type]
    assert tuple(t.shape) == a.shape
    assert exact_bits(t) == native_bits(a)
    assert a.tobytes() == before


def fill(a: np.ndarray[Any, Any], dtype: torch.dtype, rng: np.random.Generator) -> None:
    """Fills an array with elements that `dtype` can hold, where it is an integer."""
    if dtype.is_floating_point or dtype.is_complex or dtype == torch.bool or a.dtype.kind in "iub":
        scramble(rng, a)
    else:
        # Small numbers, with fractions where the elements have them; e8m0 has powers of two only.
        a[...] = rng.integers(1, 500, a.shape).astype(np.float64) / 4


@pytest.mark.parametrize("copy", COPIES)
@given(
    a=layouts(KINDS),
    dtype=st.sampled_from(list(ALL_TO_TORCH.values())),
    seed=st.integers(0, 2**32 - 1),
)
@quick
def test_a_cast_of_any_layout_is_torchs(
    copy: Copy, a: np.ndarray[Any, Any], dtype: torch.dtype, seed: int
) -> None:
    fill(a, dtype, np.random.default_rng(seed))
    assert_torchs(copy(a, dtype), cast(reference(a), dtype))


@given(a=layouts(INTEGERS), kind=st.sampled_from(INTEGERS), seed=st.integers(0, 2**32 - 1))
@quick
def test_whole_numbers_wrap_as_numpys(a: np.ndarray[Any, Any], kind: Any, seed: int) -> None:
    scramble(np.random.default_rng(seed), a)
    assert exact_bits(as_asked(a, ALL_TO_TORCH[kind])) == native_bits(a.astype(kind))


# --- sizes ---

# Around the sizes where a copy is made by hand, in the background, by several threads or in tiles.
SIZES = [0, 1, 2, 63, 64, 65, 511, 512, 513, (64 << 10) - 1, 64 << 10, MIB - 1, MIB, MIB + 1]


@pytest.mark.parametrize("size", [1, 2, 4, 8, 16])
def test_sizes_around_every_threshold(rng: np.random.Generator, size: int) -> None:
    for count in sorted({n // size for n in SIZES} | {n // size + 1 for n in SIZES}):
        whole = np.empty(count * 2 + 1, {16: "c16"}.get(size, f"u{size}"))
        scramble(rng, whole)
        for a in (whole[:count], whole[1 : count + 1], whole[::2], whole[::-1][:count]):
            assert exact_bits(as_asked(a, None)) == native_bits(a)


LARGE: dict[str, Callable[[Any], Any]] = {
    "contiguous": lambda a: a,
    "transposed": lambda a: a.T,
    "reversed": lambda a: a[::-1],
    "mirrored": lambda a: a[:, ::-1],
    "every other column": lambda a: a[:, ::2],
    "rotated": lambda a: np.rot90(a),
    "columns backwards, transposed": lambda a: a[:, ::-3].T,
    "repeated rows": lambda a: np.broadcast_to(a[0], (331, a.shape[1])),
    "repeated columns": lambda a: np.broadcast_to(a[:, :1], (a.shape[0], 331)),
    "one element many times": lambda a: np.broadcast_to(a[3, 4], (1021, 1031)),
    "a long column": lambda a: a[:, 5:6],
    "three axes": lambda a: a[: 7 * 139, : 13 * 67].reshape(7, 139, 13, 67).transpose(2, 0, 3, 1),
    "three axes backwards": lambda a: (
        a.reshape(-1)[: 101 * 103 * 97].reshape(101, 103, 97)[::-1, :, ::-1].transpose(1, 2, 0)
    ),
    "narrow": lambda a: a.reshape(-1)[: 300_000 * 3].reshape(-1, 3).T,
    "wide": lambda a: a.reshape(-1)[: 300_000 * 3].reshape(3, -1).T,
    "diagonal": lambda a: np.lib.stride_tricks.as_strided(
        a, (701, 503), (a.strides[0] + a.strides[1], a.strides[1])
    ),
    "overlapping windows": lambda a: np.lib.stride_tricks.sliding_window_view(
        a.reshape(-1)[:30_011], 37
    ),
}
PAIRS: list[tuple[str, torch.dtype | None]] = [
    ("u1", None),
    ("f2", None),
    (">u2", None),
    ("f4", None),
    (">f4", None),
    ("f8", None),
    (">f8", torch.float32),
    ("c16", None),
    ("u1", torch.float32),
    ("f4", torch.bfloat16),
    ("f4", torch.float16),
    (">f4", torch.float8_e4m3fn),
    ("i8", torch.int32),
    ("i2", torch.float64),
    ("f8", torch.float16),
    (">c8", torch.complex128),
]  # fmt: skip


@pytest.mark.parametrize("layout", LARGE)
@pytest.mark.parametrize(("kind", "dtype"), PAIRS)
def test_large_arrays(
    rng: np.random.Generator, layout: str, kind: str, dtype: torch.dtype | None
) -> None:
    whole = np.empty((1021, 1031), kind)
    scramble(rng, whole)
    a = LARGE[layout](whole)
    t = as_asked(a, dtype)
    assert_fresh(t, a)
    if dtype is None:
        assert exact_bits(t) == native_bits(a)
    else:
        assert_torchs(t, cast(reference(a), dtype))


@pytest.mark.parametrize("size", [1, 2, 4, 8, 16])
@pytest.mark.parametrize("width", [2, 3, 4, 5, 7, 8, 16, 17])
def test_short_rows_that_repeat_or_overlap(rng: np.random.Generator, size: int, width: int) -> None:
    for count in (1, 2, 31, 63, 64, 65, 127, 128, 129, 511, 512, 513, 5003):
        flat = np.empty(count + width, {16: "c16"}.get(size, f"u{size}"))
        scramble(rng, flat)
        column = flat[:count, None]
        windows = np.lib.stride_tricks.sliding_window_view(flat, width)
        repeated = np.broadcast_to(column, (count, width))
        for a in (repeated, repeated[::-1], windows, windows[:, ::-1], windows[::-1]):
            assert exact_bits(as_asked(a, None)) == native_bits(a)
            if size < 16:
                wider = as_asked(a, torch.int64)
                assert wider.tolist() == a.astype(np.int64).tolist()


@pytest.mark.parametrize("dtype", [None, torch.float64, torch.float16])
def test_odd_and_misaligned_large_arrays(dtype: torch.dtype | None) -> None:
    for kind in ("f4", ">f4"):
        packed = np.zeros(400_009, [("x", "u1"), ("y", kind), ("z", "u2")])
        packed["y"] = np.arange(packed.size) % 2039 / 8
        for a in (packed["y"], packed["y"][::-1], packed["y"][: 619 * 641].reshape(619, 641).T):
            assert_torchs(as_asked(a, dtype), cast(reference(a), dtype or torch.float32))


@pytest.mark.parametrize(
    "shape", [(), (1,), (0,), (1, 1, 1), (1, 0, 1), (0, 1 << 40), (1 << 40, 0)]
)
@pytest.mark.parametrize("dtype", [None, torch.float16, torch.complex128])
def test_results_of_one_element_or_none(shape: Any, dtype: torch.dtype | None) -> None:
    a = np.full(1, 2.5, ">f4")
    wild = tuple(-(2**61) + 3 for _ in shape)  # of no effect where no axis has two elements
    a = np.lib.stride_tricks.as_strided(a, shape, wild if 1 << 40 not in shape else (0, 0))
    t = as_asked(a, dtype)
    assert tuple(t.shape) == shape and t.dtype == (dtype or torch.float32)
    assert t.numel() == 0 or t.item() == 2.5


def test_sixty_four_axes(rng: np.random.Generator) -> None:
    flat = np.empty(420, ">u2")
    scramble(rng, flat)
    a = flat.reshape((2, 3) + (1,) * 30 + (5, 1, 7) + (1,) * 28 + (2,))
    assert a.ndim == 64
    for turned in (a, a.T, a[::-1, ..., ::-1], a.T[::-1]):
        assert exact_bits(as_asked(turned, None)) == native_bits(turned)


# --- every pattern of the small floats ---

SMALL = [kind for kind in KINDS if np.dtype(kind).itemsize <= 2 and np.dtype(kind).kind in "fV"]
FLOATS = [t for t in ALL_TO_TORCH.values() if t.is_floating_point or t.is_complex]


def patterns(kind: Any) -> np.ndarray[Any, Any]:
    size = np.dtype(kind).itemsize
    return np.arange(1 << (8 * size), dtype=f"u{size}").view(kind)


def test_the_small_floats_are_all_there() -> None:
    assert len(SMALL) == 7


@pytest.mark.parametrize("kind", SMALL, ids=name)
@pytest.mark.parametrize("dtype", [*FLOATS, torch.bool], ids=name)
def test_every_pattern_of_a_small_float(kind: Any, dtype: torch.dtype) -> None:
    a = patterns(kind)
    assert_torchs(as_asked(a, dtype), cast(reference(a), dtype))
    strided = np.repeat(a, 2)[::-2]
    assert_torchs(as_asked(strided, dtype), cast(reference(strided), dtype))


def neighbours(kind: Any) -> np.ndarray[Any, Any]:
    """float32 at every value of a small float, half way to the next, and a step beside those."""
    wide = reference(patterns(kind)).float()
    wide = wide[wide.isfinite()].sort().values
    half = (wide[1:].double() + wide[:-1].double()).div(2).float()
    points = torch.cat([wide, half])
    up = torch.nextafter(points, torch.tensor(float("inf")))
    down = torch.nextafter(points, torch.tensor(float("-inf")))
    special = torch.tensor([float("inf"), -float("inf"), float("nan"), 0.0, -0.0, 3.4e38, 1e-45])
    return np.asarray(torch.cat([points, up, down, special]).numpy())


@pytest.mark.parametrize("kind", SMALL, ids=name)
@pytest.mark.parametrize("source", ["f4", ">f4", "f8"])
def test_rounding_to_a_small_float(kind: Any, source: str) -> None:
    a = neighbours(kind).astype(source)
    dtype = ALL_TO_TORCH[kind]
    assert_torchs(as_asked(a, dtype), cast(reference(a), dtype))
    assert_torchs(as_asked(a[::-3], dtype), cast(reference(a[::-3]), dtype))


@pytest.mark.parametrize("kind", SMALL, ids=name)
def test_a_small_float_and_back(kind: Any) -> None:
    a = patterns(kind)
    back = as_asked(as_asked(a, torch.float32).numpy(), ALL_TO_TORCH[kind])
    assert_torchs(back, reference(a))
