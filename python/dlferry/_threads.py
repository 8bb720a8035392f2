"""How many threads share a large copy: ``DLFERRY_THREADS``, read once.

Without it there are as many as the process has processors, and one in a forked child, as in the
workers of a DataLoader: those already share the processors among them.
"""

from __future__ import annotations

import os

from dlferry._environment import positive_number
from dlferry._native import core


def configure() -> None:
    """Put the setting into effect, here and in children to come."""
    count = positive_number("DLFERRY_THREADS")
    core.set_worker_count(count)
    if count == 0 and hasattr(os, "register_at_fork"):
        os.register_at_fork(after_in_child=share_processors)


def share_processors() -> None:
    """Copy with one thread, beside other processes that do so, unless the setting says else."""
    if positive_number("DLFERRY_THREADS") == 0:
        core.set_worker_count(1)
