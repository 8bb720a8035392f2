"""The core's way to the CUDA driver: settings, the first use, and the end of the process."""

from __future__ import annotations

import atexit
import functools
import logging
import os

from dlferry import _modes, _torch_cuda
from dlferry._environment import positive_number
from dlferry._errors import CudaError, DriverUnavailable
from dlferry._native import NATIVE, REASON, core

EXIT_SECONDS = 10.0
"""How long the end of the process waits for copies on their way."""


def configure() -> None:
    """Put the settings into effect, without opening the driver."""
    staging = positive_number("DLFERRY_STAGING_MB") << 20
    if not NATIVE:
        return
    core.set_driver_library(os.environ.get("DLFERRY_CUDA_DRIVER", ""))
    if staging:
        core.set_staging_bytes(staging)


def require() -> None:
    """Make sure that there is a driver, before anything of CUDA's; cheap from the second time on.

    Raises:
        DriverUnavailable: There is none for this process; the text says what is missing.
    """
    _prepare()
    core.require_driver()


def serves() -> bool:
    """Whether the core makes the copies: it and its driver are there, and torch's CUDA is NVIDIA's.

    False also where CUDA is not to be had at all; whoever asks torch then is told why. And where a
    tracer or a mode watches torch, which would miss what the core copies.
    """
    if not NATIVE or not _torch_cuda.is_available() or not _torch_cuda.is_nvidia():
        return False
    if _modes.is_watched():
        return False
    try:
        require()
    except DriverUnavailable:
        return False
    return True


@functools.cache
def _prepare() -> None:
    from concurrent.futures import CancelledError

    core.install_cuda(
        cuda_error=CudaError,
        driver_unavailable=DriverUnavailable,
        cancelled=CancelledError,
        ordinary_memory=_say_ordinary,
    )
    atexit.register(core.close_transfers, EXIT_SECONDS, True)


def _say_ordinary(reason: str) -> None:
    logging.getLogger("dlferry").warning(
        "transfers go through ordinary memory, and take longer, because the system page-locks no "
        "more of it (%s): raise the limit on locked memory (ulimit -l)",
        reason,
    )


def state() -> tuple[str | None, str | None]:
    """The driver's CUDA version, or why it is not known; does not open the driver."""
    if not NATIVE:
        return None, f"not used by dlferry: {REASON}"
    version, reason = core.driver_state(False)
    if version is not None:
        return f"{version // 1000}.{version % 1000 // 10}", None
    return None, reason or "not opened yet: dlferry opens it when it is first needed"
