"""Memory, owners and threads.

DLFERRY_TEST_LOOPS sets how many conversions of each kind are made (20000 by default).
"""

from __future__ import annotations

import ctypes
import gc
import os
import sys
import weakref
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from forge import VERSIONED_NAME, ArrayProducer, take

import dlferry

LOOPS = int(os.environ.get("DLFERRY_TEST_LOOPS", "20000"))
PAGE = os.sysconf("SC_PAGE_SIZE")


def resident() -> int:
    """Bytes of this process in memory."""
    return int(Path("/proc/self/statm").read_text().split()[1]) * PAGE


def numbers() -> np.ndarray[Any, Any]:
    """An array that owns its memory, so that whoever shares it holds this very object."""
    return np.arange(64, dtype=np.float32).reshape(8, 8).copy()


def frozen() -> np.ndarray[Any, Any]:
    a = numbers()
    a.flags.writeable = False
    return a


def refused(convert: Callable[..., Any], x: Any, **request_: Any) -> None:
    try:
        convert(x, **request_)
    except (TypeError, ValueError, BufferError):
        return
    raise AssertionError("expected a refusal")


# kind -> (the source, what is done with it)
KINDS: dict[str, tuple[Callable[[], Any], Callable[[Any], Any]]] = {
    "asarray(ndarray)": (numbers, dlferry.asarray),
    "asarray(field view)": (lambda: np.zeros(8, "f4,f4")["f1"], dlferry.asarray),
    "asarray(read-only, share)": (frozen, lambda x: dlferry.asarray(x, readonly="share")),
    "asarray(read-only)": (frozen, dlferry.asarray),
    "asarray(reversed)": (lambda: numbers()[::-1], dlferry.asarray),
    "asarray(foreign order)": (lambda: numbers().astype(">f4"), dlferry.asarray),
    "asarray(ndarray, copy)": (numbers, lambda x: dlferry.asarray(x, copy=True)),
    "asarray(ndarray, dtype)": (numbers, lambda x: dlferry.asarray(x, dtype=torch.float64)),
    "asarray(tensor)": (lambda: torch.ones(8), dlferry.asarray),
    "asarray(tensor, copy)": (lambda: torch.ones(8), lambda x: dlferry.asarray(x, copy=True)),
    "asarray(tensor, grad)": (
        lambda: torch.ones(8),
        lambda x: dlferry.asarray(x, requires_grad=True),
    ),
    "asarray(object)": (lambda: ArrayProducer(numbers()), dlferry.asarray),
    "asarray(list)": (lambda: [[1.0, 2], [3, True]], dlferry.asarray),
    "asarray(list of arrays)": (lambda: [numbers(), numbers()], dlferry.asarray),
    "asarray(number)": (lambda: 1.5, dlferry.asarray),
    "asarray(NumPy scalar)": (lambda: np.float32(1.5), dlferry.asarray),
    "from_dlpack(tensor)": (lambda: torch.ones(8), dlferry.from_dlpack),
    "from_dlpack(ndarray)": (numbers, dlferry.from_dlpack),
    "from_dlpack(object)": (lambda: ArrayProducer(numbers()), dlferry.from_dlpack),
    "to_numpy(tensor)": (lambda: torch.ones(8), dlferry.to_numpy),
    "to_numpy(bfloat16)": (lambda: torch.ones(8, dtype=torch.bfloat16), dlferry.to_numpy),
    "to_numpy(conj)": (lambda: torch.ones(8, dtype=torch.complex64).conj(), dlferry.to_numpy),
    "to_numpy(tensor, copy)": (lambda: torch.ones(8), lambda x: dlferry.to_numpy(x, copy=True)),
    "there and back": (numbers, lambda x: dlferry.to_numpy(dlferry.asarray(x))),
    "refused: copy": (lambda: numbers()[::-1], lambda x: refused(dlferry.asarray, x, copy=False)),
    "refused: type": (lambda: {1}, lambda x: refused(dlferry.asarray, x)),
    "refused: argument": (numbers, lambda x: refused(dlferry.asarray, x, dtype=3)),
    "refused: ragged": (lambda: [[1], [1, 2]], lambda x: refused(dlferry.asarray, x)),
    "refused: grad": (
        lambda: torch.ones(2, requires_grad=True),
        lambda x: refused(dlferry.from_dlpack, x),
    ),
}


