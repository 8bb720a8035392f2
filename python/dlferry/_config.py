"""What this installation is and uses, for people and bug reports."""

from __future__ import annotations

import platform
import sys
from typing import Any

import numpy as np

from dlferry import _driver
from dlferry._native import NATIVE, REASON, core
from dlferry._version import __version__


def show_config() -> dict[str, Any]:
    """Return how dlferry runs here, without importing torch or opening the CUDA driver.

    Returns:
        A dict with ``dlferry``, ``python``, ``numpy`` and ``torch`` (versions; ``torch`` is None
        until it is imported), ``platform``, ``native`` (whether the native core serves),
        ``native_reason`` (why it does not, else None), ``threads`` (that share a large copy; None
        where copies are torch's own), ``driver`` (the CUDA version of the driver, as dlferry
        opened it; None before it was needed, and where there is none), ``driver_reason`` (why
        ``driver`` is None, else None) and ``staging_reason`` (why transfers go through memory that
        is not page-locked, and take longer; None where they do not, or there was none yet).

    Example:
        >>> import dlferry
        >>> dlferry.show_config()["dlferry"] == dlferry.__version__
        True
    """
    torch = sys.modules.get("torch")
    driver, driver_reason = _driver.state()
    return {
        "dlferry": __version__,
        "python": platform.python_version(),
        "numpy": np.__version__,
        "torch": getattr(torch, "__version__", None),
        "platform": platform.platform(),
        "native": NATIVE,
        "native_reason": REASON,
        "threads": core.worker_count() if NATIVE else None,
        "driver": driver,
        "driver_reason": driver_reason,
        "staging_reason": core.staging_reason() if NATIVE else None,
    }
