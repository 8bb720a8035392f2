"""What a row of the table says, and the two kinds of answer: the contract's and a measured one."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import numpy as np
import torch
from kinds import ALL_TO_TORCH, cast, reference
from regions import bits, overlaps, same_memory

import dlferry

UNSUPPORTED = "UnsupportedInput"
REQUIRED = "CopyRequired"
UNCASTABLE = "torch casts it to nothing"


@dataclass(frozen=True)
class Row:
    """One input. `why` names the reasons for which torch may answer differently."""

    name: str
    make: Callable[[], Any]
    dtype: torch.dtype | None = None
    """Of the result where none is asked for."""
    facts: frozenset[str] = frozenset()
    """What keeps the memory from being shared, by the contract's names; "mapped file" besides."""
    error: str | None = None
    """The class of the error that any request ends in."""
    elements: Callable[[Any], Any] | None = None
    """The elements as an ndarray or tensor, which is also the memory that can be shared."""
    given: Callable[[Any], Any] = lambda obj: obj
    """What is converted, of the input."""
    why: tuple[str, ...] = ()
    native: bool = False
    """Only the native core takes it."""
    aborts: bool = False
    """torch ends the process."""


class Ask(NamedTuple):
    """A call: which function, and its arguments."""

    door: str
    copy: bool | None
    dtype: torch.dtype | None


@dataclass(frozen=True)
class Answer:
    """What came of a call: "same", "share", "copy", "wrong" or "error"."""

    outcome: str
    detail: str = ""
    reasons: frozenset[str] = frozenset()
    parents: tuple[str, ...] = field(default=(), compare=False)

    def __str__(self) -> str:
        return " ".join([self.outcome, self.detail, *sorted(self.reasons)]).strip()


def contract(row: Row, ask: Ask, native: bool) -> Answer:
    """The contract's answer, from the facts of the row alone."""
    if row.native and not native:
        return Answer("error", UNSUPPORTED)
    if "sequence" in row.facts and ask.copy is False:
        # Of numbers there is nothing else to say, and nothing to look at.
        return Answer("error", REQUIRED, frozenset({"sequence"}))
    if row.error and not ("convertible" in row.facts and ask.dtype is not None):
        return Answer("error", row.error)
    differs = ask.dtype is not None and ask.dtype != row.dtype
    hard = row.facts - {"read-only", "mapped file", "tensor", "convertible", UNCASTABLE} | (
        {"dtype"} if differs else set()
    )
    soft = row.facts & {"read-only"}
    if ask.copy is False:
        reasons = frozenset(hard | soft)
        if reasons:
            return Answer("error", REQUIRED, reasons)
    elif differs and UNCASTABLE in row.facts:
        return Answer("error", "RuntimeError")
    elif ask.copy or hard:
        return Answer("copy")
    elif "mapped file" in row.facts:
        return Answer("error", REQUIRED, frozenset({"read-only"}))
    elif soft:
        return Answer("copy")
    return Answer("same" if "tensor" in row.facts and ask.door == "asarray" else "share")


def expected_elements(row: Row, obj: Any, ask: Ask) -> torch.Tensor | None:
    """The elements of the result; None where they cannot be looked at."""
    if row.elements is None:
        return None
    found = row.elements(obj)
    if not isinstance(found, torch.Tensor):
        found = np.asarray(found)
        # Of two names of one dtype (long, long long) the usual one.
        usual = found.dtype.type in ALL_TO_TORCH
        found = reference(found if usual else found.view(np.dtype(found.dtype.str)))
    return cast(found.detach(), ask.dtype or found.dtype)


def measured(row: Row, ask: Ask, function: Callable[..., Any]) -> Answer:
    """What `function` does with a fresh input."""
    obj = row.make()
    expected = expected_elements(row, obj, ask) if row.error is None else None
    keywords: dict[str, Any] = {"copy": ask.copy} if ask.copy is not None else {}
    if ask.dtype is not None:
        keywords["dtype"] = ask.dtype
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error" if function in OURS.values() else "ignore")
            result = function(row.given(obj), **keywords)
    except Exception as error:  # noqa: BLE001  # the class is what is asked for
        return _failure(error)
    return _result(row, obj, result, expected)


def _failure(error: Exception) -> Answer:
    parents = tuple(kind.__name__ for kind in type(error).__mro__)
    reasons = frozenset(getattr(error, "reasons", ()))
    if "sequence" in reasons:
        reasons = frozenset({"sequence"})
    return Answer("error", type(error).__name__, reasons, parents)


def _result(row: Row, obj: Any, result: torch.Tensor, expected: torch.Tensor | None) -> Answer:
    if expected is not None:
        if result.dtype != expected.dtype:
            return Answer("wrong", "dtype")
        if tuple(result.shape) != tuple(expected.shape):
            return Answer("wrong", "shape")
        if not torch.equal(*(bits(contiguous(t)) for t in (result, expected))):
            return Answer("wrong", "values")
    if result is obj:
        return Answer("same")
    if row.elements is None or row.facts & {"sequence"}:
        return Answer("copy")
    memory = row.elements(obj)
    if result.numel() == 0:
        return Answer("empty")
    if same_memory(result, memory):
        return Answer("share")
    return Answer("wrong", "memory") if overlaps(result, memory) else Answer("copy")


def contiguous(t: torch.Tensor) -> torch.Tensor:
    return t.detach().clone(memory_format=torch.contiguous_format)


OURS: dict[str, Callable[..., Any]] = {
    "asarray": dlferry.asarray,
    "from_dlpack": dlferry.from_dlpack,
}
TORCHS: dict[str, Callable[..., Any]] = {
    "asarray": torch.asarray,
    "from_dlpack": torch.utils.dlpack.from_dlpack,
}