def capsule_loop(x: Any) -> Any:
    return dlferry.asarray(x.__dlpack__(max_version=(1, 0)))


def measure(source: Any, convert: Callable[[Any], Any]) -> int:
    """Resident bytes gained over LOOPS conversions, after as many again have warmed it up."""
    for _ in range(min(LOOPS, 5000)):
        convert(source)
    gc.collect()
    before = resident()
    for _ in range(LOOPS):
        convert(source)
    gc.collect()
    return resident() - before


@pytest.mark.parametrize("kind", KINDS)
def test_memory_and_references_stay_flat(kind: str) -> None:
    make, convert = KINDS[kind]
    source = make()
    references = sys.getrefcount(source)
    gained = measure(source, convert)
    # Sixteen bytes lost in each of the conversions would show.
    assert gained < max(LOOPS * 16, 1 << 18)
    assert sys.getrefcount(source) == references


@pytest.mark.native
def test_memory_and_references_stay_flat_with_capsules() -> None:
    source = numbers()
    references = sys.getrefcount(source)
    assert measure(source, capsule_loop) < max(LOOPS * 16, 1 << 18)
    assert sys.getrefcount(source) == references


@pytest.mark.parametrize("kind", ["asarray(ndarray)", "from_dlpack(ndarray)", "asarray(object)"])
def test_the_owner_is_held_by_each_result_and_let_go_with_it(kind: str) -> None:
    _, convert = KINDS[kind]
    a = numbers()
    x = ArrayProducer(a) if "object" in kind else a
    references = sys.getrefcount(a)
    results = [convert(x) for _ in range(100)]
    assert sys.getrefcount(a) > references
    del results[::2]
    assert sys.getrefcount(a) > references
    results.clear()
    assert sys.getrefcount(a) == references


@pytest.mark.parametrize("convert", [dlferry.asarray, dlferry.from_dlpack])
def test_the_owner_lives_as_long_as_the_last_tensor(convert: Any) -> None:
    a = numbers()
    owner = weakref.ref(a)
    t = convert(a)
    part = t[2:].t()
    del a, t
    gc.collect()
    assert owner() is not None
    assert part.sum() == np.arange(16, 64).sum()
    del part
    gc.collect()
    assert owner() is None


@pytest.mark.parametrize("request_", [{"copy": True}, {"dtype": torch.float64}])
def test_a_copy_does_not_hold_its_source(request_: dict[str, Any]) -> None:
    a = numbers()
    owner = weakref.ref(a)
    t = dlferry.asarray(a, **request_)
    del a
    gc.collect()
    assert owner() is None and t.sum() == np.arange(64).sum()


def test_a_cycle_through_the_owner_is_no_leak() -> None:
    a = numbers()
    owner = weakref.ref(a)
    t = dlferry.asarray(a)
    t.mark = [t]  # type: ignore[attr-defined]
    del a, t
    gc.collect()
    assert owner() is None


# --- threads ---


def run_threads(count: int, body: Callable[[int], None]) -> None:
    with ThreadPoolExecutor(count) as pool:
        for done in [pool.submit(body, index) for index in range(count)]:
            done.result()


