"""How close do large host copies come to the speed of memory?

Every copy goes into fresh memory and frees it again. The limit of a row is a parallel `memcpy` into
fresh, cheaply faulted memory (see `limit.py`) that moves as many bytes, read and written together,
as the row does. So a cast that reads 64 MiB and writes 256 MiB is held against a `memcpy` of
160 MiB, and "percent of the limit" is the same as the quotient of the two bandwidths. Bytes count
as memory moves them, in whole cache lines: `[:, ::2]` reads all of its base.

The definition is kind to rows that read more than they write and hard on those that write more,
since every written page has to be cleared by the kernel first. That a virtual machine's host may
have to find the page before that is not counted for anybody (see `fresh_memory.py`).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

import dlferry
from benchmarks.fresh_memory import always_fresh_memory, found_by_the_host
from benchmarks.harness import Case, Contestant, Settings
from benchmarks.limit import ParallelMemcpy
from benchmarks.report import Agenda, Skipped, main

QUESTION = "How close do large host copies come to the speed of memory?"
ASKED_OF_LIMIT = 0.70
MIB = 2**20

Array = NDArray[Any]
Make = Callable[[np.random.Generator], Array]
Check = Callable[[Any, Any], bool]


class CopyCases:
    """The rows, with inputs of `large` and `medium` bytes."""

    def __init__(self, large: int, medium: int) -> None:
        self._large = large
        self._medium = medium
        self._memcpy = ParallelMemcpy()

    def all(self) -> list[Case]:
        cases = [self._copy(), *self._casts(), *self._layouts()]
        if hasattr(dlferry, "stack"):
            cases.append(self._transposition())
        return cases

    def _case(
        self, title: str, ours: str, make: Make, check: Check, moved: int, *rivals: Contestant
    ) -> Case:
        source = np.ones(moved // 2, dtype=np.uint8)
        limit = Contestant(
            "limit(source)", ASKED_OF_LIMIT, limit=True, label="the limit: parallel memcpy"
        )
        names = {"dlferry": dlferry, "torch": torch, "np": np}
        return Case(
            title,
            Contestant(ours),
            (*rivals, limit),
            make,
            check,
            {**names, "limit": self._memcpy, "source": source},
            moved_bytes=moved,
            around=lambda: found_by_the_host(2 * self._large),
        )

    def _copy(self) -> Case:
        return self._case(
            f"copy, {_mib(self._large)} float32",
            "dlferry.asarray(x, copy=True)",
            _floats(self._large),
            _same_values,
            2 * self._large,
            Contestant("torch.tensor(x)", 2.2),
        )

    def _casts(self) -> list[Case]:
        return [
            self._case(
                f"uint8 to float32, {_mib(self._medium)} in",
                "dlferry.asarray(x, dtype=torch.float32)",
                lambda rng: rng.integers(0, 256, self._medium, dtype=np.uint8),
                _same_values,
                5 * self._medium,
                Contestant("torch.as_tensor(x, dtype=torch.float32)", 2.3),
            ),
            self._case(
                f"float32 to bfloat16, {_mib(self._large)} in",
                "dlferry.asarray(x, dtype=torch.bfloat16)",
                _floats(self._large),
                lambda x, result: _same_bits(torch.from_numpy(x).to(torch.bfloat16), result),
                self._large * 3 // 2,
                Contestant("torch.as_tensor(x, dtype=torch.bfloat16)", 2.0),
            ),
        ]

    def _layouts(self) -> list[Case]:
        numpy_first = Contestant("torch.from_numpy(x.copy())", 1.8)
        native_first = Contestant("torch.from_numpy(x.astype(np.float32))", 1.8)
        clone = Contestant("torch.from_numpy(x).clone()", 3.0)
        floats, size = _floats(self._medium), self._medium
        side = _side(size)
        return [
            self._case(
                f"reversed, {_mib(size)} float32",
                "dlferry.asarray(x)",
                lambda rng: floats(rng)[::-1],
                _same_values,
                2 * size,
                numpy_first,
            ),
            self._case(
                f"[:, ::2] of {_mib(size)} float32",
                "dlferry.asarray(x, copy=True)",
                lambda rng: floats(rng).reshape(side, -1)[:, ::2],
                _same_values,
                size + size // 2,
                numpy_first,
                clone,
            ),
            self._case(
                f"big-endian, {_mib(size)} float32",
                "dlferry.asarray(x)",
                lambda rng: floats(rng).astype(">f4"),
                _same_values,
                2 * size,
                native_first,
            ),
        ]

    def _transposition(self) -> Case:
        size = self._medium
        side = _side(size)
        return self._case(
            f"transposition, {_mib(size)} float32",
            "dlferry.stack([x])",
            lambda rng: _floats(size)(rng).reshape(side, -1).T,
            lambda x, result: _same_values(x, result.reshape(x.shape)),
            2 * size,
            Contestant("torch.from_numpy(x).contiguous()", 3.0),
        )


def _floats(size: int) -> Make:
    return lambda rng: rng.random(size // 4, dtype=np.float32)


def _side(size: int) -> int:
    """Rows of a matrix of float32 that is square or twice as wide as high."""
    return 1 << (((size // 4).bit_length() - 1) // 2)


def _same_values(x: Array, result: torch.Tensor) -> bool:
    """Equal numbers, in memory of its own."""
    values = result.numpy()
    return np.array_equal(x, values) and not np.may_share_memory(x, values)


def _same_bits(expected: torch.Tensor, result: torch.Tensor) -> bool:
    return result.dtype == expected.dtype and torch.equal(
        expected.view(torch.int16), result.view(torch.int16)
    )


def _mib(size: int) -> str:
    return f"{size // MIB} MiB"


def plan(settings: Settings) -> Agenda:
    scale = 16 if settings.quick else 1
    agenda = Agenda(CopyCases(128 * MIB // scale, 64 * MIB // scale).all())
    if not hasattr(dlferry, "stack"):
        agenda.skipped.append(Skipped("transposition", "this dlferry has no stack()"))
    if not always_fresh_memory():
        agenda.skipped.append(
            Skipped("fresh memory for blocks up to 32 MiB", "the allocator has no mallopt()")
        )
    return agenda


if __name__ == "__main__":
    raise SystemExit(main("bench_host_copies", QUESTION, plan, rounds=63))
