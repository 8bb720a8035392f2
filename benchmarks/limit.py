"""The limit for large copies: parallel `memcpy` into fresh, cheaply faulted memory.

A copy into fresh memory pays three times: for reading, for writing, and for the kernel, which has
to find and clear every page on first touch. With pages of 4 KiB the kernel's part is several times
the copy itself, so the limit asks for huge pages, and one thread for each core faults and fills its
own part.
"""

from __future__ import annotations

import ctypes
import itertools
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import torch
from numpy.typing import NDArray

from benchmarks.fresh_memory import HUGE_PAGE, advise_huge_pages
from benchmarks.machine import core_count


class ParallelMemcpy:
    """Copies a contiguous array of bytes into new torch memory, one part for each core."""

    def __init__(self, threads: int | None = None) -> None:
        self.threads = threads or core_count()
        self._pool = ThreadPoolExecutor(max(self.threads - 1, 1))

    def __call__(self, source: NDArray[np.uint8]) -> torch.Tensor:
        result = torch.empty(source.nbytes, dtype=torch.uint8)
        into, taken_from = result.data_ptr(), source.ctypes.data
        advise_huge_pages(into, source.nbytes)
        cuts = self._cuts(into, source.nbytes)
        # ctypes lets go of the GIL during a call, so the parts are copied side by side.
        own, *others = itertools.pairwise(cuts)
        running = [
            self._pool.submit(ctypes.memmove, into + start, taken_from + start, stop - start)
            for start, stop in others
        ]
        ctypes.memmove(into, taken_from, own[1])
        for part in running:
            part.result()
        return result

    def _cuts(self, address: int, size: int) -> list[int]:
        """Where the parts begin and end; between pages, so that no page has two owners."""
        inner = [
            (address + size * part // self.threads) // HUGE_PAGE * HUGE_PAGE - address
            for part in range(1, self.threads)
        ]
        return [0, *(max(cut, 0) for cut in inner), size]
