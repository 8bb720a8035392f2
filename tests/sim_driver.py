"""The simulated CUDA driver's control interface (`sim/sim.h`), for tests in Python."""

from __future__ import annotations

import ctypes
import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

DEFAULT = Path(__file__).parents[1] / "build/dev/tests/sim/libdlferry_sim_cuda.so"

_u64, _i64, _int, _size = ctypes.c_uint64, ctypes.c_int64, ctypes.c_int, ctypes.c_size_t
_text, _pointer = ctypes.c_char_p, ctypes.c_void_p

SIGNATURES: dict[str, tuple[Any, list[Any]]] = {
    "configure": (_int, [_text]),
    "reset": (_i64, []),
    "abandon": (None, []),
    "counter": (_i64, [_text]),
    "calls": (_i64, [_text]),
    "log": (_size, [_pointer, _size]),
    "log_clear": (None, []),
    "fail": (_int, [_text, ctypes.c_uint, _int, _int]),
    "poison": (_int, [_int, _int]),
    "device_alloc": (_u64, [_int, _size]),
    "device_free": (_int, [_u64]),
    "peek": (_int, [_pointer, _u64, _size]),
    "poke": (_int, [_u64, _pointer, _size]),
    "pinned_alloc": (_pointer, [_size]),
    "pinned_free": (_int, [_pointer]),
    "stream_create": (_u64, [_int, _int]),
    "stream_destroy": (_int, [_u64]),
    "stream_wait": (_int, [_u64]),
    "stream_is_idle": (_int, [_u64]),
    "kernel": (_int, [_u64, _u64]),
    "gate": (_u64, [_u64]),
    "open": (_int, [_u64]),
    "fill": (_int, [_u64, _u64, _int, _size]),
    "copy": (_int, [_u64, _u64, _u64, _size]),
    "stall": (_int, [_int, _int, _int]),
    "capture_begin": (_int, [_u64, _int]),
    "capture_end": (_int, [_u64, _pointer]),
    "capture_status": (_int, [_u64]),
}


def library_path() -> Path:
    """The simulator: what ``DLFERRY_TEST_SIM`` names, or what the `dev` preset builds."""
    return Path(os.environ.get("DLFERRY_TEST_SIM") or DEFAULT)


class SimDriver:
    """The loaded simulator. Functions are those of `sim.h`, without their prefix."""

    def __init__(self, path: Path) -> None:
        if not path.is_file():
            raise FileNotFoundError(
                f"the simulated CUDA driver is not at {path}: build it (`make native`), or name it "
                "with DLFERRY_TEST_SIM"
            )
        self.path = path
        self._library = ctypes.CDLL(str(path))

    def __getattr__(self, name: str) -> Callable[..., Any]:
        result, arguments = SIGNATURES[name]
        function = getattr(self._library, f"dlferry_sim_{name}")
        function.restype, function.argtypes = result, arguments
        setattr(self, name, function)
        return function  # type: ignore[no-any-return]

    def set(self, **settings: int | str) -> None:
        """Change settings, as `configure` does."""
        text = ",".join(f"{name}={value}" for name, value in settings.items())
        assert self.configure(text.encode()) == 0, text

    def count(self, name: str) -> int:
        """One of the counters of `sim.h`."""
        value = int(self.counter(name.encode()))
        assert value >= 0, name
        return value

    def fail_call(self, function: str, nth: int, code: int, *, sticky: bool = False) -> None:
        """The nth call from now of a driver function fails."""
        assert self.fail(function.encode(), nth, code, int(sticky)) == 0, function

    def events(self) -> list[dict[str, Any]]:
        """The log of calls and transfers."""
        size = self.log(None, 0)
        buffer = ctypes.create_string_buffer(size + 1)
        self.log(buffer, size + 1)
        return [json.loads(line) for line in buffer.value.decode().splitlines()]
