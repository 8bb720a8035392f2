"""Conversions from many threads, arrays that change meanwhile, and forks in between."""

from __future__ import annotations

import ctypes
import gc
import os
import signal
import sys
import threading
import weakref
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest
import torch
from forge import ArrayProducer, take

import dlferry
from dlferry import _torch

THREADS = 8
MIB = 1 << 20
LIMIT = 60.0  # seconds after which something hangs

# What each thread converts, from a number of its own: (source, what is done, expected elements).
Work = tuple[Any, Callable[[Any], Any], np.ndarray[Any, Any]]


def numbers(seed: int, size: int) -> np.ndarray[Any, Any]:
    """Distinct contents for each seed, exact in float32."""
    return (np.arange(size, dtype=np.int64) * (2 * seed + 1) % 65521).astype(np.float32)


def square(seed: int) -> np.ndarray[Any, Any]:
    return numbers(seed, 701 * 997).reshape(701, 997)


KINDS: dict[str, Callable[[int], Work]] = {
    "share": lambda i: (square(i), dlferry.asarray, square(i)),
    "share through DLPack": lambda i: (ArrayProducer(square(i)), dlferry.from_dlpack, square(i)),
    "copy": lambda i: (square(i), lambda a: dlferry.asarray(a, copy=True), square(i)),
    "transposed copy": lambda i: (
        square(i)[::-1].T,
        lambda a: dlferry.asarray(a, copy=True),
        square(i)[::-1].T,
    ),
    "foreign byte order": lambda i: (square(i).astype(">f4"), dlferry.asarray, square(i)),
    "cast": lambda i: (
        square(i),
        lambda a: dlferry.asarray(a, dtype=torch.float64),
        square(i).astype(np.float64),
    ),
    "list of numbers": lambda i: (
        numbers(i, 4000).tolist(),
        dlferry.asarray,
        numbers(i, 4000),
    ),
    "list of arrays": lambda i: (
        [numbers(i + k, 60_000) for k in range(8)],
        dlferry.asarray,
        np.stack([numbers(i + k, 60_000) for k in range(8)]),
    ),
    "to_numpy": lambda i: (torch.from_numpy(square(i)), dlferry.to_numpy, square(i)),
    "to_numpy, copy": lambda i: (
        torch.from_numpy(square(i)),
        lambda t: dlferry.to_numpy(t, copy=True),
        square(i),
    ),
}


@pytest.fixture
def eager_switching() -> Iterator[None]:
    """Makes threads take turns as often as Python can."""
    interval = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    yield
    sys.setswitchinterval(interval)


def run_threads(bodies: list[Callable[[], None]]) -> None:
    """Runs the bodies at once; the first failure is raised here."""
    gate = threading.Barrier(len(bodies))
    failures: list[BaseException] = []

    def guarded(body: Callable[[], None]) -> None:
        try:
            gate.wait(LIMIT)
            body()
        except BaseException as error:  # noqa: BLE001  # it is raised again below
            failures.append(error)

    threads = [threading.Thread(target=guarded, args=(body,), daemon=True) for body in bodies]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(LIMIT)
    if failures:
        raise failures[0]
    assert not any(thread.is_alive() for thread in threads)


def converting(work: Work, rounds: int) -> Callable[[], None]:
    source, convert, expected = work

    def body() -> None:
        for _ in range(rounds):
            result = convert(source)
            assert tuple(result.shape) == expected.shape
            assert np.array_equal(np.asarray(result), expected)

    return body


@pytest.mark.parametrize("kind", KINDS)
def test_threads_with_sources_of_their_own(kind: str) -> None:
    run_threads([converting(KINDS[kind](i), 5) for i in range(THREADS)])


def test_threads_with_different_work() -> None:
    kinds = list(KINDS.values())
    run_threads([converting(kinds[i % len(kinds)](i), 5) for i in range(THREADS + 2)])


@pytest.mark.usefixtures("eager_switching")
def test_threads_with_one_source() -> None:
    work = KINDS["copy"](3)
    references = sys.getrefcount(work[0])
    run_threads([converting(work, 4) for _ in range(THREADS)])
    gc.collect()
    left = sys.getrefcount(work[0])
    assert left == references


@pytest.mark.usefixtures("eager_switching")
def test_the_table_of_dtypes_is_never_seen_in_part() -> None:
    seen: list[int] = []

    def body() -> None:
        for _ in range(50):
            _torch._dtypes.clear()
            seen.append(len(_torch.dtypes()))

    run_threads([body] * 4)
    # Emptied by another thread between its making and its return, or whole.
    assert set(seen) <= {0, len(_torch.DTYPE_NAMES)}


# --- a source that changes while it is converted ---

