"""The thread that runs the source of a prefetcher and starts the transfers."""

from __future__ import annotations

import atexit
import contextlib
import contextvars
import functools
import os
import threading
import time
from collections.abc import Callable, Iterator
from queue import Empty, SimpleQueue
from typing import TYPE_CHECKING, Any

from dlferry._torch import torch

if TYPE_CHECKING:
    from dlferry._transfer import Transfer

CLOSE_SECONDS = 5.0
"""How long closing, or the end of the process, waits for the source to return."""


LOOK_SECONDS = 1.0
"""How often a producer that waits for a permit makes sure that there is still a consumer."""


class Failure:
    """Arrives in place of a transfer."""

    def __init__(self, error: BaseException) -> None:
        self.error = error


class Producer:
    """A thread, the items it has under way, and the end of both.

    Items come out of `arrivals` as handles; then comes a `Failure` or None, and None ever after.
    Each item needs a permit first. Both queues may be used inside of finalizers, whatever the
    thread that runs them is doing: nothing here is locked.
    """

    def __init__(self, source: Iterator[Any], start: Callable[[Any], Transfer], depth: int) -> None:
        self.arrivals: SimpleQueue[Transfer | Failure | None] = SimpleQueue()
        self.stopped = False
        self.consumer: Callable[[], object] | None = None
        """A weak reference to who takes the items, once there is somebody."""
        self._permits: SimpleQueue[None] = SimpleQueue()
        self._sources = [source]  # the thread takes it out, so that it alone keeps it
        self._start = start
        self._process = os.getpid()
        for _ in range(depth):
            self.permit()
        context, take_on = contextvars.copy_context(), _torch_state()
        # A daemon, so that a source that never returns does not keep the process from ending.
        # Every other thread has ended by then: `_stop_all` sees to it.
        self._thread = threading.Thread(
            target=context.run, args=(self._run, take_on), name="dlferry-prefetch", daemon=True
        )
        _stop_all_at_exit()
        _running.add(self)
        try:
            self._thread.start()
        except BaseException:
            self.stop()
            _running.discard(self)
            raise

    # --- for the consumer ---

    @property
    def is_alive(self) -> bool:
        """Whether the thread still runs; it does not in a forked child."""
        return self._thread.is_alive()

    @property
    def is_elsewhere(self) -> bool:
        """Whether the thread stayed behind in the parent of this process."""
        return os.getpid() != self._process

    def permit(self) -> None:
        """One item more may be under way."""
        self._permits.put(None)

    def stop(self) -> None:
        """Have the thread end when the source next returns, and drop what is under way."""
        self.stopped = True
        if self.is_elsewhere:
            return  # and so are the transfers
        self.permit()
        self._drain()

    def join(self, timeout: float | None = None) -> bool:
        """Wait until the thread has left the source for good; whether it has."""
        if self._thread is not threading.current_thread():
            self._thread.join(timeout)
        return not self._thread.is_alive()

    def _drain(self) -> None:
        with contextlib.suppress(Empty):
            while True:
                arrival = self.arrivals.get_nowait()
                if not (arrival is None or isinstance(arrival, Failure)):
                    arrival.cancel()
        self.arrivals.put(None)

    # --- the thread ---

    def _run(self, take_on: Callable[[], None]) -> None:
        source = self._sources.pop()
        failure: Failure | None = None
        try:
            take_on()
            while self._may_go_on():
                handle = self._start(next(source))
                self.arrivals.put(handle)
                handle._wait_until_read()
                del handle  # or it would be kept while the source makes the next item
        except StopIteration:
            pass
        except BaseException as error:  # noqa: BLE001  # the consumer gets it
            failure = Failure(_without_our_frame(error))
        # Before the end is known, so that the source is free then: another iteration may start it.
        del source
        if failure is not None:
            self.arrivals.put(failure)
        self.arrivals.put(None)
        if self.stopped:
            self._drain()
        _running.discard(self)

    def _may_go_on(self) -> bool:
        while not self.stopped:
            try:
                self._permits.get(timeout=LOOK_SECONDS)
            except Empty:
                # An interrupt in its finalizer, which Python only prints, kept it from saying so.
                if self.consumer is not None and self.consumer() is None:
                    self.stop()
            else:
                break
        return not self.stopped


def _without_our_frame(error: BaseException) -> BaseException:
    """The error as the source or the transfer raised it: our frame would keep itself alive."""
    trace = error.__traceback__
    return error.with_traceback(trace and trace.tb_next)


def _torch_state() -> Callable[[], None]:
    """What torch keeps for this thread alone; the result puts it into effect on another one.

    Whether gradients are recorded, and where torch has used CUDA, the current device and stream.
    """
    grad = torch.is_grad_enabled()
    cuda: Any = torch.cuda
    stream = cuda.current_stream() if cuda.is_initialized() else None

    def take_on() -> None:
        torch.set_grad_enabled(grad)
        if stream is not None:
            cuda.set_stream(stream)

    return take_on


# --- the end of the process ---

_running: set[Producer] = set()


@functools.cache
def _stop_all_at_exit() -> None:
    # Not before: threads that are no daemons may go on consuming until they have ended.
    atexit.register(_stop_all)


def _stop_all() -> None:
    deadline = time.monotonic() + CLOSE_SECONDS
    producers = [*_running]
    for producer in producers:
        producer.stop()
    for producer in producers:
        producer.join(max(0.0, deadline - time.monotonic()))
