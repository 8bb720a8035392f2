"""`prefetch`: the next batches move while the model works on this one."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Mapping
from typing import TYPE_CHECKING, Any

from dlferry import _driver, _torch, _transfer
from dlferry._native import core
from dlferry._prefetching import STOPPED, Closeable, Prefetching
from dlferry._producer import CLOSE_SECONDS, Producer

if TYPE_CHECKING:
    import torch
    from torch.types import Device

    from dlferry._transfer import Transfer


def prefetch(
    iterable: Iterable[Any],
    device: Device,
    *,
    depth: int = 2,
    dtype: torch.dtype | Mapping[torch.dtype, torch.dtype] | None = None,
    pack: bool = True,
    transform: Callable[[Any], Any] | None = None,
) -> Prefetcher:
    """Iterate over trees of arrays on a device, with the next ones on their way.

    A thread runs the source and starts the transfers, in order. It asks for an item only after the
    memory of the one before has been read, so a generator may refill one buffer for a device. On
    the CPU an item is passed on as `transfer` gives it, on the source's memory where that can be
    shared: there such a generator has to make copies.

    Args:
        iterable: A DataLoader (workers, persistent ones too, and pinned memory as you like), what
            `iter_batches` of Ray Data returns, a generator, or any other iterable of trees as
            `transfer` takes them, of any shapes and dtypes.
        device: Where to, as in `transfer`. ``"cuda"`` is the device that is current now. With
            ``"cpu"`` the source runs ahead of the loop.
        depth: How many items are under way at most: being made, moving, or waiting to be taken.
            They all take memory on the device, besides the one that you work on.
        dtype: As in `transfer`.
        pack: As in `transfer`.
        transform: Called with each item after it was moved, by the thread that takes it, on its
            current stream: a place for work on the GPU, such as normalizing or augmenting. On a GPU
            the work is queued behind the copies of this item, while the next ones move.

    Returns:
        An iterable that starts anew each time: `iter` asks `iterable` for an iterator, there and
        then. `len` is that of `iterable`, where it has one.

        The tensors of an item are ordered for the stream that is current when it is taken, and are
        yours: nothing writes to them afterwards. Nothing is kept of an item that was taken.

        An exception of the source, of a transfer or of `transform` arrives where the item would
        have, and ends the iteration.

        An iteration that is dropped, closed or interrupted lets its thread end as soon as the
        source returns; what was under way is dropped. After a ``break`` that is at once in CPython,
        unless a traceback or a variable keeps the iterator: use ``with`` to be independent of that.
        A new iteration waits until the threads of ended ones have left the source.

    Raises:
        TypeError: An argument of the wrong type.
        ValueError: `depth` is less than 1, or torch knows no such device.
        DriverUnavailable: `device` is a CUDA device, and there is none.

    Note:
        The source runs in the context (`contextvars`) of the thread that called `iter`, with its
        grad mode and current CUDA stream; other settings that torch keeps for each thread, such as
        autocast, are torch's defaults there.

    Example:
        >>> import numpy as np, dlferry
        >>> source = ({"x": np.full(2, i), "id": f"sample {i}"} for i in range(3))
        >>> with dlferry.prefetch(source, "cpu") as batches:
        ...     for batch in batches:
        ...         print(batch["id"], batch["x"].sum().item())
        sample 0 0
        sample 1 2
        sample 2 4
    """
    return Prefetcher(iterable, device, depth, dtype, pack, transform)


class Prefetcher(Closeable):
    """What `prefetch` returns: iterable, sized where its source is, and a context manager.

    Several iterations may go on at a time where the source allows it; each has a thread of its own.
    """

    def __init__(
        self,
        iterable: Iterable[Any],
        device: Device,
        depth: int,
        dtype: torch.dtype | Mapping[torch.dtype, torch.dtype] | None,
        pack: bool,
        transform: Callable[[Any], Any] | None,
    ) -> None:
        kind = type(iterable)
        if not (hasattr(kind, "__iter__") or hasattr(kind, "__getitem__")):
            hint = "; pass what its iter_batches() returns" if hasattr(kind, "iter_batches") else ""
            raise TypeError(f"prefetch takes an iterable, not a {kind.__name__}{hint}")
        if isinstance(depth, bool) or not isinstance(depth, int):
            raise TypeError(f"depth must be an int, not {depth!r}")
        if depth < 1:
            raise ValueError(f"depth must be at least 1, and is {depth}")
        if not (transform is None or callable(transform)):
            raise TypeError(f"transform must be a function of one item, not {transform!r}")
        target = _torch.device(device)

        def start(item: Any) -> Transfer:
            if target.type == "cuda" and _driver.serves():
                core.relax_captures()  # torch's allocator calls CUDA too, on this thread of ours
            try:
                return _transfer.started(item, target, dtype=dtype, pack=pack, aside=True)
            except StopIteration as error:
                raise RuntimeError(STOPPED.format("a transfer")) from error

        self._iterable = iterable
        self._start = start
        self._depth = depth
        self._transform = transform
        # Threads share it, and finalizers may come in between: each step is one operation on it.
        self._producers: set[Producer] = set()

    def __iter__(self) -> Prefetching:
        """Start anew, with the first items on their way when this returns."""
        for producer in [*self._producers]:
            if producer.stopped:
                producer.join()
            if not producer.is_alive:
                self._producers.discard(producer)
        producer = Producer(iter(self._iterable), self._start, self._depth)
        try:
            self._producers.add(producer)
            return Prefetching(producer, self._transform)
        except BaseException:  # an interrupt
            producer.stop()
            raise

    def __len__(self) -> int:
        """The number of items, as the source tells it.

        Raises:
            TypeError: It does not.
        """
        return len(self._iterable)  # type: ignore[arg-type]

    def close(self) -> None:
        """End all iterations; `iter` starts a new one.

        Waits until their threads have ended, but not longer than 5 seconds for a source that does
        not return: such a thread ends when it does.
        """
        producers = [*self._producers]
        for producer in producers:
            producer.stop()
        deadline = time.monotonic() + CLOSE_SECONDS
        for producer in producers:
            producer.join(max(0.0, deadline - time.monotonic()))