def test_many_threads_convert_at_once() -> None:
    shared = numbers()
    references = sys.getrefcount(shared)

    def body(index: int) -> None:
        own = np.full(16, index, np.float32)
        for _ in range(LOOPS // 20):
            assert dlferry.asarray(shared)[1, 1] == 9
            assert dlferry.asarray(own).sum() == 16 * index
            assert dlferry.to_numpy(dlferry.from_dlpack(own))[3] == index
            assert dlferry.asarray([index, 1.0], dtype=torch.float64)[0] == index

    run_threads(4, body)
    assert sys.getrefcount(shared) == references


def test_results_die_in_another_thread() -> None:
    a = numbers()
    t = torch.ones(64)
    references = sys.getrefcount(a), sys.getrefcount(t)
    results = [dlferry.asarray(a) for _ in range(400)] + [dlferry.to_numpy(t) for _ in range(400)]

    def body(_: int) -> None:
        while results:
            try:
                results.pop()
            except IndexError:
                return

    run_threads(4, body)
    gc.collect()
    assert (sys.getrefcount(a), sys.getrefcount(t)) == references


LIBC = ctypes.CDLL(None)
LIBC.pthread_create.argtypes = [ctypes.c_void_p] * 4
LIBC.pthread_join.argtypes = [ctypes.c_ulong, ctypes.c_void_p]


def export(t: torch.Tensor) -> tuple[int, int]:
    """A managed tensor of torch's own that holds `t`, and the address of its deleter."""
    pointer = take(t.__dlpack__())
    return pointer, ctypes.c_void_p.from_address(pointer + 56).value or 0


def test_a_deleter_runs_on_a_thread_that_python_does_not_know() -> None:
    a = numbers()
    owner = weakref.ref(a)
    pointer, deleter = export(dlferry.asarray(a))
    del a
    gc.collect()
    assert owner() is not None
    thread = ctypes.c_ulong()
    assert LIBC.pthread_create(ctypes.addressof(thread), None, deleter, pointer) == 0
    assert LIBC.pthread_join(thread, None) == 0
    gc.collect()
    assert owner() is None


def test_a_deleter_runs_without_the_gil() -> None:
    a = numbers()
    owner = weakref.ref(a)
    pointer, deleter = export(dlferry.asarray(a))
    del a
    ctypes.CFUNCTYPE(None, ctypes.c_void_p)(deleter)(pointer)  # CFUNCTYPE lets go of the GIL
    gc.collect()
    assert owner() is None


def test_numpy_takes_a_result_and_gives_it_back() -> None:
    a = numbers()
    owner = weakref.ref(a)
    again = np.from_dlpack(dlferry.asarray(a))
    twice = dlferry.asarray(again)
    del a, again
    gc.collect()
    assert twice[7, 7] == 63 and owner() is not None
    del twice
    gc.collect()
    assert owner() is None
    capsule = dlferry.asarray(numbers()).__dlpack__(max_version=(1, 0))
    assert take(capsule, VERSIONED_NAME)


class NoMemoryForTheObject:
    """torch's import in its exchange table, as when there is no memory for the Python object.

    It has made a tensor by then, whose end lets go of what was to be imported, and fails.
    """

    # Of the table: a version, the previous table, and two functions stand before.
    IMPORT = 32

    def __init__(self) -> None:
        get = ctypes.PYFUNCTYPE(ctypes.c_void_p, ctypes.py_object, ctypes.c_char_p)(
            ("PyCapsule_GetPointer", ctypes.pythonapi)
        )
        table = get(torch.Tensor.__dlpack_c_exchange_api__, b"dlpack_exchange_api")
        self.slot = ctypes.c_void_p.from_address(table + self.IMPORT)
        out_type = ctypes.POINTER(ctypes.c_void_p)
        signature = ctypes.PYFUNCTYPE(ctypes.c_int, ctypes.c_void_p, out_type)
        real = signature(self.slot.value or 0)

        def fail(managed: int, out: Any) -> int:
            tensor = ctypes.c_void_p()
            assert real(managed, ctypes.pointer(tensor)) == 0
            ctypes.pythonapi.Py_DecRef(tensor)
            return -1

        self.fails = signature(fail)

    def __enter__(self) -> None:
        self.real = self.slot.value
        self.slot.value = ctypes.cast(self.fails, ctypes.c_void_p).value

    def __exit__(self, *_: object) -> None:
        self.slot.value = self.real


@pytest.mark.native
@pytest.mark.skipif(
    not hasattr(torch.Tensor, "__dlpack_c_exchange_api__"), reason="imports through the table"
)
@pytest.mark.parametrize("axes", [2, 7])
@pytest.mark.parametrize("step", [1, 2])
def test_an_import_that_fails_late_lets_go_once(axes: int, step: int) -> None:
    a = np.arange(8.0).reshape((1,) * (axes - 1) + (8,))[..., ::step]
    dlferry.asarray(a)
    references = sys.getrefcount(a)
    with NoMemoryForTheObject(), pytest.raises(SystemError):  # the error is torch's to set
        dlferry.asarray(a)
    assert sys.getrefcount(a) == references
    first, second = dlferry.asarray(np.zeros(3)), dlferry.asarray(np.ones(3))
    assert first.sum() == 0 and second.sum() == 3
