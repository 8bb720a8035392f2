"""Transfers that torch makes itself, where the meta device and made-up streams stand for a GPU."""

from __future__ import annotations

import gc
import math
import weakref
from typing import Any

import pytest
import torch

import dlferry
from dlferry import _arrivals, _queued, _torch, _torch_cuda
from dlferry._tree import Tree


class Event:
    """Done when the test says so, or has been asked often enough."""

    def __init__(self) -> None:
        self.over = False
        self.asked = 0
        self.enough = math.inf

    def query(self) -> bool:
        self.asked += 1
        return self.over or self.asked >= self.enough


class Torch:
    """What torch does with CUDA, as the door sees it: one event, streams by number."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.event, self.stream = Event(), 11
        self.waits: list[int] = []
        self.records: list[int] = []
        self.pinned = False
        for name, answer in {
            "is_available": lambda: False,  # to the core: torch makes the copies
            "current_stream": lambda device: self.stream,
            "recorded": lambda device: self.event,
            "wait_event": lambda device, stream, event: self.waits.append(stream),
            "record": lambda tensor, device, stream: self.records.append(stream),
            "is_pinned": lambda tensor: self.pinned,
        }.items():
            monkeypatch.setattr(_torch_cuda, name, answer)
        monkeypatch.setattr(_torch, "moved", lambda t, device, dtype: t.to("meta", dtype))


def started(tree: Any) -> dlferry.Transfer:
    taken = Tree(tree, _arrivals.is_array)
    casts = _arrivals.Casts(None, exact=False)
    arrivals = _arrivals.started(taken.leaves, torch.device("cuda", 0), casts, pack=True)
    return dlferry.Transfer(taken, arrivals)


@pytest.fixture
def cuda(monkeypatch: pytest.MonkeyPatch) -> Torch:
    return Torch(monkeypatch)


def test_it_is_done_when_the_stream_is(cuda: Torch) -> None:
    handle = started([torch.ones(3), "text"])
    assert not handle.done()
    with pytest.raises(TimeoutError):
        handle.synchronize(timeout=0.001)
    assert handle.cancel() is False
    cuda.event.over = True
    assert handle.done()
    handle.synchronize(timeout=1)
    assert handle.result()[0].is_meta and handle.result()[1] == "text"


def test_other_streams_wait_for_it(cuda: Torch) -> None:
    handle = started([torch.ones(3), torch.ones(4)])
    first = handle.result()
    assert cuda.waits == []  # the stream that it was queued on
    cuda.stream = 22
    again = handle.result()
    assert again[0] is first[0]
    assert cuda.waits == [22] and cuda.records == [22, 22]
    handle.wait(33)
    assert cuda.waits == [22, 33]


def test_page_locked_sources_are_read_by_the_stream(cuda: Torch) -> None:
    started([torch.ones(3)])._wait_until_read()
    assert cuda.event.asked == 0
    cuda.pinned = True
    cuda.event.enough = 3
    started([torch.ones(3)])._wait_until_read()
    assert cuda.event.asked == 3
    cuda.event.enough = 6
    started([torch.ones(3).numpy()])._wait_until_read()  # an array on such memory
    assert cuda.event.asked == 6


def test_an_interrupt_ends_a_wait(cuda: Torch, monkeypatch: pytest.MonkeyPatch) -> None:
    def pause(seconds: float) -> None:
        raise KeyboardInterrupt

    handle = started([torch.ones(3)])
    monkeypatch.setattr(_queued.time, "sleep", pause)
    with pytest.raises(KeyboardInterrupt):
        handle.synchronize()
    cuda.event.over = True
    handle.synchronize()


@pytest.mark.parametrize("handle", [0, 0x7F00])
def test_streams_by_their_handles(monkeypatch: pytest.MonkeyPatch, handle: int) -> None:
    # As torch does it: a null handle makes it take a stream from its pool.
    monkeypatch.setattr(torch.cuda, "ExternalStream", lambda handle, device: handle or "new")
    monkeypatch.setattr(torch.cuda, "default_stream", lambda device: 0)
    monkeypatch.setattr(_torch_cuda, "_streams", {})
    assert [_torch_cuda._stream(0, handle) for _ in range(2)] == [handle, handle]


def test_page_locked_sources_outlive_a_dropped_handle(cuda: Torch) -> None:
    cuda.pinned = True
    source = torch.ones(3, requires_grad=True)
    gone = weakref.finalize(source.untyped_storage(), lambda: None)
    handle = started([source])
    del handle, source
    gc.collect()
    assert gone.alive
    cuda.event.over = True
    started([torch.ones(1)])  # looks after what was dropped
    gc.collect()
    assert not gone.alive


def test_a_stream_of_another_device_is_refused(
    cuda: Torch, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Stream:
        device, cuda_stream = torch.device("cuda", 1), 0

    monkeypatch.setattr(torch.cuda, "Stream", Stream)
    handle = started([torch.ones(3)])
    with pytest.raises(ValueError, match="cuda:1.*cuda:0"):
        handle.wait(Stream())
    assert cuda.waits == []
    cuda.event.over = True
