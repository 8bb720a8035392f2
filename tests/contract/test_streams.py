"""The stream that a producer is told, for each place where its memory may be; recorders play CUDA.

Memory of the host plays that of a device.
"""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from forge import (
    CPU,
    CUDA,
    CUDA_HOST,
    IS_COPIED,
    MANAGED,
    READ_ONLY,
    BareProducer,
    Export,
    LegacyProducer,
    Producer,
    tensor_in,
)
from regions import same_memory

import dlferry
from dlferry import _torch, _torch_cuda

IDLE = 0x1D1E
VERSION = {"max_version": (1, 3)}
HOST_KINDS = pytest.mark.parametrize("kind", [CUDA_HOST, MANAGED], ids=["CUDAHost", "CUDAManaged"])


class Door:
    """What dlferry asks of torch's CUDA, and `waits`: who waited for which stream."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.stream = 0x7F00
        self.available, self.capturing = True, False
        self.waits: list[Any] = []
        self.work: Callable[[], None] = lambda: None
        """What a producer has queued: done when the host has waited."""
        import_capsule = torch.utils.dlpack.from_dlpack

        def from_dlpack(capsule: Any) -> torch.Tensor:
            device = tensor_in(capsule).device
            if device.type != CPU:
                self.waits.append(f"torch imports from {device.type}:{device.id}")
            device.type, device.id = CPU, 0
            return import_capsule(capsule)

        monkeypatch.setattr(torch.utils.dlpack, "from_dlpack", from_dlpack)
        monkeypatch.setattr(_torch, "require_cuda", lambda index=None: None)
        for name, answer in {
            "is_available": lambda: self.available,
            "is_capturing": lambda: self.capturing,
            "current_device": lambda: 0,
            "current_stream": lambda device: self.stream + device,
            "idle_stream": lambda device: IDLE,
            "synchronize": self.synchronize,
            "follow": lambda *streams: self.waits.append(streams),
        }.items():
            monkeypatch.setattr(_torch_cuda, name, answer)

    def synchronize(self, device: int, stream: int) -> None:
        self.waits.append(("host", stream))
        self.work()


@pytest.fixture
def door(monkeypatch: pytest.MonkeyPatch) -> Door:
    return Door(monkeypatch)


@pytest.fixture(params=[dlferry.asarray, dlferry.from_dlpack], ids=lambda f: f.__name__)
def convert(request: pytest.FixtureRequest) -> Any:
    return request.param


def producer_at(
    kind: int, device: int = 0, klass: type[Producer] = Producer, versioned: bool = True
) -> Any:
    """A producer of a type of its own, for the core remembers where types have their memory."""
    export = Export(versioned=versioned)
    export.tensor.device.type, export.tensor.device.id = kind, device
    return type(klass.__name__, (klass,), {})(export, (kind, device))


# --- the memory of the host ---


def test_on_the_cpu_there_is_no_stream(convert: Any, door: Door) -> None:
    producer = producer_at(CPU)
    for kwargs in ({}, {"device": "cpu"}, {"copy": False}, {"copy": True}):
        convert(producer, **kwargs)
    assert producer.requests == [VERSION, VERSION, VERSION | {"copy": False}, VERSION]
    assert door.waits == []


def test_who_does_not_say_where_is_on_the_cpu(convert: Any) -> None:
    class Silent:
        def __dlpack__(self, **request: Any) -> Any:
            assert request == VERSION
            return export.capsule()

    export = Export()
    assert same_memory(convert(Silent()), export.array)


@pytest.mark.parametrize("answer", [None, 1, (1,), (1, 0, 0), ("cpu", 0), (1, 0.0), (1.0, 0)])
def test_a_malformed_place(convert: Any, answer: Any) -> None:
    class Lost(Producer):
        pass

    with pytest.raises(BufferError, match="Lost.__dlpack_device__ returned"):
        convert(Lost(Export(), answer))


@pytest.mark.parametrize("error", [BufferError, NotImplementedError, KeyError])
def test_a_place_that_is_not_told(error: type[Exception]) -> None:
    class Nowhere(list[float]):
        def __dlpack_device__(self) -> Any:
            raise error("nowhere")

        def __dlpack__(self, **request: Any) -> Any:
            raise AssertionError("asked for its memory all the same")

    if error is KeyError:
        with pytest.raises(KeyError, match="nowhere"):
            dlferry.asarray(Nowhere([1.0]))
    else:
        assert dlferry.asarray(Nowhere([1.0])).tolist() == [1]


# --- the memory of a device ---


@pytest.mark.parametrize(("current", "told"), [(0, 1), (1, 1), (2, 2), (0x7F00, 0x7F00)])
@pytest.mark.parametrize("copy", [None, False])
def test_on_a_device_it_is_the_current_stream(
    convert: Any, door: Door, current: int, told: int, copy: bool | None
) -> None:
    door.stream = current
    producer = producer_at(CUDA)
    tensor = convert(producer, copy=copy)
    copy_word = {} if copy is None else {"copy": False}
    assert producer.requests == [VERSION | copy_word | {"stream": told}]
    assert door.waits == ["torch imports from 2:0"]
    assert same_memory(tensor, producer.export.array)
    del tensor
    assert producer.export.count() == 1


def test_it_is_that_of_the_memorys_device(convert: Any, door: Door) -> None:
    producer = producer_at(CUDA, 1)
    convert(producer)
    assert [request["stream"] for request in producer.requests] == [door.stream + 1]
    assert door.waits == ["torch imports from 2:1"]


@pytest.mark.parametrize("versioned", [True, False])
def test_the_signature_from_before_version_1(convert: Any, door: Door, versioned: bool) -> None:
    producer = producer_at(CUDA, klass=LegacyProducer, versioned=versioned)
    assert same_memory(convert(producer), producer.export.array)
    assert producer.requests == [{"stream": door.stream}]


def test_no_keyword_at_all_means_the_null_stream(convert: Any, door: Door) -> None:
    producer = producer_at(CUDA, klass=BareProducer, versioned=False)
    assert same_memory(convert(producer), producer.export.array)
    assert door.waits == [(0, door.stream, 1), "torch imports from 2:0"]


def test_a_capture_goes_on(convert: Any, door: Door) -> None:
    door.capturing = True
    producer = producer_at(CUDA)
    convert(producer)
    assert [request["stream"] for request in producer.requests] == [door.stream]


def wander(klass: type[Producer], convert: Any, door: Door, first: int) -> None:
    """One type whose memory is here and there."""
    for step, kind in enumerate((CPU, CPU, first, CUDA, CPU, MANAGED, CPU, CUDA_HOST, CUDA)):
        producer = klass(Export(), (kind, 0))
        producer.export.tensor.device.type = kind
        door.waits.clear()
        tensor = convert(producer)
        told = {} if kind == CPU else {"stream": door.stream if kind == CUDA else IDLE}
        *before, last = producer.requests
        assert last == VERSION | told
        assert before in ([], [VERSION] * (step == 2))
        assert (("host", IDLE) in door.waits) == (kind in (CUDA_HOST, MANAGED))
        del tensor
        assert producer.export.count() == producer.export.capsules


def test_the_place_may_change() -> None:
    code = """if True:  # in a process of its own, where the core remembers no types yet
        import gc, dlferry, forge, pytest, test_streams
        gc.freeze()  # or each collection walks through all of torch
        door = test_streams.Door(pytest.MonkeyPatch())
        for convert in (dlferry.asarray, dlferry.from_dlpack):
            for first in (forge.CUDA, forge.CUDA_HOST, forge.MANAGED):
                klass = type("Wandering", (forge.Producer,), {})
                test_streams.wander(klass, convert, door, first)
    """
    paths = os.pathsep.join(path for path in sys.path if path)
    done = subprocess.run(
        [sys.executable, "-c", code], env=os.environ | {"PYTHONPATH": paths}, timeout=60,
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr


def test_flags_and_layouts_of_device_memory(convert: Any, door: Door) -> None:
    for change, reason in ((READ_ONLY, "read-only"), (IS_COPIED, None)):
        producer = producer_at(CUDA)
        producer.export.managed.flags = change
        with pytest.raises(dlferry.CopyRequired) as caught:
            convert(producer, copy=False)
        assert reason is None or caught.value.reasons == (reason,)
    backwards = producer_at(CUDA)
    backwards.export.set_shape((2, 3), (-3, 1))
    backwards.export.tensor.data += 12
    with pytest.raises(dlferry.UnsupportedInput, match="negative strides"):
        convert(backwards)


@pytest.mark.parametrize("kwargs", [{}, {"device": "cpu"}, {"copy": False}, {"copy": True}])
def test_without_cuda_nobody_is_asked(
    convert: Any, kwargs: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    producer = producer_at(CUDA)
    with pytest.raises(dlferry.DriverUnavailable, match="CUDA"):
        convert(producer, **kwargs)
    assert producer.requests == []


# --- memory that both read ---


@HOST_KINDS
@pytest.mark.parametrize("kwargs", [{}, {"device": "cpu"}, {"copy": False}, {"copy": True}])
def test_the_host_waits_for_the_producer(convert: Any, door: Door, kind: int, kwargs: Any) -> None:
    producer = producer_at(kind)
    door.work = lambda: producer.export.array.fill(7)
    tensor = convert(producer, **kwargs)
    assert tensor.device.type == "cpu" and bool((tensor == 7).all())
    assert same_memory(tensor, producer.export.array) == (kwargs != {"copy": True})
    [request] = producer.requests
    assert request["stream"] == IDLE and door.waits == [("host", IDLE)]


@HOST_KINDS
def test_so_it_does_for_arrays_in_a_list(door: Door, kind: int) -> None:
    producer = producer_at(kind)
    door.work = lambda: producer.export.array.fill(7)
    assert bool((dlferry.asarray([producer, np.full((2, 3), 7.0, np.float32)]) == 7).all())


@HOST_KINDS
@pytest.mark.parametrize(
    "error", [AssertionError, BufferError, NotImplementedError, RuntimeError, TypeError, ValueError]
)
def test_a_stream_may_be_refused(convert: Any, door: Door, kind: int, error: Any) -> None:
    class Choosy(Producer):
        def __dlpack__(self, **request: Any) -> Any:
            if "stream" in request:
                raise error("stream should be None")
            return super().__dlpack__(**request)

    producer = producer_at(kind, klass=Choosy)
    assert same_memory(convert(producer), producer.export.array)
    # The null stream is what a producer with streams orders when it is told none.
    assert door.waits == ([("host", 1)] if kind == MANAGED else [])


@HOST_KINDS
@pytest.mark.parametrize("klass", [LegacyProducer, BareProducer])
def test_old_signatures_for_the_host(convert: Any, door: Door, kind: int, klass: Any) -> None:
    producer = producer_at(kind, klass=klass, versioned=False)
    assert same_memory(convert(producer), producer.export.array)
    told = producer.requests == [{"stream": IDLE}]
    assert told == (klass is LegacyProducer)
    assert door.waits == ([("host", IDLE if told else 1)] if told or kind == MANAGED else [])


@HOST_KINDS
def test_failures_come_as_they_are(convert: Any, door: Door, kind: int) -> None:
    class Broken(Producer):
        def __dlpack__(self, **request: Any) -> Any:
            raise KeyError("broken")

    with pytest.raises(KeyError, match="broken"):
        convert(producer_at(kind, klass=Broken))


@HOST_KINDS
def test_the_host_does_not_wait_in_a_capture(convert: Any, door: Door, kind: int) -> None:
    door.capturing = True
    producer = producer_at(kind)
    with pytest.raises(dlferry.CudaError, match="captured") as caught:
        convert(producer)
    assert caught.value.code == 900 and producer.requests == [] and door.waits == []


@HOST_KINDS
def test_without_cuda_there_is_no_stream(convert: Any, door: Door, kind: int) -> None:
    door.available = False
    producer = producer_at(kind)
    assert same_memory(convert(producer), producer.export.array)
    assert producer.requests == [VERSION] and door.waits == []
