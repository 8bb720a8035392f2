"""prefetch: items in order, ahead of the loop, with the errors where they belong."""

from __future__ import annotations

import contextvars
import inspect
import threading
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
import torch
from torch.utils.data import DataLoader, IterableDataset

import dlferry
from dlferry import _transfer

LIMIT = 60.0  # seconds after which something hangs

no_fork_warning = pytest.mark.filterwarnings("ignore:.*multi-threaded.*:DeprecationWarning")
no_core_warning = pytest.mark.filterwarnings("ignore:This DataLoader will create:UserWarning")


def items(count: int) -> Iterator[dict[str, Any]]:
    for i in range(count):
        yield {"x": np.full((2, 3), i, np.float32), "label": i, "name": str(i)}


class Batched:
    """As Ray Data's iterators are: they have to be asked for batches."""

    def iter_batches(self) -> Iterator[Any]:
        return items(3)


def numbers(prefetched: Any) -> list[int]:
    return [int(item["x"][0, 0]) for item in prefetched]


@pytest.fixture(autouse=True)
def no_thread_is_left() -> Iterator[None]:
    yield
    for thread in threading.enumerate():
        if thread.name == "dlferry-prefetch":
            thread.join(LIMIT)
            assert not thread.is_alive()


def test_signature() -> None:
    parameters = inspect.signature(dlferry.prefetch).parameters
    assert [*parameters] == ["iterable", "device", "depth", "dtype", "pack", "transform"]
    assert all(parameters[name].kind.name == "KEYWORD_ONLY" for name in [*parameters][2:])
    defaults = {name: each.default for name, each in parameters.items() if name not in "iterable"}
    del defaults["device"]
    assert defaults == {"depth": 2, "dtype": None, "pack": True, "transform": None}
    assert "Example:" in (inspect.getdoc(dlferry.prefetch) or "")


@pytest.mark.parametrize(
    ("arguments", "error", "words"),
    [
        ({"iterable": 3}, TypeError, "iterable, not a int$"),
        ({"iterable": Batched()}, TypeError, "Batched; pass what its iter_batches"),
        ({"depth": 0}, ValueError, "at least 1"),
        ({"depth": True}, TypeError, "depth"),
        ({"depth": 1.5}, TypeError, "depth"),
        ({"transform": 1}, TypeError, "transform"),
        ({"device": "nowhere"}, ValueError, "nowhere"),
        ({"device": None}, TypeError, "device"),
    ],
)
def test_arguments(arguments: dict[str, Any], error: type[Exception], words: str) -> None:
    request: dict[str, Any] = {"iterable": [], "device": "cpu", **arguments}
    with pytest.raises(error, match=words):
        dlferry.prefetch(request.pop("iterable"), request.pop("device"), **request)


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a device")
def test_a_device_that_is_missing() -> None:
    with pytest.raises(dlferry.DriverUnavailable):
        dlferry.prefetch([], "cuda")


# --- items ---


@pytest.mark.parametrize("depth", [1, 2, 7])
@pytest.mark.parametrize("count", [0, 1, 5, 100])
def test_items_come_in_order(count: int, depth: int) -> None:
    got = list(dlferry.prefetch(items(count), "cpu", depth=depth))
    assert numbers(got) == list(range(count))
    assert all(isinstance(item["x"], torch.Tensor) for item in got)
    assert [(item["label"], item["name"]) for item in got] == [(i, str(i)) for i in range(count)]


class Indexed:
    """An iterable of the old kind."""

    def __getitem__(self, index: int) -> Any:
        return [*items(3)][index]


def test_any_iterable() -> None:
    for source in ([*items(3)], tuple(items(3)), map(dict, items(3)), Indexed()):
        prefetched: Any = dlferry.prefetch(source, "cpu")  # type: ignore[arg-type]
        assert numbers(prefetched) == [0, 1, 2]


def test_len_is_that_of_the_source() -> None:
    assert len(dlferry.prefetch([1, 2, 3], "cpu")) == 3
    with pytest.raises(TypeError):
        len(dlferry.prefetch(items(3), "cpu"))


