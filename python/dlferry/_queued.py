"""What is ordered by a stream: copies that torch has queued, and tensors that stay where they are.

They are followed as dlferry's own copies are.
"""

from __future__ import annotations

import contextlib
import math
import time
from collections.abc import Sequence
from typing import Any

from dlferry import _torch_cuda
from dlferry._torch import torch

LONGEST_PAUSE = 1e-3
"""Between two looks at a copy that somebody waits for, in seconds."""


class Queued:
    """Tensors on a device, complete when the stream that is current now has come so far.

    Args:
        tensors: What torch has made.
        device: Their device's index.
        read_late: Sources that the stream itself still reads: page-locked memory. Kept until it
            has, whatever becomes of this object: of memory that `pin` has locked, torch's allocator
            knows nothing.
    """

    def __init__(
        self, tensors: Sequence[torch.Tensor], device: int, read_late: Sequence[torch.Tensor] = ()
    ) -> None:
        self._tensors = list(tensors)
        self.device = device
        self._reads_late = bool(read_late)
        self._stream = _torch_cuda.current_stream(device)
        self._made = _torch_cuda.recorded(device)
        _forget_what_was_read()
        if read_late:
            _unread.append((self._made, [tensor.untyped_storage() for tensor in read_late]))

    def done(self) -> bool:
        """Whether the stream has come so far."""
        return bool(self._made.query())

    def cancel(self) -> bool:
        """False: what is queued goes on."""
        return False

    def synchronize(self, timeout: float | None = None) -> bool:
        """Wait until done; False when that takes more than `timeout` seconds."""
        deadline = math.inf if timeout is None else time.monotonic() + timeout
        pause = 1e-5
        while not self.done():
            left = deadline - time.monotonic()
            if left <= 0:
                return False
            time.sleep(min(pause, left))
            pause = min(2 * pause, LONGEST_PAUSE)
        return True

    def wait_until_read(self) -> None:
        """Wait until the sources may be changed: torch has read pageable ones already."""
        if self._reads_late:
            self.synchronize()

    def wait(self, stream: int | None = None) -> None:
        """Make a stream, by default the current one, wait for the copies and keep their memory."""
        if stream is None:
            stream = _torch_cuda.current_stream(self.device)
        if stream == self._stream:
            return
        _torch_cuda.wait_event(self.device, stream, self._made)
        for tensor in self._tensors:
            _torch_cuda.record(tensor, self.device, stream)

    def tensors(self) -> list[torch.Tensor]:
        """The tensors, for the current stream."""
        self.wait()
        return self._tensors


_unread: list[tuple[Any, list[Any]]] = []
"""Events, and what may be let go when the stream has come so far."""


def _forget_what_was_read() -> None:
    for entry in [*_unread]:
        if entry[0].query():
            with contextlib.suppress(ValueError):  # another thread was first
                _unread.remove(entry)


class Resident:
    """Tensors that are on their device already, for those who use them on other streams.

    Args:
        tensors: What the stream that is current now may still be working on.
        device: Their device's index.
    """

    def __init__(self, tensors: Sequence[torch.Tensor], device: int) -> None:
        self._tensors = list(tensors)
        self.device = device
        self._stream = _torch_cuda.current_stream(device)

    def done(self) -> bool:
        """True: nothing is copied."""
        return True

    def cancel(self) -> bool:
        """False: there is nothing to cancel."""
        return False

    def synchronize(self, timeout: float | None = None) -> bool:
        """True: there is nothing to wait for."""
        del timeout
        return True

    def wait_until_read(self) -> None:
        """Nothing is read."""

    def wait(self, stream: int | None = None) -> None:
        """Make a stream, by default the current one, follow the one that was current before."""
        if stream is None:
            stream = _torch_cuda.current_stream(self.device)
        if stream == self._stream:
            return
        _torch_cuda.follow(self.device, stream, self._stream)
        for tensor in self._tensors:
            _torch_cuda.record(tensor, self.device, stream)

    def tensors(self) -> list[torch.Tensor]:
        """The tensors, for the current stream."""
        self.wait()
        return self._tensors