SHAPES: list[tuple[int, ...]] = [
    (MIB,),
    (1 << 10, 1 << 10),
    (2, MIB // 2),
    (16, 16, 16, 256),
    (MIB // 4, 2, 2),
    (*(1,) * 20, MIB),
]


class Plain(np.ndarray[Any, Any]):
    """A subclass, which takes the general route."""


@pytest.mark.usefixtures("eager_switching")
@pytest.mark.parametrize("kind", [np.ndarray, Plain], ids=["array", "subclass"])
@pytest.mark.parametrize(
    "request_",
    [{"copy": True}, {"dtype": torch.float64}, {}, {"device": "cpu", "copy": True}],
    ids=["copy", "cast", "share", "device"],
)
def test_a_shape_that_another_thread_assigns(kind: Any, request_: dict[str, Any]) -> None:
    a = np.arange(MIB, dtype=np.int32).view(kind)
    expected = torch.arange(MIB, dtype=torch.int32)
    done = threading.Event()

    def reshape() -> None:
        turn = 0
        while not done.is_set():
            turn += 1
            with_new_shape(a, SHAPES[turn % len(SHAPES)])

    def convert() -> None:
        try:
            for _ in range(40):
                t = dlferry.asarray(a, **request_)
                assert tuple(t.shape) in SHAPES
                assert torch.equal(t.reshape(-1).to(torch.int32), expected)
        finally:
            done.set()

    run_threads([reshape, convert])


def with_new_shape(a: np.ndarray[Any, Any], shape: tuple[int, ...]) -> None:
    a.shape = shape


@pytest.mark.usefixtures("eager_switching")
def test_a_shape_that_changes_inside_a_list() -> None:
    arrays = [np.arange(4096, dtype=np.int32) for _ in range(16)]
    shapes: list[tuple[int, ...]] = [(4096,), (64, 64), (16, 16, 16)]
    expected = torch.arange(4096, dtype=torch.int32).expand(16, 4096)
    done = threading.Event()

    def reshape() -> None:
        turn = 0
        while not done.is_set():
            turn += 1
            for a in arrays:
                with_new_shape(a, shapes[turn % 3])

    def convert() -> None:
        try:
            for _ in range(100):
                try:
                    t = dlferry.asarray(arrays)
                except ValueError:
                    continue  # ragged, as it was at that moment
                assert torch.equal(t.reshape(16, 4096), expected)
        finally:
            done.set()

    run_threads([reshape, convert])


@pytest.mark.parametrize("request_", [{"copy": True}, {"dtype": torch.float64}])
def test_an_array_that_its_owner_drops_during_the_copy(request_: dict[str, Any]) -> None:
    owners: list[weakref.ref[Any]] = []

    def body(seed: int) -> None:
        for _ in range(4):
            box = [square(seed)]
            owners.append(weakref.ref(box[0]))
            dropping = threading.Thread(target=box.clear)
            dropping.start()
            # The call holds the only reference that is sure to be left.
            t = dlferry.asarray((box or [square(seed)])[0], **request_)
            dropping.join(LIMIT)
            assert np.array_equal(t.numpy(), square(seed))

    run_threads([lambda seed=seed: body(seed) for seed in range(4)])  # type: ignore[misc]
    gc.collect()
    assert not any(owner() is not None for owner in owners)


def test_a_list_that_another_thread_changes() -> None:
    items: list[Any] = [float(i) for i in range(3000)]
    done = threading.Event()

    def change() -> None:
        while not done.is_set():
            items.pop()
            items.insert(0, 1.5)
            items.append(2)
            del items[0]

    def convert() -> None:
        try:
            for _ in range(30):
                t = dlferry.asarray(items)
                assert t.dtype in (torch.float32, torch.int64) and t.dim() == 1
                assert 2998 <= t.numel() <= 3002
        finally:
            done.set()

    run_threads([change, convert])


# --- deleters ---

LIBC = ctypes.CDLL(None)
LIBC.pthread_create.argtypes = [ctypes.c_void_p] * 4
LIBC.pthread_join.argtypes = [ctypes.c_ulong, ctypes.c_void_p]


def test_deleters_run_on_many_foreign_threads_at_once() -> None:
    arrays = [numbers(i, 64).copy() for i in range(64)]
    owners = [weakref.ref(a) for a in arrays]
    pointers = [take(dlferry.asarray(a).__dlpack__()) for a in arrays]
    arrays.clear()
    gc.collect()
    assert all(owner() is not None for owner in owners)
    threads = [ctypes.c_ulong() for _ in pointers]
    for thread, pointer in zip(threads, pointers, strict=True):
        deleter = ctypes.c_void_p.from_address(pointer + 56).value or 0
        assert LIBC.pthread_create(ctypes.addressof(thread), None, deleter, pointer) == 0
    for thread in threads:
        assert LIBC.pthread_join(thread, None) == 0
    gc.collect()
    assert all(owner() is None for owner in owners)


def test_a_signal_reaches_python_while_workers_exist() -> None:
    dlferry.asarray(square(1), copy=True)
    seen: list[int] = []
    before = signal.signal(signal.SIGUSR1, lambda number, _: seen.append(number))
    try:
        for _ in range(20):
            os.kill(os.getpid(), signal.SIGUSR1)
            dlferry.asarray(square(2), copy=True)
    finally:
        signal.signal(signal.SIGUSR1, before)
    assert len(seen) == 20
