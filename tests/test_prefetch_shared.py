"""prefetch: one prefetcher that several threads start and close."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

import dlferry
from dlferry._prefetching import Prefetching
from dlferry._producer import Producer

LIMIT = 60.0  # seconds after which something hangs


@pytest.fixture
def started() -> Iterator[list[Prefetching]]:
    """What a test starts, which ends with it."""
    iterations: list[Prefetching] = []
    yield iterations
    for iteration in iterations:
        iteration.close()
        assert not iteration._producer.is_alive


def in_another_thread(work: Callable[[], Any]) -> Any:
    with ThreadPoolExecutor() as pool:
        return pool.submit(work).result(LIMIT)


def test_iterations_that_start_at_a_time_are_all_closed(
    started: list[Prefetching], monkeypatch: pytest.MonkeyPatch
) -> None:
    prefetched = dlferry.prefetch(iter(int, 1), "cpu")
    started.append(iter(prefetched))
    look, others = Producer.is_alive.fget, [lambda: iter(prefetched)]
    assert look is not None

    def is_alive(producer: Producer) -> bool:
        if others:
            started.append(in_another_thread(others.pop()))
        return bool(look(producer))

    monkeypatch.setattr(Producer, "is_alive", property(is_alive))
    started.append(iter(prefetched))
    prefetched.close()
    assert len(started) == 3
    assert all(iteration._producer.stopped for iteration in started)


def test_close_does_not_wait_for_an_iteration_that_starts_meanwhile(
    started: list[Prefetching], monkeypatch: pytest.MonkeyPatch
) -> None:
    prefetched = dlferry.prefetch(iter(int, 1), "cpu")
    started.append(iter(prefetched))
    stop_it, join_it, others = Producer.stop, Producer.join, [lambda: iter(prefetched)]
    joined: list[Producer] = []

    def stop(producer: Producer) -> None:
        stop_it(producer)
        if others:
            started.append(in_another_thread(others.pop()))

    def join(producer: Producer, timeout: float | None = None) -> bool:
        joined.append(producer)
        return producer.stopped and join_it(producer, timeout)

    monkeypatch.setattr(Producer, "stop", stop)
    monkeypatch.setattr(Producer, "join", join)
    prefetched.close()
    first, second = started
    assert second._producer not in joined
    assert list(first) == [] and next(second) == 0
