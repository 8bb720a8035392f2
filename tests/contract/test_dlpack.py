"""Objects with `__dlpack__`: what producers of every age hand over, decline, or get wrong."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from forge import (
    CUDA,
    CUDA_HOST,
    IS_COPIED,
    ArrayProducer,
    BareProducer,
    Export,
    LegacyProducer,
    Producer,
)
from kinds import NUMPY_TO_TORCH, name, reference, sample
from regions import assert_fresh, assert_same_values, misaligned, overlaps, same_memory

import dlferry

CONVERTERS = [dlferry.asarray, dlferry.from_dlpack]
PRODUCERS: dict[str, Any] = {
    "array": ArrayProducer,
    "versioned": lambda a: Producer(Export(a)),
    "legacy": lambda a: LegacyProducer(Export(a, versioned=False)),
    "no keywords": lambda a: BareProducer(Export(a, versioned=False)),
    "legacy capsule, new keywords": lambda a: Producer(Export(a, versioned=False)),
}


@pytest.fixture(params=PRODUCERS)
def produce(request: pytest.FixtureRequest) -> Any:
    return PRODUCERS[request.param]


@pytest.fixture(params=CONVERTERS, ids=lambda f: f.__name__)
def convert(request: pytest.FixtureRequest) -> Any:
    return request.param


@pytest.mark.parametrize("kind", NUMPY_TO_TORCH, ids=name)
@pytest.mark.parametrize("copy", [None, False])
def test_every_dtype_is_shared(produce: Any, convert: Any, kind: Any, copy: bool | None) -> None:
    a = sample(kind)
    t = convert(produce(a), copy=copy)
    assert type(t) is torch.Tensor
    assert same_memory(t, a)
    assert_same_values(t, reference(a))


def test_writes_are_seen_on_both_sides(produce: Any, convert: Any) -> None:
    a = sample(np.float32)
    t = convert(produce(a))
    t[0, 0] = 42
    a[1, 1] = -42
    assert a[0, 0] == 42 and t[1, 1] == -42


def test_copy_true_never_overlaps(produce: Any, convert: Any) -> None:
    a = sample(np.float32)
    t = convert(produce(a), copy=True)
    assert not overlaps(t, a)
    assert_same_values(t, reference(a))


@pytest.mark.parametrize(
    "index", [np.s_[1:, ::2], np.s_[..., None], np.s_[2, 1], np.s_[:0], np.s_[:, 1:2]]
)
def test_layouts(produce: Any, convert: Any, index: Any) -> None:
    a = sample(np.float64)[index]
    a = np.asarray(a) if a.shape else sample(np.float64)[1:2, 1:2].reshape(())
    for view in (a, a.T):
        t = convert(produce(view))
        assert same_memory(t, view)
        assert np.array_equal(t.numpy(), view)


def test_a_cast_and_a_device(produce: Any) -> None:
    a = sample(np.float32)
    assert dlferry.asarray(produce(a), dtype=torch.float64, device="cpu").sum() == a.sum()
    assert same_memory(dlferry.asarray(produce(a), device="cpu:0"), a)
    assert same_memory(dlferry.from_dlpack(produce(a), device=torch.device("cpu"), copy=False), a)
    assert dlferry.asarray(produce(a), requires_grad=True).requires_grad


# --- what the structures may say ---


@pytest.mark.parametrize("versioned", [True, False])
def test_null_strides_mean_row_major(convert: Any, versioned: bool) -> None:
    export = Export(versioned=versioned).set_shape((2, 3))
    t = convert(Producer(export))
    assert same_memory(t, export.array)
    assert t.stride() == (3, 1)


@pytest.mark.parametrize("versioned", [True, False])
def test_a_byte_offset_moves_the_start(convert: Any, versioned: bool) -> None:
    export = Export(np.arange(6, dtype=np.float32), versioned=versioned).set_shape((4,), (1,))
    export.tensor.byte_offset = 8
    t = convert(Producer(export))
    assert t.tolist() == [2, 3, 4, 5]
    assert same_memory(t, export.array[2:])


def test_a_later_minor_version_and_the_copied_flag_are_fine(convert: Any) -> None:
    export = Export()
    export.managed.minor = 3
    export.managed.flags = IS_COPIED
    assert same_memory(convert(Producer(export)), export.array)


@pytest.mark.parametrize("versioned", [True, False])
def test_a_scalar_may_have_null_shape_and_strides(convert: Any, versioned: bool) -> None:
    export = Export(np.array(2.5), versioned=versioned)
    export.tensor.shape = export.tensor.strides = None
    t = convert(Producer(export))
    assert t.shape == () and t.item() == 2.5


@pytest.mark.parametrize("versioned", [True, False])
def test_an_empty_tensor_may_have_null_data(convert: Any, versioned: bool) -> None:
    export = Export(np.empty((0, 3), np.float32), versioned=versioned)
    export.tensor.data = None
    assert tuple(convert(Producer(export)).shape) == (0, 3)


def test_page_locked_host_memory_is_host_memory(convert: Any) -> None:
    export = Export()
    export.tensor.device.type = CUDA_HOST
    t = convert(Producer(export, device=(CUDA_HOST, 0)))
    assert t.device.type == "cpu" and same_memory(t, export.array)


@pytest.mark.parametrize("copy", [None, True])
def test_negative_strides_are_gathered(convert: Any, copy: bool | None) -> None:
    a = np.arange(6.0).reshape(2, 3)[::-1, ::-1]
    export = Export(a)
    t = convert(Producer(export), copy=copy)
    assert np.array_equal(t.numpy(), a)
    assert not overlaps(t, a)


def test_negative_strides_cannot_be_shared(convert: Any) -> None:
    export = Export(np.arange(6.0)[::-1])
    with pytest.raises(dlferry.CopyRequired) as caught:
        convert(Producer(export), copy=False)
    assert caught.value.reasons == ("strides",)
    del caught  # a traceback keeps the capsule alive
    assert export.count() == export.capsules


@pytest.mark.parametrize("stride", [-8, 0, 2**40])
def test_the_stride_of_one_element_plays_no_part(convert: Any, stride: int) -> None:
    export = Export(np.arange(3.0)).set_shape((1, 3), (stride, 1))
    t = convert(Producer(export), copy=False)
    assert t.tolist() == [[0, 1, 2]] and overlaps(t, export.array)


def test_misaligned_memory_is_copied(convert: Any) -> None:
    a = misaligned(np.arange(6, dtype=np.float32))
    t = convert(Producer(Export(a)))
    assert t.tolist() == [0, 1, 2, 3, 4, 5]
    assert_fresh(t, a)
    with pytest.raises(dlferry.CopyRequired) as caught:
        convert(Producer(Export(a)), copy=False)
    assert caught.value.reasons == ("alignment",)


# --- lifetime ---


@pytest.mark.parametrize("versioned", [True, False])
def test_the_deleter_runs_once_when_the_last_tensor_dies(convert: Any, versioned: bool) -> None:
    export = Export(versioned=versioned)
    t = convert(Producer(export))
    view = t[1:]
    del t
    assert export.count() == 0
    assert view.tolist() == [[3, 4, 5]]
    del view
    assert export.count() == 1


@pytest.mark.parametrize("versioned", [True, False])
def test_the_deleter_runs_once_after_a_copy(convert: Any, versioned: bool) -> None:
    export = Export(versioned=versioned)
    t = convert(Producer(export), copy=True)
    assert export.count() == 1
    assert t.tolist() == [[0, 1, 2], [3, 4, 5]]


def test_a_producer_need_not_have_a_deleter(convert: Any) -> None:
    export = Export()
    export.managed.deleter = type(export.managed.deleter)()
    assert convert(Producer(export)).tolist() == [[0, 1, 2], [3, 4, 5]]
    assert export.count() == 0


# --- producers that decline, and producers that fail ---


class Raising:
    """Every export fails."""

    def __init__(self, error: BaseException) -> None:
        self.error = error
        self.calls = 0

    def __dlpack_device__(self) -> tuple[int, int]:
        return 1, 0

    def __dlpack__(self, **request: Any) -> Any:
        self.calls += 1
        raise self.error


class RaisingList(list[float]):
    """A sequence that cannot be exported."""

    error: type[Exception] = BufferError

    def __dlpack_device__(self) -> tuple[int, int]:
        return 1, 0

    def __dlpack__(self, **request: Any) -> Any:
        raise self.error("no export today")


class NotImplementedList(RaisingList):
    error = NotImplementedError


class BrokenList(RaisingList):
    error = KeyError


@pytest.mark.parametrize("klass", [RaisingList, NotImplementedList])
def test_a_declined_export_hands_over_to_the_next_protocol(klass: Any) -> None:
    assert dlferry.asarray(klass([1.0, 2.0])).tolist() == [1, 2]


def test_a_failed_export_does_not_hand_over() -> None:
    with pytest.raises(KeyError, match="no export today"):
        dlferry.asarray(BrokenList([1.0]))


@pytest.mark.parametrize("error", [BufferError, NotImplementedError])
def test_a_declined_export_with_no_other_protocol(convert: Any, error: Any) -> None:
    with pytest.raises((BufferError, dlferry.UnsupportedInput)):
        convert(Raising(error("declined")))
    with pytest.raises(BufferError, match="declined to export"):
        dlferry.from_dlpack(Raising(error("declined")))


@pytest.mark.parametrize(
    "error",
    [ValueError("v"), RuntimeError("r"), KeyError("k"), MemoryError("m"), KeyboardInterrupt("i")],
    ids=lambda e: type(e).__name__,
)
def test_other_failures_propagate_as_they_are(convert: Any, error: BaseException) -> None:
    with pytest.raises(type(error)) as caught:
        convert(Raising(error))
    assert caught.value is error


def test_a_type_error_inside_a_producer_is_not_retried_for_ever(convert: Any) -> None:
    x = Raising(TypeError("inside"))
    with pytest.raises(TypeError, match="inside"):
        convert(x)
    assert 1 <= x.calls <= 4


class Answering:
    """Exports something that is not a capsule."""

    def __init__(self, answer: Any) -> None:
        self.answer = answer

    def __dlpack_device__(self) -> tuple[int, int]:
        return 1, 0

    def __dlpack__(self, **request: Any) -> Any:
        return self.answer


@pytest.mark.parametrize("answer", [42, None, "dltensor", np.arange(3)])
def test_an_answer_that_is_no_capsule(convert: Any, answer: Any) -> None:
    with pytest.raises((BufferError, TypeError)):
        convert(Answering(answer))


@pytest.mark.skipif(torch.cuda.is_available(), reason="the answer needs a machine without CUDA")
def test_device_memory_without_a_device(convert: Any) -> None:
    export = Export()
    export.tensor.device.type = CUDA
    with pytest.raises((dlferry.DriverUnavailable, BufferError)):
        convert(Producer(export, device=(CUDA, 0)))
    assert export.count() == export.capsules


@pytest.mark.parametrize("versioned", [True, False])
def test_a_producer_is_asked_for_each_conversion(convert: Any, versioned: bool) -> None:
    export = Export(versioned=versioned)
    x = Producer(export)
    first, second = convert(x), convert(x)
    assert same_memory(first, second)
    del first
    assert second.tolist() == [[0, 1, 2], [3, 4, 5]]
