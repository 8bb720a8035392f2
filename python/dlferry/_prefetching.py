"""One iteration of a prefetcher: the items in order, and the end of the thread that makes them."""

from __future__ import annotations

import weakref
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any

from dlferry._producer import CLOSE_SECONDS, Failure, Producer

if TYPE_CHECKING:
    from types import TracebackType

    from typing_extensions import Self

STOPPED = "{} raised StopIteration"  # which would end the loop without a word


class Closeable(ABC):
    """Ends with the block of a ``with`` statement."""

    @abstractmethod
    def close(self) -> None:
        """End, and wait for what has to end with it."""

    def __enter__(self) -> Self:
        """Close when the block is left."""
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        """As `close`."""
        self.close()


class Prefetching(Closeable, Iterator[Any]):
    """One iteration of a `Prefetcher`."""

    def __init__(self, producer: Producer, transform: Callable[[Any], Any] | None) -> None:
        self._producer = producer
        self._transform = transform
        producer.consumer = weakref.ref(self)

    def __next__(self) -> Any:
        """The next item; waits for it where it has not been made yet.

        Raises:
            StopIteration: There are no more, or the iteration was closed.
            RuntimeError: In a forked child, which has no thread that would make one.
        """
        producer = self._producer
        if producer.is_elsewhere:
            raise RuntimeError("this iteration goes on in the parent process; start a new one here")
        try:
            item = self._arrived()
            producer.permit()  # one that is lost to an interrupt would be missed for ever
        except BaseException:
            producer.stop()
            raise
        return item if self._transform is None else self._transformed(item)

    def _arrived(self) -> Any:
        arrival = self._producer.arrivals.get()
        if arrival is None:
            self._leave()
            raise StopIteration
        if isinstance(arrival, Failure):
            self._leave()
            try:
                raise arrival.error
            finally:
                del arrival  # the traceback leads to this frame, and would keep itself alive
        try:
            return arrival.result()
        except StopIteration as error:
            raise RuntimeError(STOPPED.format("a transfer")) from error

    def _leave(self) -> None:
        """The thread has nothing left to do, unless it was stopped inside of the source."""
        if not self._producer.stopped:
            self._producer.join(CLOSE_SECONDS)

    def _transformed(self, item: Any) -> Any:
        assert self._transform is not None
        try:
            return self._transform(item)
        except StopIteration as error:
            self._producer.stop()
            raise RuntimeError(STOPPED.format("transform")) from error
        except BaseException:
            self._producer.stop()
            raise

    def close(self) -> None:
        """End this iteration, as `Prefetcher.close` does."""
        self._producer.stop()
        self._producer.join(CLOSE_SECONDS)

    def __del__(self) -> None:
        """Without waiting: whoever drops an iterator does not expect it to."""
        self._producer.stop()
