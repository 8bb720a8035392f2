"""Conversions from many threads, arrays that change meanwhile, and forks in between."""

from __future__ import annotations

import ctypes
import gc
import os
import signal
import subprocess
import sys
import textwrap
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


# --- the collector, at the worst moment ---

COLLECT = """
    class Producer:
        def __dlpack__(self, **request): return a.__dlpack__(**request)
        def __dlpack_device__(self): return (1, 0)

    class Meanwhile:
        def __init__(self): self.me = self
        def __del__(self):
            global collected
            collected = True
            if {elsewhere}:
                thread = threading.Thread(target=convert)
                thread.start()
                thread.join()
            else:
                convert()

    def convert():
        return {expression}

    a = np.arange(8.0)
    dlferry.asarray(a)
    collected = False
    gc.disable()
    Meanwhile()
    # Small tuples come from a list of free ones, until it is used up.
    held = [(i, i + 1) for i in range(9000)] + [(i,) for i in range(9000)]
    gc.set_threshold(1, 1, 1)
    gc.enable()
    result = convert()
    gc.disable()
    assert collected and result.sum() == 28
    """


def run_script(source: str) -> None:
    """Runs a script in a new interpreter, which must end well and say nothing."""
    head = "import gc, os, signal, threading\nimport numpy as np, torch, dlferry\n"
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", head + textwrap.dedent(source)],
        capture_output=True,
        text=True,
        timeout=LIMIT,
        check=False,
    )
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


@pytest.mark.parametrize(
    "expression", ["dlferry.asarray(a, copy=True)", "dlferry.asarray(Producer())"]
)
@pytest.mark.parametrize("elsewhere", [False, True], ids=["same thread", "another thread"])
def test_a_collection_that_converts_inside_the_first_conversion(
    expression: str, elsewhere: bool
) -> None:
    run_script(COLLECT.format(expression=expression, elsewhere=elsewhere))


def test_the_first_conversions_of_all_threads_at_once() -> None:
    run_script("""
        import sys
        sys.setswitchinterval(1e-7)
        gate = threading.Barrier(8)
        results = []
        def body():
            gate.wait()
            results.append(dlferry.asarray(np.arange(300_000)[::-1], dtype=torch.float32))
            results.append(dlferry.asarray(torch.ones(3, dtype=torch.float8_e8m0fnu), copy=True))
        threads = [threading.Thread(target=body) for _ in range(8)]
        for thread in threads: thread.start()
        for thread in threads: thread.join()
        assert len(results) == 16 and all(r.dtype.is_floating_point for r in results)
        """)


# --- fork ---

FORK = """
    def convert(size):
        a = np.arange(size, dtype=np.float32).reshape(-1, 1024)
        t = dlferry.asarray(a.T[::-1], copy=True)
        assert np.array_equal(t.numpy(), a.T[::-1])
        assert np.array_equal(dlferry.asarray(a.astype(">f4")).numpy(), a)

    def child_converts():
        child = os.fork()
        if child == 0:
            signal.alarm(30)  # a child that hangs does not stay behind
            try:
                convert(1 << 21)
                again = threading.Thread(target=convert, args=(1 << 21,))
                again.start()
                again.join()
                os._exit(0)
            finally:
                os._exit(1)
        _, status = os.waitpid(child, 0)
        assert os.waitstatus_to_exitcode(status) == 0, status
    """

# torch's own threads stay behind in the parent: the fallback's child would wait for them, and
# nothing here may have torch compute.
FORKS = {
    "before the parent's threads": "child_converts(); convert(1 << 21)",
    "after the parent's threads": "convert(1 << 21); child_converts(); convert(1 << 21)",
    "twice": "convert(1 << 21); child_converts(); child_converts()",
    "while the parent's threads copy": """
        stop = threading.Event()
        def work():
            while not stop.is_set(): convert(1 << 20)
        convert(1 << 20)
        threads = [threading.Thread(target=work, daemon=True) for _ in range(3)]
        for thread in threads: thread.start()
        for _ in range(5): child_converts()
        stop.set()
        for thread in threads: thread.join()
        """,
}


@pytest.mark.native
@pytest.mark.parametrize("when", FORKS)
def test_a_forked_child_copies_in_parallel(when: str) -> None:
    body = textwrap.dedent(FORKS[when])
    run_script(textwrap.dedent(FORK) + body)


FORK_IN_FIRST_COPIES = """
    def copy():
        dlferry.asarray(a.T[::-1], copy=True)

    def parent(delay):
        # New every time, and forked while its threads copy for the first time in its life.
        for _ in range(2): threading.Thread(target=copy, daemon=True).start()
        for _ in range(delay): pass
        child = os.fork()
        if child == 0:
            signal.alarm(10)
            copy()
            os._exit(0)
        os._exit(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) & 0xFF)

    a = np.arange(1 << 19, dtype=np.float32).reshape(-1, 1024)
    dlferry.asarray(a[:1, :3], copy=True)  # torch's own first time, which no fork may interrupt
    for delay in range(0, 15000, 250):
        child = os.fork()
        if child == 0: parent(delay)
        assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0, delay
    """


@pytest.mark.native
def test_a_fork_in_the_middle_of_the_first_copies() -> None:
    run_script(FORK_IN_FIRST_COPIES)


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
