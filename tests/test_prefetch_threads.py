"""prefetch: what its thread holds, waits for and leaves behind, and how it ends."""

from __future__ import annotations

import contextlib
import gc
import itertools
import os
import signal
import threading
import weakref
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest

import dlferry
from dlferry import _prefetch, _prefetching, _producer, _transfer

LIMIT = 60.0  # seconds after which something hangs


def prefetch_threads() -> list[threading.Thread]:
    return [each for each in threading.enumerate() if each.name == "dlferry-prefetch"]


def assert_threads_end() -> None:
    for thread in prefetch_threads():
        thread.join(LIMIT)
        assert not thread.is_alive()
    assert not _producer._running


@pytest.fixture(autouse=True)
def no_thread_is_left() -> Iterator[None]:
    yield
    assert_threads_end()


class Moving:
    """A transfer of one item, which is read when the test says so."""

    def __init__(self, item: Any, log: list[str], read: Callable[[], Any]) -> None:
        self._item, self._log, self._read = item, log, read

    def _wait_until_read(self) -> None:
        self._read()
        self._log.append(f"read {self._item}")

    def cancel(self) -> bool:
        self._log.append(f"cancel {self._item}")
        return True

    def result(self) -> Any:
        self._log.append(f"result {self._item}")
        return self._item


@pytest.fixture
def moving(monkeypatch: pytest.MonkeyPatch) -> Callable[..., list[str]]:
    """Puts `Moving` in place of transfers; returns the log of what happens to them."""

    def install(read: Callable[[], Any] = lambda: None) -> list[str]:
        log: list[str] = []

        def transfer(tree: Any, device: Any, **request: Any) -> Moving:
            log.append(f"start {tree}")
            return Moving(tree, log, read)

        monkeypatch.setattr(_transfer, "started", transfer)
        return log

    return install


class Gated:
    """An iterator that makes an item each time the test lets it."""

    def __init__(self, make: Callable[[int], Any] = lambda i: i, free: int = 0) -> None:
        self.asked = threading.Semaphore(0)
        self.gate = threading.Semaphore(free)
        self._make = make
        self._count = 0

    def __iter__(self) -> Gated:
        return self

    def __next__(self) -> Any:
        self.asked.release()
        assert self.gate.acquire(timeout=LIMIT)
        self._count += 1
        return self._make(self._count - 1)


# --- the source's memory ---


def test_the_source_is_asked_when_the_item_before_has_been_read(
    moving: Callable[..., list[str]],
) -> None:
    log = moving()

    def source() -> Iterator[int]:
        for i in range(4):
            log.append(f"ask {i}")
            yield i

    assert [*dlferry.prefetch(source(), "cpu", depth=4)] == [0, 1, 2, 3]
    steps = [step for step in log if not step.startswith("result")]
    assert steps == [f"{step} {i}" for i in range(4) for step in ("ask", "start", "read")]


def test_an_item_can_be_taken_before_it_has_been_read(moving: Callable[..., list[str]]) -> None:
    gate = threading.Event()
    log = moving(lambda: gate.wait(LIMIT))
    iterator = iter(dlferry.prefetch(range(2), "cpu"))
    assert next(iterator) == 0
    assert "read 0" not in log and "start 1" not in log
    gate.set()
    assert [*iterator] == [1]


# --- what is kept ---


def test_nothing_is_kept_of_an_item_that_was_taken() -> None:
    owners: list[weakref.ref[Any]] = []

    def make(_: int) -> Any:
        array = np.zeros(1000)
        owners.append(weakref.ref(array))
        return {"x": array}

    source = Gated(make, free=3)
    iterator = iter(dlferry.prefetch(source, "cpu", depth=4))
    for _ in range(4):
        assert source.asked.acquire(timeout=LIMIT)
    # The thread waits inside of the source for the fourth item, the others wait to be taken.
    gc.disable()
    try:
        for i in range(3):
            item = next(iterator)
            assert owners[i]() is not None
            del item
            assert owners[i]() is None
    finally:
        gc.enable()
    iterator._producer.stop()
    source.gate.release(9)
    assert_threads_end()
    assert len(owners) == 4 and owners[3]() is None


def test_the_source_is_let_go_at_the_end() -> None:
    class Source:
        def __iter__(self) -> Iterator[int]:
            yield from range(2)

    source = Source()
    gone = weakref.ref(source)
    prefetched = dlferry.prefetch(source, "cpu")
    generator = iter(source)
    inner = weakref.ref(generator)
    iterator = iter(dlferry.prefetch(generator, "cpu"))
    del generator, source
    assert [*iterator] == [0, 1] and inner() is None
    del prefetched
    assert gone() is None


def test_an_error_keeps_nothing_once_it_is_dropped() -> None:
    class Big:
        pass

    owners: list[weakref.ref[Any]] = []

    def source() -> Iterator[Any]:
        big = Big()
        owners.append(weakref.ref(big))
        yield 1
        raise ValueError

    gc.disable()
    try:
        iterator = iter(dlferry.prefetch(source(), "cpu"))
        with contextlib.suppress(ValueError):
            list(iterator)
        assert_threads_end()
        assert owners[0]() is None
    finally:
        gc.enable()


# --- iterators that nobody wants any more ---


def test_an_abandoned_iterator_ends_its_thread(moving: Callable[..., list[str]]) -> None:
    log = moving()
    for _ in dlferry.prefetch(iter(int, 1), "cpu", depth=3):
        break
    assert_threads_end()
    assert log.count("start 0") == log.count("cancel 0") + 1


