"""How fast do arrays that are not laid out as a tensor get to the GPU?

Each row moves the same number of bytes, whatever the array that it is a view of holds. torch
refuses negative strides and foreign byte orders, so NumPy makes those arrays plain first. The last
contestant of the other rows gathers straight into page-locked memory, which is the best that torch
has to offer; nothing is asked of it beyond what is asked of NumPy's copy.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from benchmarks.gpu import hardware
from benchmarks.gpu.hardware import MIB
from benchmarks.harness import Case, Contestant, Settings
from benchmarks.report import Agenda

QUESTION = "How fast do arrays that are not laid out as a tensor get to the GPU?"
ROUNDS = hardware.ROUNDS

CONTIGUOUS = "np.ascontiguousarray(x)"
NATIVE_ORDER = "x.astype(np.float32)"

Make = Callable[[np.random.Generator], NDArray[Any]]


class LayoutCases:
    """The rows, of so many bytes each."""

    def __init__(self, size: int) -> None:
        self._size = size
        self._columns = 1 << (((size // 4).bit_length() - 1) // 2)
        self._rows = size // 4 // self._columns
        self._limit, memory = hardware.pinned_limit(size)
        self._names = hardware.names(**memory, page_locked=hardware.page_locked)

    def all(self) -> list[Case]:
        rows, columns, wide = self._rows, self._columns, _floats(self._rows, 2 * self._columns)
        return [
            self._strided(f"m[:, :{columns}]", lambda rng: wide(rng)[:, :columns]),
            self._strided("m[::2]", lambda rng: wide(rng)[::2]),
            self._strided("m[:, ::2]", lambda rng: wide(rng)[:, ::2]),
            self._refused("reversed", CONTIGUOUS, lambda rng: _floats(rows, columns)(rng)[::-1]),
            self._refused(
                "big-endian", NATIVE_ORDER, lambda rng: _floats(rows, columns)(rng).astype(">f4")
            ),
        ]

    def _strided(self, title: str, make: Make) -> Case:
        """A layout that torch takes."""
        gathered = "page_locked(x.shape).copy_(torch.from_numpy(x))"
        return self._case(
            title,
            make,
            Contestant("done(torch.as_tensor(x, device=cuda))", 4.0),
            _pinned(CONTIGUOUS),
            Contestant(f"done({gathered}.to(cuda, non_blocking=True))"),
        )

    def _refused(self, title: str, plain: str, make: Make) -> Case:
        """A layout that torch refuses; `plain` is NumPy's expression for one that it takes."""
        through_numpy = Contestant(f"done(torch.as_tensor({plain}, device=cuda))", 4.0)
        return self._case(title, make, through_numpy, _pinned(plain))

    def _case(self, title: str, make: Make, *rivals: Contestant) -> Case:
        return Case(
            f"{title}, {self._size // MIB} MiB",
            Contestant("done(dlferry.asarray(x, device=cuda))"),
            (*rivals, self._limit),
            make,
            hardware.same,
            self._names,
            moved_bytes=self._size,
        )


def _pinned(plain: str) -> Contestant:
    return Contestant(
        f"done(torch.from_numpy({plain}).pin_memory().to(cuda, non_blocking=True))", 2.5
    )


def _floats(rows: int, columns: int) -> Make:
    return lambda rng: rng.random((rows, columns), dtype=np.float32)


def plan(settings: Settings) -> Agenda:
    return Agenda(LayoutCases((8 if settings.quick else 128) * MIB).all())


if __name__ == "__main__":
    raise SystemExit(hardware.main("bench_layouts", QUESTION, plan, rounds=ROUNDS))
