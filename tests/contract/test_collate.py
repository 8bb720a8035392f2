"""collate: samples -> a batch, as torch's default_collate makes it."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator
from typing import Any

import ml_dtypes
import numpy as np
import pytest
import torch
from batches import BATCHES, F, Point, T, Tagged, assert_same, theirs
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from kinds import NUMPY_TO_TORCH, TORCH_DTYPES, name, sample
from regions import misaligned
from torch.utils.data import DataLoader, default_collate

import dlferry
from dlferry import _stacked
from dlferry._native import core

LIMIT = 120.0  # seconds after which something hangs
TABLE: dict[Any, Any] = torch.utils.data._utils.collate.default_collate_fn_map


@pytest.fixture(params=["main process", "worker"])
def process(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """As in the main process, and as a DataLoader's worker sees itself."""
    monkeypatch.delenv("DLFERRY_THREADS", raising=False)
    threads = core.worker_count()
    if request.param == "worker":
        monkeypatch.setattr(torch.utils.data._utils.worker, "_worker_info", object())
    yield request.param
    _stacked._share_processors.cache_clear()
    core.set_worker_count(threads)


def test_signature() -> None:
    (samples,) = inspect.signature(dlferry.collate).parameters.values()
    assert samples.name == "samples"
    assert "Example:" in (inspect.getdoc(dlferry.collate) or "")


# --- as default_collate ---

# What torch cannot do in a worker: it stacks into memory made for the first sample's dtype there,
# and that takes no part in autograd.
ONLY_IN_MAIN = {
    "arrays of two dtypes", "arrays and tensors", "lazy bits", "tensors that require grad",
    "parameters",
}  # fmt: skip
WHERE = [(case, "main process") for case in BATCHES]
WHERE += [(case, "worker") for case in BATCHES if case not in ONLY_IN_MAIN]


@pytest.mark.parametrize(("case", "process"), WHERE, indirect=["process"])
def test_a_batch_is_that_of_torch(case: str, process: str) -> None:
    batch = BATCHES[case]()
    assert_same(dlferry.collate(batch), theirs(batch))
    assert_same(dlferry.collate(tuple(batch)), theirs(tuple(batch)))


@pytest.mark.parametrize("kind", NUMPY_TO_TORCH, ids=name)
def test_every_numpy_dtype(kind: Any, process: str) -> None:
    for samples in ([sample(kind)] * 3, [sample(kind, ())] * 2):
        assert_same(dlferry.collate(samples), default_collate(samples))
    scalars = [kind(1), kind(0)]
    expected = default_collate([np.asarray(scalar) for scalar in scalars])
    assert_same(dlferry.collate(scalars), expected)


@pytest.mark.parametrize("dtype", TORCH_DTYPES, ids=name)
def test_every_torch_dtype(dtype: torch.dtype, process: str) -> None:
    samples = [torch.ones(2, 3).to(dtype), torch.zeros(2, 3).to(dtype)]
    ours, theirs = dlferry.collate(samples), torch.stack(samples)
    assert ours.dtype == dtype and torch.equal(ours.view(torch.uint8), theirs.view(torch.uint8))


def test_what_a_mapping_has_besides_its_items() -> None:
    first = Tagged(a=1)
    first.tag = "kept"
    batch = dlferry.collate([first, Tagged(a=2)])
    assert type(batch) is Tagged and batch.tag == "kept" and batch["a"].tolist() == [1, 2]
    assert first["a"] == 1


def test_tensors_have_the_strides_that_torch_gives() -> None:
    for layout in ("transposed tensors", "expanded tensors", "channels last", "large tensors"):
        batch = BATCHES[layout]()
        assert dlferry.collate(batch).stride() == default_collate(batch).stride()


def test_gradients_flow() -> None:
    x = torch.ones(3, requires_grad=True)
    dlferry.collate([{"x": x}, {"x": x * 2}])["x"].sum().backward()
    assert x.grad is not None and x.grad.tolist() == [3, 3, 3]


# --- what torch refuses ---