def test_each_iteration_starts_anew() -> None:
    prefetched = dlferry.prefetch([*items(4)], "cpu")
    for _ in range(3):
        assert numbers(prefetched) == [0, 1, 2, 3]
        for item in prefetched:
            assert item["label"] == 0
            break
    first, second = iter(prefetched), iter(prefetched)
    assert [(a["label"], b["label"]) for a, b in zip(first, second, strict=True)] == [
        (i, i) for i in range(4)
    ]
    assert iter(first) is first
    assert list(first) == [] and list(first) == []


def test_a_generator_is_used_up() -> None:
    prefetched = dlferry.prefetch(items(4), "cpu")
    assert numbers(prefetched) == [0, 1, 2, 3]
    assert numbers(prefetched) == []


def test_at_most_depth_items_are_under_way() -> None:
    asked, taken = threading.Semaphore(0), [0]
    most = []

    def source() -> Iterator[Any]:
        for i in range(50):
            most.append(i + 1 - taken[0])
            asked.release()
            yield i

    with dlferry.prefetch(source(), "cpu", depth=3) as prefetched:
        iterator = iter(prefetched)
        for _ in range(3):  # without anybody taking one
            assert asked.acquire(timeout=LIMIT)
        for i in range(50):
            taken[0] += 1
            assert next(iterator) == i
    assert max(most) == 3


def test_arguments_of_transfer_are_passed_on(monkeypatch: pytest.MonkeyPatch) -> None:
    seen = []
    started = _transfer.started

    def spy(tree: Any, device: Any, **request: Any) -> Any:
        seen.append((torch.device(device), request))
        return started(tree, device, **request)

    monkeypatch.setattr(_transfer, "started", spy)
    [item] = dlferry.prefetch(items(1), "cpu", dtype=torch.bfloat16, pack=False)
    assert item["x"].dtype == torch.bfloat16
    asked = {"dtype": torch.bfloat16, "pack": False, "aside": True}
    assert seen == [(torch.device("cpu"), asked)]


def test_on_the_cpu_items_are_passed_on_as_transfer_gives_them() -> None:
    buffer = np.zeros(3)

    def refilling() -> Iterator[Any]:
        for i in range(3):
            buffer[:] = i
            yield buffer

    shared = list(dlferry.prefetch(refilling(), "cpu"))
    assert [t.tolist() for t in shared] == [[2.0] * 3] * 3  # one memory, as the docstring says
    apart = list(dlferry.prefetch(refilling(), "cpu", dtype=torch.float32))
    assert [t.tolist() for t in apart] == [[float(i)] * 3 for i in range(3)]


# --- transform ---


def test_transform_runs_where_the_item_is_taken() -> None:
    threads, made = set(), []

    def transform(item: Any) -> Any:
        threads.add(threading.current_thread())
        made.append(item["label"])
        return item["x"].sum().item()

    prefetched = dlferry.prefetch(items(3), "cpu", transform=transform)
    iterator = iter(prefetched)
    assert made == []
    assert next(iterator) == 0 and made == [0]
    assert [*iterator] == [6, 12]
    assert threads == {threading.current_thread()}


@pytest.mark.parametrize("raised", [ValueError("mine"), KeyboardInterrupt()])
def test_an_error_of_transform_ends_the_iteration(raised: BaseException) -> None:
    def transform(item: Any) -> Any:
        if item["label"] == 1:
            raise raised
        return item

    iterator = iter(dlferry.prefetch(items(9), "cpu", transform=transform))
    assert next(iterator)["label"] == 0
    with pytest.raises(type(raised)) as caught:
        next(iterator)
    assert caught.value is raised
    assert list(iterator) == []


def test_transform_cannot_end_the_iteration_by_accident() -> None:
    def transform(item: Any) -> Any:
        return next(iter(()))

    with pytest.raises(RuntimeError, match="StopIteration"):
        list(dlferry.prefetch(items(2), "cpu", transform=transform))


# --- errors ---


@pytest.mark.parametrize("raised", [ValueError("mine"), KeyboardInterrupt(), SystemExit(3)])
@pytest.mark.parametrize("after", [0, 1, 4])
def test_an_error_of_the_source_arrives_in_its_place(raised: BaseException, after: int) -> None:
    def source() -> Iterator[Any]:
        yield from range(after)
        raise raised

    iterator = iter(dlferry.prefetch(source(), "cpu", depth=3))
    assert [next(iterator) for _ in range(after)] == list(range(after))
    with pytest.raises(type(raised)) as caught:
        next(iterator)
    assert caught.value is raised
    names = [entry.name for entry in caught.traceback]
    assert names[-1] == "source" and "_run" not in names
    assert list(iterator) == []


