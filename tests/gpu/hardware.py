"""What the tests on hardware share: waiting for it, looking at it, partners to exchange with."""

from __future__ import annotations

import gc
import subprocess
import sys
import time
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from kinds import ALL_TO_TORCH, TORCH_DTYPES
from regions import misaligned

import dlferry
from dlferry._native import NATIVE, core

Array = np.ndarray[Any, Any]

SLEEP_CYCLES = 500_000_000
"""How long a stream is kept busy: a quarter of a second, or more on a GPU with slower clocks."""

LIMIT = 60.0  # seconds after which something hangs

SMALL, MIDDLE, LARGE = (13, 17), (300, 500), (3001, 2003)
"""Shapes for the current stream itself, for one slot of staging memory, and for many."""


def settle(*, collect: bool = True) -> None:
    """Wait for all work on the device, and have dlferry let go of what was dropped."""
    if collect:
        gc.collect()
    torch.cuda.synchronize()
    deadline = time.monotonic() + LIMIT
    while NATIVE and core.unfinished_count():
        assert time.monotonic() < deadline, "transfers that were dropped do not end"
        dlferry.copyto(np.zeros(1), torch.zeros(1, device="cuda")).synchronize()


_cuda: Any = torch.cuda  # whose functions have no types


def new_stream(device: torch.device) -> torch.cuda.Stream:
    stream: torch.cuda.Stream = _cuda.Stream(device)
    return stream


def keep_busy(stream: torch.cuda.Stream | None = None) -> Any:
    """Keep a stream, by default the current one, busy for a while; the event says until when."""
    stream = stream or torch.cuda.current_stream()
    event = _cuda.Event()
    with torch.cuda.stream(stream):
        _cuda._sleep(SLEEP_CYCLES)
        event.record(stream)
    return event


def host(tensor: torch.Tensor) -> torch.Tensor:
    """A tensor's elements once the current stream has come so far, by torch's own copy."""
    return tensor.detach().cpu()


def on_device(values: torch.Tensor, device: torch.device) -> torch.Tensor:
    """A tensor on the device, by torch's own copy."""
    return values.to(device)


# --- arrays ---


def numbers(rng: np.random.Generator, shape: tuple[int, ...], dtype: Any) -> Array:
    """Random elements that every dtype holds exactly."""
    kind = np.dtype(dtype).kind
    values = rng.integers(0, 2 if kind == "b" else 100, shape)
    if kind in "if":
        values = values - 50
    return values.astype(dtype)


def tensor_of(rng: np.random.Generator, shape: tuple[int, ...], dtype: torch.dtype) -> torch.Tensor:
    """Random bits that are elements of any of torch's dtypes."""
    size = int(np.prod(shape)) * dtype.itemsize
    if size == 0:
        return torch.empty(shape, dtype=dtype)
    if dtype == torch.bool:
        return torch.from_numpy(rng.integers(0, 2, size).astype(np.bool_)).view(shape)
    return torch.from_numpy(rng.integers(0, 120, size).astype(np.uint8)).view(dtype).view(shape)


def field(array: Array) -> Array:
    """The same elements, as one field of records with an odd size."""
    records = np.zeros(array.shape, [("before", "u1"), ("values", array.dtype)])
    records["values"] = array
    return records["values"]


LAYOUTS: dict[str, Callable[[Array], Array]] = {
    "contiguous": lambda a: a,
    "rows": lambda a: a[::2],
    "columns": lambda a: a[:, ::3],
    "cut": lambda a: a[1:, 2:-3],
    "reversed": lambda a: a[::-1, ::-1],
    "transposed": lambda a: a.T,
    "broadcast": lambda a: np.broadcast_to(a[:1], a.shape),
    "big-endian": lambda a: a.astype(a.dtype.newbyteorder(">")),
    "reversed big-endian columns": lambda a: a.astype(a.dtype.newbyteorder(">"))[::-1, ::2],
    "misaligned": lambda a: misaligned(a) if a.itemsize > 1 else a,
    "field": field,
    "empty": lambda a: a[:0],
    "no elements at all": lambda a: a[:, :0],
    "one": lambda a: a[0, 0, ...],
}

# torch's dtypes without a partner among NumPy's own.
FOREIGN_DTYPES = [
    getattr(torch, name)
    for name in (
        "bfloat16", "float8_e4m3fn", "float8_e4m3fnuz", "float8_e5m2", "float8_e5m2fnuz",
        "float8_e8m0fnu",
    )
    if hasattr(torch, name)
]  # fmt: skip
EVERY_DTYPE = [*dict.fromkeys([*TORCH_DTYPES, *FOREIGN_DTYPES])]
NUMPYS = [kind for kind in ALL_TO_TORCH if kind.__module__ == "numpy"]


# --- partners ---


class Stranger:
    """Another library's array: a CUDA tensor with nothing but DLPack, made on a stream of its own.

    `asked` are the values of `stream` that it was asked with; ``"nothing"`` where it was left out.
    """

    def __init__(self, tensor: torch.Tensor, stream: torch.cuda.Stream | None = None) -> None:
        self.tensor = tensor
        self.stream = stream or torch.cuda.current_stream(tensor.device)
        self.asked: list[Any] = []

    def __dlpack_device__(self) -> tuple[Any, int]:
        return self.tensor.__dlpack_device__()

    def __dlpack__(self, **request: Any) -> Any:
        self.asked.append(request.get("stream", "nothing"))
        with torch.cuda.stream(self.stream):
            return self.tensor.__dlpack__(**request)


class Described:
    """Another library's array: a CUDA tensor by its `__cuda_array_interface__`."""

    def __init__(self, tensor: torch.Tensor, **changes: Any) -> None:
        self.tensor = tensor
        size = tensor.element_size()
        self.__cuda_array_interface__ = {
            "version": 3,
            "shape": tuple(tensor.shape),
            "strides": tuple(step * size for step in tensor.stride()),
            "typestr": typestr(tensor.dtype),
            "data": (tensor.data_ptr(), False),
            "stream": None,
            **changes,
        }


def typestr(dtype: torch.dtype) -> str:
    [kind] = [kind for kind in NUMPYS if ALL_TO_TORCH[kind] == dtype]
    return str(np.dtype(kind).str)


# --- processes ---


def run(code: str, *arguments: str) -> str:
    """What a program prints that ends as it should."""
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", code, *arguments],
        capture_output=True, text=True, timeout=120, check=False,
    )  # fmt: skip
    assert done.returncode == 0, f"{done.returncode}\n{done.stdout}\n{done.stderr}"
    assert "Traceback" not in done.stderr, done.stderr
    return done.stdout