ERRORS: dict[str, Callable[[], list[Any]]] = {
    "no samples": list,
    "ragged arrays": lambda: [F, F[:2]],
    "ragged odd arrays": lambda: [F.T.copy(), F[:2]],
    "ragged tensors": lambda: [T, T[:2]],
    "ragged lists": lambda: [[1], [1, 2]],
    "ragged tuples": lambda: [(1,), (1, 2)],
    "a missing key": lambda: [{"x": 1}, {"y": 1}],
    "None": lambda: [None, None],
    "None among arrays": lambda: [{"x": T}, {"x": None}],
    "a set": lambda: [{1}, {2}],
    "complex numbers": lambda: [1j, 2j],
    "complex among floats": lambda: [1.0, 2j],
    "a complex tensor among floats": lambda: [1.0, torch.tensor(1j)],
    "times among floats": lambda: [1.5, np.datetime64("2020"), np.timedelta64(5, "s")],
    "strings among ints": lambda: [1, "a"],
    "arrays of strings": lambda: [np.array("a"), np.array("b")],
    "arrays of objects": lambda: [np.array([None]), np.array([None])],
    "arrays of times": lambda: [np.array([1], "M8[s]")] * 2,
    "structured arrays": lambda: [np.zeros(2, "i4,f4")] * 2,
    "long doubles": lambda: [np.ones(2, np.longdouble)] * 2,
    "ints beyond int64": lambda: [2**63, 1],
    "a tensor and an array": lambda: [T, F],
    "a tensor and a string": lambda: [T, "a"],
    "tensors on two devices": lambda: [T, T.to("meta")],
    "an array and a string": lambda: [F, "a"],
}


@pytest.mark.parametrize("case", ERRORS)
def test_what_torch_refuses_is_refused_alike(case: str, process: str) -> None:
    with pytest.raises(Exception) as expected:
        theirs(ERRORS[case]())
    with pytest.raises(expected.type) as ours:
        dlferry.collate(ERRORS[case]())
    assert ours.type is expected.type or issubclass(ours.type, dlferry.UnsupportedInput)


@pytest.mark.filterwarnings("ignore")  # torch has something to say about either kind
def test_sparse_and_nested_tensors(process: str) -> None:
    sparse = torch.eye(3).to_sparse()
    nested = torch.nested.nested_tensor([torch.ones(2), torch.ones(3)])
    for odd, words in ((sparse, "sparse"), (nested, "nested")):
        with pytest.raises(RuntimeError, match=words):
            dlferry.collate([odd, odd])
    with pytest.raises(RuntimeError):
        dlferry.collate([torch.eye(3), sparse])


# --- what torch refuses, or warns about, and dlferry does not ---


def test_arrays_of_any_layout(process: str) -> None:
    frozen = F.copy()
    frozen.flags.writeable = False
    for odd in (F[::-1], F[:, ::-1], F.astype(">f4"), frozen, misaligned(F)):
        batch = dlferry.collate([{"x": odd}, {"x": odd}])["x"]
        assert batch.dtype == torch.float32 and batch.is_contiguous()
        assert np.array_equal(batch.numpy(), np.stack([odd, odd]))
    mixed = dlferry.collate([F[::-1], F, frozen, F.astype(">f8")])
    assert mixed.dtype == torch.float64 and mixed[0].tolist() == F[::-1].tolist()


def test_dtypes_that_torch_does_not_take_from_numpy(process: str) -> None:
    a = np.ones(3, ml_dtypes.bfloat16)
    assert dlferry.collate([a, a]).dtype == torch.bfloat16
    unsigned = dlferry.collate([np.ones(2, np.uint16), np.ones(2, np.int16)])
    assert unsigned.dtype == torch.int32
    assert dlferry.collate([np.uint16(1), np.int16(2)]).dtype == torch.int32
    assert dlferry.collate([np.True_, np.int8(3)]).tolist() == [1, 3]


@pytest.mark.parametrize("case", ["arrays of two dtypes", "arrays and tensors"])
def test_dtypes_are_promoted_in_workers_too(case: str, process: str) -> None:
    batch = BATCHES[case]()
    ours = dlferry.collate(batch)
    assert ours.dtype == torch.promote_types(*[dlferry.asarray(x).dtype for x in batch])
    assert torch.equal(dlferry.collate([T.to(torch.int8), T]), torch.stack([T, T]))


def test_a_mask_does_not_vanish(process: str) -> None:
    masked = np.ma.MaskedArray(F, mask=F > 3)
    with pytest.raises(dlferry.UnsupportedInput, match="mask"):
        dlferry.collate([masked, masked])


def test_arrays_stay_on_the_host() -> None:
    torch.set_default_device("meta")
    assert dlferry.collate([F, F]).device.type == "cpu"


# --- functions of the user's ---


def test_functions_in_torchs_table_are_used(monkeypatch: pytest.MonkeyPatch) -> None:
    class Word:
        pass

    monkeypatch.setitem(TABLE, Word, lambda batch, *, collate_fn_map: len(batch))
    monkeypatch.setitem(TABLE, float, lambda batch, *, collate_fn_map: "floats")
    batch = dlferry.collate([{"w": Word(), "f": 1.5, "x": F}] * 2)
    assert batch["w"] == 2 and batch["f"] == "floats" and batch["x"].shape == (2, 3, 4)
    monkeypatch.setitem(TABLE, torch.Tensor, lambda batch, *, collate_fn_map: [*batch])
    assert torch.equal(dlferry.collate([F, F[::-1]])[1], torch.from_numpy(F[::-1].copy()))
    monkeypatch.setitem(TABLE, np.ndarray, lambda batch, *, collate_fn_map: "arrays")
    assert dlferry.collate([F, F]) == "arrays"