class Stops:
    """An array whose export raises what would end a loop."""

    def __dlpack__(self, **_: Any) -> Any:
        raise StopIteration

    def __dlpack_device__(self) -> tuple[int, int]:
        return (1, 0)


class Fussy(dict[str, Any]):
    """A container that is not made a second time."""

    def __copy__(self) -> Any:
        raise StopIteration


@pytest.mark.parametrize("item", [Stops(), Fussy(x=np.ones(2))], ids=["transfer", "result"])
def test_a_transfer_that_stops_the_iteration_does_not_end_it(item: Any) -> None:
    iterator = iter(dlferry.prefetch([np.ones(1), item, np.ones(1)], "cpu"))
    next(iterator)
    with pytest.raises(RuntimeError, match="raised StopIteration"):
        next(iterator)


def test_an_error_of_a_transfer_arrives_in_its_place() -> None:
    loop: list[Any] = []
    loop.append((loop, np.zeros(2)))
    iterator = iter(dlferry.prefetch([1, loop, 2], "cpu"))
    assert next(iterator) == 1
    with pytest.raises(ValueError, match="contains itself"):
        next(iterator)
    assert list(iterator) == []


def test_a_source_that_does_not_even_start() -> None:
    class Source:
        def __iter__(self) -> Iterator[Any]:
            raise OSError("mine")

    with pytest.raises(OSError, match="mine"):
        iter(dlferry.prefetch(Source(), "cpu"))


# --- the source's surroundings ---

setting: contextvars.ContextVar[str] = contextvars.ContextVar("setting", default="default")


def test_the_source_runs_in_the_context_of_iter() -> None:
    def source() -> Iterator[Any]:
        for _ in range(2):
            yield setting.get(), torch.is_grad_enabled(), threading.current_thread()

    token = setting.set("mine")
    with torch.no_grad():
        iterator = iter(dlferry.prefetch(source(), "cpu"))
    setting.reset(token)
    seen = [*iterator]
    assert [each[:2] for each in seen] == [("mine", False)] * 2
    assert seen[0][2] is not threading.current_thread()
    assert torch.is_grad_enabled()


# --- DataLoaders ---


class Stream(IterableDataset[Any]):
    def __iter__(self) -> Iterator[Any]:
        yield from items(8)


@no_fork_warning
@no_core_warning
@pytest.mark.parametrize("workers", [0, 2])
@pytest.mark.parametrize("persistent", [False, True])
def test_data_loaders(workers: int, persistent: bool) -> None:
    more: dict[str, Any] = {"timeout": LIMIT, "multiprocessing_context": "fork"} if workers else {}
    loader: Any = DataLoader(
        [*items(8)],  # type: ignore[arg-type]
        batch_size=2,
        num_workers=workers,
        persistent_workers=persistent and workers > 0,
        collate_fn=dlferry.collate,
        **more,
    )
    prefetched = dlferry.prefetch(loader, "cpu")
    assert len(prefetched) == 4
    for _ in range(2):
        assert [batch["label"].tolist() for batch in prefetched] == [[0, 1], [2, 3], [4, 5], [6, 7]]
        for batch in prefetched:  # and is left in the middle
            assert batch["x"].shape == (2, 2, 3)
            break
    prefetched.close()


def test_an_iterable_dataset() -> None:
    loader = DataLoader(Stream(), batch_size=None)
    assert numbers(dlferry.prefetch(loader, "cpu")) == list(range(8))


# --- the end ---


def test_a_closed_iteration_is_over() -> None:
    for closing in ("with", "prefetcher", "iteration", "iteration's with"):
        prefetched = dlferry.prefetch([*items(9)], "cpu")
        iterator = iter(prefetched)
        assert next(iterator)["label"] == 0
        if closing == "with":
            with prefetched as entered:
                assert entered is prefetched
        elif closing == "iteration's with":
            with iterator as inner:
                assert inner is iterator
        else:
            (prefetched if closing == "prefetcher" else iterator).close()
        assert list(iterator) == []
        iterator.close()
        prefetched.close()
        assert numbers(prefetched) == list(range(9))
