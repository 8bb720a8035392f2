"""Which core serves this process: the native one, or `_fallback` on torch and NumPy.

``DLFERRY_NATIVE`` decides, read once: ``auto`` (the default) takes the native core where it loads,
``on`` insists on it, ``off`` does without.
"""

from __future__ import annotations

import importlib
import logging
import os
from types import ModuleType
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from dlferry import _core as core

__all__ = ["NATIVE", "REASON", "core"]


def _load() -> tuple[ModuleType, str | None]:
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


_core_module, REASON = _load()
if not TYPE_CHECKING:
    # The mechanisms (`ingest`, `share`, `copy`, `array`, `decide`), the same in either core.
    core = _core_module

NATIVE = REASON is None
