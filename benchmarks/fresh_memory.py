"""Memory as the result of a large copy gets it: mapped anew, in huge pages that the host has."""

from __future__ import annotations

import ctypes
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import Any

import torch

from benchmarks.machine import core_count

HUGE_PAGE = 2 * 2**20
_MADV_HUGEPAGE = 14
_M_MMAP_THRESHOLD = -3


def always_fresh_memory() -> bool:
    """Has the allocator map every large block anew and unmap it when freed.

    glibc does so for blocks beyond 32 MiB in any case. Below that it may hand out the block that
    the call before has freed, whose pages are already there.

    Returns:
        Whether the allocator obeys; only glibc's does.
    """
    mallopt = getattr(_libc, "mallopt", None)
    return mallopt is not None and mallopt(_M_MMAP_THRESHOLD, 2**20) == 1


def advise_huge_pages(address: int, size: int) -> bool:
    """Asks for huge pages within a block of memory; says whether the kernel agreed."""
    start = -(-address // HUGE_PAGE) * HUGE_PAGE
    stop = (address + size) // HUGE_PAGE * HUGE_PAGE
    if _madvise is None or stop <= start:
        return False
    return bool(_madvise(start, stop - start, _MADV_HUGEPAGE) == 0)


@contextmanager
def found_by_the_host(size: int) -> Iterator[None]:
    """Takes and frees `size` bytes of huge pages beforehand, so that what follows gets these.

    In a virtual machine, memory that was free for a while has been given back to the host, which
    then takes milliseconds to find a page again: many times what clearing it takes, and paid by
    whom it happens to hit. Each core takes a part, because each has free pages of its own.
    """
    block = torch.empty(size, dtype=torch.uint8)
    address, cores = block.data_ptr(), core_count()
    if advise_huge_pages(address, size):
        own, *others = (
            range(address + size * core // cores, address + size * (core + 1) // cores, HUGE_PAGE)
            for core in range(cores)
        )
        touched = [_others.submit(_touch, part) for part in others]
        _touch(own)
        for part in touched:
            part.result()
    del block
    yield


def _touch(addresses: range) -> None:
    for address in addresses:
        ctypes.memset(address, 0, 1)  # without the GIL


def _function(name: str, *arguments: Any) -> Any:
    found = getattr(_libc, name, None)
    if found is not None:
        found.argtypes = arguments
    return found


_others = ThreadPoolExecutor(max(core_count() - 1, 1))
_libc = ctypes.CDLL(None)
_madvise = _function("madvise", ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int)
