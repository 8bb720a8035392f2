"""How many threads share a large copy: ``DLFERRY_THREADS``, read once.

Without it there are as many as the process has processors, and one in a forked child, as in the
workers of a DataLoader: those already share the processors among them.
"""

from __future__ import annotations

import os

from dlferry._native import core


def threads_from_environment() -> int:
    """The number asked for; 0 when none is.

    Raises:
        ValueError: The variable holds no positive number.
    """
    text = os.environ.get("DLFERRY_THREADS", "")
    if not text:
        return 0
    if not text.isdecimal() or int(text) == 0:
        raise ValueError(f"DLFERRY_THREADS is {text!r}; it takes a positive number")
    return int(text)


def configure() -> None:
    """Put the setting into effect, here and in children to come."""
    count = threads_from_environment()
    core.set_worker_count(count)
    if count == 0 and hasattr(os, "register_at_fork"):
        os.register_at_fork(after_in_child=lambda: core.set_worker_count(1))
