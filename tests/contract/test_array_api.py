"""What the array API standard asks of `asarray` and `from_dlpack`, of a consumer and a producer.

`device=` and the extra keywords are ours; the standard's semantics hold for what it names.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from forge import (
    CPU,
    VERSIONED_NAME,
    ArrayProducer,
    BareProducer,
    Export,
    LegacyProducer,
    Producer,
    is_used,
    take,
)
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from kinds import NUMPY_TO_TORCH, name, sample
from regions import assert_same_values, overlaps, same_memory

import dlferry

quick = settings(
    max_examples=200,
    deadline=None,
    derandomize=True,
    database=None,
    suppress_health_check=list(HealthCheck),
)

# --- asarray of Python numbers ---


@pytest.mark.parametrize("default", [torch.float32, torch.float64, torch.float16])
def test_the_dtype_of_python_scalars(default: torch.dtype) -> None:
    torch.set_default_dtype(default)
    for value, dtype in [
        (True, torch.bool),
        (3, torch.int64),
        (3.0, default),
        (3j, default.to_complex()),
    ]:
        for obj in (value, [value], [[value]], (value, value), [False, value]):
            assert dlferry.asarray(obj).dtype == dtype


@pytest.mark.parametrize(
    ("values", "dtype"),
    [
        ([True, 1], torch.int64),
        ([1, 1.0], torch.float32),
        ([True, 1.0], torch.float32),
        ([1, 1j], torch.complex64),
        ([1.0, 1j], torch.complex64),
        ([True, 1, 1.0, 1j], torch.complex64),
    ],
)
def test_the_dtype_of_mixed_numbers(values: list[Any], dtype: torch.dtype) -> None:
    for obj in (values, values[::-1], [values, values]):
        assert dlferry.asarray(obj).dtype == dtype


@pytest.mark.parametrize("kind", [k for k in NUMPY_TO_TORCH if np.dtype(k).kind in "iu"], ids=name)
def test_whole_numbers_at_the_bounds(kind: Any) -> None:
    info, dtype = np.iinfo(kind), NUMPY_TO_TORCH[kind]
    low, high = int(info.min), int(info.max)
    assert dlferry.asarray([low, high], dtype=dtype).tolist() == [low, high]
    for value in (low - 1, high + 1):
        for obj in (value, [value], [0, [value]][1:]):
            with pytest.raises(OverflowError):
                dlferry.asarray(obj, dtype=dtype)


shapes = st.lists(st.integers(0, 4), max_size=4).map(tuple)
numbers = {
    "bool": st.booleans(),
    "int": st.integers(-(2**63), 2**63 - 1),
    "float": st.floats(width=32),
    "complex": st.complex_numbers(allow_nan=False, width=64),
}


def nested(shape: tuple[int, ...], draw: Any, values: st.SearchStrategy[Any]) -> Any:
    if not shape:
        return draw(values)
    kind = draw(st.sampled_from([list, tuple]))
    return kind(nested(shape[1:], draw, values) for _ in range(shape[0]))


@pytest.mark.parametrize("kinds", [["bool"], ["int"], ["float"], ["complex"], list(numbers)])
@given(data=st.data(), shape=shapes)
@quick
def test_nested_sequences(kinds: list[str], data: st.DataObject, shape: tuple[int, ...]) -> None:
    values = st.one_of([numbers[kind] for kind in kinds])
    obj = nested(shape, data.draw, values)
    expected = torch.tensor(obj)
    result = dlferry.asarray(obj)
    assert_same_values(result, expected)
    as_double = dlferry.asarray(obj, dtype=torch.complex128)
    assert_same_values(as_double, torch.tensor(obj, dtype=torch.complex128))


# --- asarray and copy ---

ARRAYS: dict[str, Any] = {
    "ndarray": lambda a: a,
    "tensor": torch.from_numpy,
    "DLPack": ArrayProducer,
    "buffer": memoryview,
}


@pytest.mark.parametrize("source", ARRAYS)
@pytest.mark.parametrize("kind", NUMPY_TO_TORCH, ids=name)
@pytest.mark.parametrize("copy", [None, True, False])
def test_copy_decides_who_sees_a_write(source: str, kind: Any, copy: bool | None) -> None:
    a = sample(kind)
    t = dlferry.asarray(ARRAYS[source](a), copy=copy)
    assert t.dtype == NUMPY_TO_TORCH[kind] and tuple(t.shape) == a.shape
    before = t[0, 0].item()
    a[0, 0] = 0
    assert t[0, 0].item() == (before if copy else 0)


@pytest.mark.parametrize("source", ARRAYS)
@pytest.mark.parametrize("copy", [None, True])
def test_a_dtype_that_differs_copies(source: str, copy: bool | None) -> None:
    a = sample(np.float32)
    t = dlferry.asarray(ARRAYS[source](a), dtype=torch.float64, copy=copy)
    assert t.dtype == torch.float64 and not overlaps(t, a)


@pytest.mark.parametrize("source", ARRAYS)
def test_a_copy_that_was_forbidden_is_a_value_error(source: str) -> None:
    with pytest.raises(ValueError, match="without a copy"):
        dlferry.asarray(ARRAYS[source](sample(np.float32)), dtype=torch.float64, copy=False)


@pytest.mark.parametrize("obj", [1, 1.5, True, 1j, [1], (1, 2), [[1.0]], [], range(2)], ids=repr)
def test_numbers_are_always_a_copy(obj: Any) -> None:
    for copy in (None, True):
        assert isinstance(dlferry.asarray(obj, copy=copy), torch.Tensor)
    with pytest.raises(ValueError, match="without a copy"):
        dlferry.asarray(obj, copy=False)


def test_the_device_of_an_array_is_a_device_to_ask_for() -> None:
    t = dlferry.asarray(sample(np.float32))
    for obj in (t, sample(np.float32), [1.0]):
        assert dlferry.asarray(obj, device=t.device).device == t.device


# --- from_dlpack, the consumer ---


def requests_of(producer: Producer) -> list[dict[str, Any]]:
    """What the producer was asked, with the version as a plain fact."""
    for request in producer.requests:
        version = request.pop("max_version", None)
        assert version is None or (isinstance(version, tuple) and version >= (1, 0))
        assert request.pop("dl_device", None) in (None, (CPU, 0))
        assert request.pop("stream", None) is None  # of no meaning on the CPU
    return producer.requests


@pytest.mark.parametrize("function", [dlferry.asarray, dlferry.from_dlpack])
@pytest.mark.parametrize("copy", [None, True, False])
def test_what_a_producer_is_asked(function: Any, copy: bool | None) -> None:
    producer = Producer(Export())
    t = function(producer, copy=copy)
    assert requests_of(producer) in ([{}], [{"copy": copy}])
    assert same_memory(t, producer.export.array) != bool(copy)
    del t
    assert producer.export.count() == 1


@pytest.mark.parametrize("function", [dlferry.asarray, dlferry.from_dlpack])
@pytest.mark.parametrize("kind", [LegacyProducer, BareProducer])
@pytest.mark.parametrize("copy", [None, True, False])
def test_producers_from_before_the_keywords(function: Any, kind: Any, copy: bool | None) -> None:
    producer = kind(Export(versioned=False))
    t = function(producer, copy=copy)
    assert same_memory(t, producer.export.array) != bool(copy)
    assert len(producer.requests) == 1
    del t
    assert producer.export.count() == producer.export.capsules


@pytest.mark.parametrize("device", [None, "cpu", "cpu:0", torch.device("cpu")])
@pytest.mark.parametrize("copy", [None, True, False])
def test_the_device_that_it_is_on_already(device: Any, copy: bool | None) -> None:
    a = sample(np.float32)
    t = dlferry.from_dlpack(a, device=device, copy=copy)
    assert t.device.type == "cpu" and same_memory(t, a) != bool(copy)


def test_a_copy_to_a_device_that_was_forbidden() -> None:
    """The standard says BufferError in one place and ValueError in another: it is both."""
    for kind in (ValueError, BufferError):
        with pytest.raises(kind):
            dlferry.from_dlpack(sample(np.float32), device="meta", copy=False)


class Copying(Producer):
    """A producer that copies, and says so or not."""

    def __dlpack__(self, *, copy: bool | None = None, **request: Any) -> Any:
        if copy is False:
            raise BufferError("this producer always copies")
        return super().__dlpack__(copy=copy, **request)


def test_a_producer_that_cannot_but_copy() -> None:
    t = dlferry.from_dlpack(Copying(Export()))
    assert t.shape == (2, 3)
    with pytest.raises((BufferError, TypeError)):
        dlferry.from_dlpack(Copying(Export()), copy=False)


@pytest.mark.parametrize("obj", [1, [1], "a", None, object(), np.ndarray, {}], ids=repr)
def test_what_takes_no_part(obj: Any) -> None:
    with pytest.raises(TypeError):
        dlferry.from_dlpack(obj)


# --- our results, as producers ---


def results() -> dict[str, torch.Tensor]:
    a = sample(np.float32)
    frozen = sample(np.float32)
    frozen.flags.writeable = False
    return {
        "shared": dlferry.asarray(a),
        "copied": dlferry.asarray(a, copy=True),
        "cast": dlferry.asarray(a, dtype=torch.float64),
        "gathered": dlferry.asarray(a[::-1]),
        "from DLPack": dlferry.from_dlpack(ArrayProducer(a)),
        "numbers": dlferry.asarray([[1.0, 2.0]]),
        "read-only, shared": dlferry.asarray(frozen, readonly="share"),
    }


@pytest.mark.parametrize("which", results())
def test_numpy_imports_a_result(which: str) -> None:
    t = results()[which]
    assert t.__dlpack_device__() == (CPU, 0)
    for keywords in ({}, {"copy": None}, {"copy": False}, {"device": "cpu"}):
        assert same_memory(t, np.from_dlpack(t, **keywords))
    copied = np.from_dlpack(t, copy=True)
    assert not overlaps(t, copied) and np.array_equal(copied, t.numpy())


@pytest.mark.parametrize("which", results())
@pytest.mark.parametrize("version", [None, (0, 8), (1, 0), (1, 3), (2, 0)])
def test_a_result_is_exported_in_the_version_asked_for(which: str, version: Any) -> None:
    t = results()[which]
    capsule = t.__dlpack__() if version is None else t.__dlpack__(max_version=version)
    if version is not None and version >= (1, 0):
        take(capsule, VERSIONED_NAME)
    else:
        take(capsule)
    assert is_used(capsule)


@pytest.mark.native
@pytest.mark.parametrize("version", [None, (1, 0)])
@pytest.mark.parametrize("kind", NUMPY_TO_TORCH, ids=name)
def test_a_result_comes_back_by_its_capsule(kind: Any, version: Any) -> None:
    a = sample(kind)
    t = dlferry.asarray(a)
    again = dlferry.from_dlpack(t.__dlpack__(max_version=version) if version else t.__dlpack__())
    assert same_memory(again, a) and again.dtype == t.dtype
