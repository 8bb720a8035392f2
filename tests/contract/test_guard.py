"""`copy_guard`: implicit copies allowed, reported or forbidden, for one thread or task."""

from __future__ import annotations

import asyncio
import logging
import threading
from typing import Any

import numpy as np
import pytest
import torch

import dlferry

A = np.arange(6, dtype=np.float32).reshape(2, 3)
IMPLICIT: dict[str, tuple[Any, dict[str, Any]]] = {
    "strides": (A[::-1], {}),
    "byte order": (A.astype(">f4"), {}),
    "dtype": (A, {"dtype": torch.float64}),
    "tensor dtype": (torch.ones(3), {"dtype": torch.float64}),
    "read-only": (b"abc", {}),
}
EXPLICIT: dict[str, tuple[Any, dict[str, Any]]] = {
    "shared": (A, {}),
    "copy=True": (A[::-1], {"copy": True}),
    "another device": (A, {"device": "meta"}),
    "numbers": ([1, 2, 3], {}),
    "a number": (1.5, {}),
    "tensor": (torch.ones(3), {}),
}


@pytest.mark.parametrize("case", IMPLICIT)
def test_error_forbids_what_was_not_asked_for(case: str) -> None:
    obj, request = IMPLICIT[case]
    with dlferry.copy_guard("error"), pytest.raises(dlferry.CopyRequired) as caught:
        dlferry.asarray(obj, **request)
    assert caught.value.reasons == dlferry.explain(obj, **request).reasons
    dlferry.asarray(obj, **request)  # and no longer


@pytest.mark.parametrize("case", EXPLICIT)
def test_error_lets_through_what_was(case: str) -> None:
    obj, request = EXPLICIT[case]
    with dlferry.copy_guard("error"):
        dlferry.asarray(obj, **request)


@pytest.mark.parametrize("case", IMPLICIT)
def test_log_names_the_line_of_the_caller(case: str, caplog: pytest.LogCaptureFixture) -> None:
    obj, request = IMPLICIT[case]
    with caplog.at_level(logging.WARNING, "dlferry"), dlferry.copy_guard("log"):
        dlferry.asarray(obj, **request)
    (record,) = caplog.records
    assert record.filename == "test_guard.py"
    assert record.funcName == "test_log_names_the_line_of_the_caller"
    assert "bytes" in record.getMessage()
    assert all(name in record.getMessage() for name in dlferry.explain(obj, **request).reasons)


def test_from_dlpack_and_to_numpy_are_guarded_too() -> None:
    with dlferry.copy_guard("error"):
        with pytest.raises(dlferry.CopyRequired):
            dlferry.from_dlpack(A[::-1])
        with pytest.raises(dlferry.CopyRequired):
            dlferry.to_numpy(torch.ones(2, dtype=torch.complex64).conj())
        dlferry.to_numpy(torch.ones(2))


def test_small_copies_can_be_let_through() -> None:
    with dlferry.copy_guard("error", min_bytes=25):
        dlferry.asarray(A[::-1])
    with dlferry.copy_guard("error", min_bytes=24), pytest.raises(dlferry.CopyRequired):
        dlferry.asarray(A[::-1])


def test_the_innermost_guard_decides() -> None:
    outer = dlferry.copy_guard("error")
    with outer:
        with dlferry.copy_guard("allow"):
            dlferry.asarray(A[::-1])
            with outer, pytest.raises(dlferry.CopyRequired):
                dlferry.asarray(A[::-1])
            dlferry.asarray(A[::-1])
        with pytest.raises(dlferry.CopyRequired):
            dlferry.asarray(A[::-1])
    dlferry.asarray(A[::-1])


def test_an_exception_ends_the_guard() -> None:
    with pytest.raises(KeyError), dlferry.copy_guard("error"):
        raise KeyError
    dlferry.asarray(A[::-1])


def test_it_decorates() -> None:
    @dlferry.copy_guard("error")
    def convert(array: Any) -> torch.Tensor:
        return dlferry.asarray(array)

    convert(A)
    for _ in range(2):
        with pytest.raises(dlferry.CopyRequired):
            convert(A[::-1])


def test_other_threads_are_not_guarded() -> None:
    done: list[torch.Tensor] = []
    with dlferry.copy_guard("error"):
        thread = threading.Thread(target=lambda: done.append(dlferry.asarray(A[::-1])))
        thread.start()
        thread.join()
    assert len(done) == 1


def test_tasks_are_guarded_one_by_one() -> None:
    async def guarded(ready: asyncio.Event, go: asyncio.Event) -> str:
        with dlferry.copy_guard("error"):
            ready.set()
            await go.wait()
            try:
                dlferry.asarray(A[::-1])
            except dlferry.CopyRequired:
                return "refused"
        return "copied"

    async def main() -> tuple[str, torch.Tensor]:
        ready, go = asyncio.Event(), asyncio.Event()
        task = asyncio.create_task(guarded(ready, go))
        await ready.wait()
        free = dlferry.asarray(A[::-1])
        go.set()
        return await task, free

    answer, free = asyncio.run(main())
    assert answer == "refused"
    assert free.tolist() == A[::-1].tolist()


def test_threads_may_share_a_guard() -> None:
    guard = dlferry.copy_guard("error")
    outside = threading.Barrier(2, timeout=10)
    caught: list[str] = []

    def use(first_out: bool) -> None:
        try:
            with guard:
                outside.wait()
                if not first_out:
                    outside.wait()
                with pytest.raises(dlferry.CopyRequired):
                    dlferry.asarray(A[::-1])
            if first_out:
                outside.wait()
            dlferry.asarray(A[::-1])  # no longer guarded
        except Exception as error:  # noqa: BLE001
            caught.append(repr(error))

    threads = [threading.Thread(target=use, args=(first_out,)) for first_out in (True, False)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert caught == []


def test_a_guard_may_be_used_within_itself() -> None:
    guard = dlferry.copy_guard("error")
    with guard:
        with guard:
            pass
        with pytest.raises(dlferry.CopyRequired):
            dlferry.asarray(A[::-1])
    dlferry.asarray(A[::-1])


def test_it_does_not_decorate_what_runs_later() -> None:
    async def coroutine() -> None: ...

    async def generator() -> Any:
        yield 1

    for function in (coroutine, generator, lambda: (yield)):
        with pytest.raises(TypeError, match="inside it"):
            dlferry.copy_guard("error")(function)


def test_wrong_arguments() -> None:
    with pytest.raises(ValueError, match="mode"):
        dlferry.copy_guard("perhaps")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="min_bytes"):
        dlferry.copy_guard("error", min_bytes=-1)