def test_an_abandoned_cycle_ends_its_thread() -> None:
    holder: list[Any] = []
    holder.append((holder, iter(dlferry.prefetch(iter(int, 1), "cpu"))))
    next(holder[0][1])
    del holder
    gc.collect()
    assert_threads_end()


def test_abandoning_does_not_wait_for_the_source(moving: Callable[..., list[str]]) -> None:
    log = moving()
    source = Gated()
    iterator = iter(dlferry.prefetch(source, "cpu"))
    assert source.asked.acquire(timeout=LIMIT)
    del iterator  # or this would wait for the gate
    source.gate.release()
    assert_threads_end()
    assert log == ["start 0", "read 0", "cancel 0"]


def test_a_new_iteration_waits_until_the_source_is_free() -> None:
    source = Gated()
    prefetched = dlferry.prefetch(source, "cpu")
    first = iter(prefetched)
    assert source.asked.acquire(timeout=LIMIT)
    del first
    opening = threading.Timer(0.0, source.gate.release, [2])
    opening.start()
    assert next(iter(prefetched)) == 1  # the first one went to the iteration that was dropped
    opening.join(LIMIT)
    source.gate.release(9)


def test_many_iterations_leave_nothing() -> None:
    prefetched = dlferry.prefetch([{"x": np.zeros(3)}] * 9, "cpu", depth=3)
    for _ in range(200):
        for item in prefetched:
            assert item["x"].shape == (3,)
            break
    assert_threads_end()
    assert len(prefetched._producers) == 1


# --- close ---


def test_close_waits_for_the_thread() -> None:
    prefetched = dlferry.prefetch(iter(int, 1), "cpu")
    iterators = [iter(prefetched) for _ in range(3)]
    assert [next(iterator) for iterator in iterators] == [0, 0, 0]
    prefetched.close()
    assert prefetch_threads() == []


@pytest.mark.parametrize("which", ["prefetcher", "iteration"])
def test_close_does_not_wait_for_ever(which: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_prefetch, "CLOSE_SECONDS", 0.01)
    source = Gated()
    prefetched = dlferry.prefetch(source, "cpu")
    iterator = iter(prefetched)
    assert source.asked.acquire(timeout=LIMIT)
    (prefetched if which == "prefetcher" else iterator).close()
    assert len(prefetch_threads()) == 1
    assert list(iterator) == []
    source.gate.release()


def test_close_wakes_whoever_waits_for_an_item() -> None:
    source = Gated()
    iterator = iter(dlferry.prefetch(source, "cpu"))
    got: list[Any] = []
    waiting = threading.Thread(target=lambda: got.append(list(iterator)))
    waiting.start()
    assert source.asked.acquire(timeout=LIMIT)
    iterator._producer.stop()
    waiting.join(LIMIT)
    assert got == [[]]
    source.gate.release()


def test_the_source_may_close_its_own_iteration() -> None:
    running: list[Any] = []
    ready = threading.Event()

    def source() -> Iterator[int]:
        assert ready.wait(LIMIT)
        running[0].close()
        yield 1

    running.append(iter(dlferry.prefetch(source(), "cpu")))
    ready.set()
    assert list(running[0]) == []


def test_threads_share_an_iteration() -> None:
    iterator = iter(dlferry.prefetch(range(300), "cpu", depth=4))
    got: list[list[int]] = [[] for _ in range(4)]
    threads = [threading.Thread(target=lambda i=i: got[i].extend(iterator)) for i in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(LIMIT)
    assert sorted([*got[0], *got[1], *got[2], *got[3]]) == list(range(300))


# --- interrupts ---


def test_an_interrupt_while_waiting_for_an_item() -> None:
    about_to_wait, hold = threading.Event(), threading.Event()

    def source() -> Iterator[int]:
        assert about_to_wait.wait(LIMIT)
        os.kill(os.getpid(), signal.SIGINT)
        assert hold.wait(LIMIT)
        yield 1

    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        iterator = iter(dlferry.prefetch(source(), "cpu"))
        with pytest.raises(KeyboardInterrupt):
            about_to_wait.set()
            next(iterator)
            pytest.fail("the interrupt was lost")
    finally:
        signal.signal(signal.SIGINT, before)
        hold.set()
    iterator.close()
    assert list(iterator) == []


def test_an_interrupt_when_an_item_has_been_taken(monkeypatch: pytest.MonkeyPatch) -> None:
    iterator = iter(dlferry.prefetch(range(9), "cpu", depth=1))
    permit, interrupts = _producer.Producer.permit, [KeyboardInterrupt]

    def interrupted(producer: _producer.Producer) -> None:
        if interrupts:
            raise interrupts.pop()
        permit(producer)

    monkeypatch.setattr(_producer.Producer, "permit", interrupted)
    with pytest.raises(KeyboardInterrupt):
        next(iterator)
    assert list(iterator) == []  # and does not wait for an item that nobody permits


def test_an_interrupt_in_the_loop_with_a_with() -> None:
    def loop() -> None:
        with dlferry.prefetch(iter(int, 1), "cpu") as items:
            for _ in items:
                raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        loop()
    assert prefetch_threads() == []


def test_a_finalizer_that_is_interrupted(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_producer, "LOOK_SECONDS", 0.01)
    monkeypatch.setattr(_prefetching.Prefetching, "__del__", lambda self: None)
    iterator = iter(dlferry.prefetch(itertools.count(), "cpu"))
    assert next(iterator) == 0
    del iterator
    assert_threads_end()