# --- workers ---


def test_stacks_lie_in_shared_memory_in_workers(process: str) -> None:
    batch = dlferry.collate([(F, T, F[::-1], F.astype(">i2"))] * 2)
    assert {tensor.is_shared() for tensor in batch} == {process == "worker"}
    assert dlferry.collate([F[:0], F[:0]]).shape == (2, 0, 4)


@pytest.mark.native
def test_a_worker_copies_with_one_thread(process: str) -> None:
    dlferry.collate([F, F])
    assert process == "main process" or core.worker_count() == 1


@pytest.mark.filterwarnings("ignore:.*multi-threaded.*:DeprecationWarning")  # of fork
@pytest.mark.filterwarnings("ignore:This DataLoader will create:UserWarning")
@pytest.mark.parametrize("start", [None, "fork", "spawn"])
def test_real_loaders(start: str | None, rng: np.random.Generator) -> None:
    samples: Any = [
        {
            "x": rng.random((3, 8))[:, ::-1],
            "y": (i, float(i)),
            "z": torch.full((2,), i),
            "n": str(i),
        }
        for i in range(10)
    ]
    workers: dict[str, Any] = {"num_workers": 0}
    if start is not None:
        workers = {"num_workers": 2, "multiprocessing_context": start, "timeout": LIMIT}
    loader = DataLoader(samples, batch_size=4, collate_fn=dlferry.collate, **workers)
    plain = [{**sample, "x": sample["x"].copy()} for sample in samples]
    for ours, first in zip(loader, range(0, 10, 4), strict=True):
        assert_same(ours, default_collate(plain[first : first + 4]))
        assert ours["x"].is_shared() == (start is not None)


# --- any samples ---

Maker = Callable[[np.random.Generator], Any]

LAYOUTS: dict[str, Callable[[Any], Any]] = {
    "C": lambda a: a,
    "Fortran": np.asfortranarray,
    "transposed": lambda a: a.T,
    "every other": lambda a: a[..., ::2] if a.ndim else a,
}


def arrays_of(kind: Any, shape: tuple[int, ...], layout: str) -> Maker:
    def make(rng: np.random.Generator) -> Any:
        a = (rng.random(shape) * 100).astype(kind)
        return LAYOUTS[layout](a)

    return make


def tensors_of(make: Maker) -> Maker:
    return lambda rng: torch.from_numpy(np.asarray(make(rng)))


SHAPES = st.lists(st.integers(0, 4), max_size=3).map(tuple)
ARRAYS = st.builds(
    arrays_of, st.sampled_from([*NUMPY_TO_TORCH]), SHAPES, st.sampled_from([*LAYOUTS])
)
NUMBERS: list[Maker] = [
    lambda rng: float(rng.random()),
    lambda rng: int(rng.integers(-9, 9)),
    lambda rng: bool(rng.integers(2)),
    lambda rng: str(rng.integers(9)),
    lambda rng: bytes(2),
    lambda rng: np.float32(rng.random()),
    lambda rng: np.int16(rng.integers(9)),
]
LEAVES = st.one_of(ARRAYS, ARRAYS.map(tensors_of), st.sampled_from(NUMBERS))


def containers(children: st.SearchStrategy[Maker]) -> st.SearchStrategy[Maker]:
    several = st.lists(children, max_size=3)
    return st.one_of(
        several.map(lambda made: lambda rng: [make(rng) for make in made]),
        several.map(lambda made: lambda rng: tuple(make(rng) for make in made)),
        several.map(lambda made: lambda rng: {str(i): make(rng) for i, make in enumerate(made)}),
        st.builds(lambda a, b: lambda rng: Point(a(rng), b(rng)), children, children),
    )


@settings(
    max_examples=150,
    deadline=None,
    derandomize=True,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
@given(make=st.recursive(LEAVES, containers, max_leaves=8), count=st.integers(1, 5))
def test_any_samples(make: Maker, count: int, process: str) -> None:
    rng = np.random.default_rng(count)
    samples = [make(rng) for _ in range(count)]
    made = dlferry.collate(samples)
    try:
        expected = default_collate(samples)
    except TypeError:  # torch refuses scalars beyond int64, which work here
        return
    assert_same(made, expected)
