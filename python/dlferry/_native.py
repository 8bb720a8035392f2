"""Which core serves this process: the native one, or `_fallback` on torch and NumPy.

``DLFERRY_NATIVE`` decides, read once: ``auto`` (the default) takes the native core where it loads,
``on`` insists on it, ``off`` does without.
"""

from __future__ import annotations

import importlib
import logging
import os
from typing import Any

__all__ = ["NATIVE", "REASON", "core"]


def _load() -> tuple[Any, str | None]:
    """The core module, and why it is not the native one where it is not."""
    mode = os.environ.get("DLFERRY_NATIVE", "auto")
    if mode not in ("auto", "on", "off"):
        raise ValueError(f"DLFERRY_NATIVE is {mode!r}; it takes auto, on or off")
    if mode == "off":
        return importlib.import_module("dlferry._fallback"), "DLFERRY_NATIVE=off"
    try:
        return importlib.import_module("dlferry._core"), None
    except ImportError as error:
        if mode == "on":
            raise ImportError(
                f"DLFERRY_NATIVE=on, and the native core does not load: {error}"
            ) from error
        reason = f"the native core does not load: {error}"
        logging.getLogger("dlferry").info("running on plain torch and NumPy: %s", reason)
        return importlib.import_module("dlferry._fallback"), reason


core, REASON = _load()
"""The mechanisms (`ingest`, `share`, `copy`, `array`, `decide`), the same in either core."""

NATIVE = REASON is None
