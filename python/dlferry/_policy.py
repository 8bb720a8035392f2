"""The copy policy: which facts keep memory from being shared, what follows, and the words for it.

`decide` is the fallback's twin of ``csrc/tensor/plan``; a test compares the two over every
combination of facts. The words serve both.
"""

from __future__ import annotations

import enum
from collections.abc import Iterator
from typing import Literal, NamedTuple

from dlferry._errors import CopyRequired

ReadOnly = Literal["copy", "share", "error"]


class Fact(enum.IntFlag):
    """What keeps memory from being shared as asked. The bits of ``csrc/tensor/plan.h``."""

    DTYPE = 1 << 0
    DEVICE = 1 << 1
    STRIDES = 1 << 2
    BYTE_ORDER = 1 << 3
    ALIGNMENT = 1 << 4
    READ_ONLY = 1 << 5
    CONJUGATE = 1 << 6
    NEGATIVE = 1 << 7
    SUB_BYTE = 1 << 8
    SEQUENCE = 1 << 9
    PRODUCER_COPY = 1 << 10
    MAPPED_FILE = 1 << 11


NAMES = {
    Fact.DTYPE: "dtype",
    Fact.DEVICE: "device",
    Fact.STRIDES: "strides",
    Fact.BYTE_ORDER: "byte order",
    Fact.ALIGNMENT: "alignment",
    Fact.READ_ONLY: "read-only",
    Fact.CONJUGATE: "conjugate",
    Fact.NEGATIVE: "negative",
    Fact.SUB_BYTE: "sub-byte",
    Fact.SEQUENCE: "sequence",
    Fact.PRODUCER_COPY: "producer copy",
}


class Decision(NamedTuple):
    """What to do with memory: the answer of `decide`."""

    action: Literal["share", "copy", "refuse"]
    reasons: int
    """Bits of `Fact`: what keeps the memory from being shared; all of it, when refused."""
    implicit: bool
    """A copy that the caller did not ask for."""


def decide(facts: int, copy: bool | None, readonly: str) -> Decision:
    """Share, copy or refuse. See the twin, ``csrc/tensor/plan.cpp``."""
    hard = facts & ~(Fact.READ_ONLY | Fact.MAPPED_FILE | Fact.PRODUCER_COPY)
    unwritable = bool(facts & Fact.READ_ONLY) and readonly != "share"
    read_only = facts & (Fact.READ_ONLY | Fact.MAPPED_FILE) if unwritable else 0
    if copy is True:
        return Decision("copy", hard | read_only, implicit=False)
    if copy is False:
        reasons = hard | read_only | (facts & Fact.PRODUCER_COPY)
        return Decision("refuse" if reasons else "share", reasons, implicit=False)
    if hard:
        return Decision("copy", hard, implicit=not hard & (Fact.DEVICE | Fact.SEQUENCE))
    if not unwritable:
        return Decision("share", 0, implicit=False)
    refuse = readonly == "error" or bool(facts & Fact.MAPPED_FILE)
    return Decision("refuse" if refuse else "copy", read_only, implicit=not refuse)


def reason_names(reasons: int) -> tuple[str, ...]:
    """The names of the reasons, as in `CopyRequired.reasons`."""
    return tuple(name for fact, name in NAMES.items() if reasons & fact)


class Subject(NamedTuple):
    """What a refusal speaks of: an array as it is, and as it was asked for."""

    what: str
    dtype: object
    device: str
    shape: tuple[int, ...] = ()
    strides: tuple[int, ...] = ()
    """In bytes."""
    wanted_dtype: object = None
    wanted_device: str | None = None


def refusal(reasons: int, subject: Subject) -> CopyRequired:
    """The error for a copy that was not allowed: a line for each reason, with its remedy."""
    lines = "".join(f"\n  {line}" for line in _remedies(reasons, subject))
    message = f"cannot share the memory of {subject.what} without a copy:{lines}"
    return CopyRequired(message, reason_names(reasons))


def _remedies(reasons: int, subject: Subject) -> Iterator[str]:
    allow = "pass copy=None or copy=True to allow a copy"
    if reasons & Fact.DTYPE:
        yield (
            f"dtype: sharing does not turn memory with dtype '{subject.dtype}' into dtype "
            f"'{subject.wanted_dtype}'; leave dtype= out, or {allow}"
        )
    if reasons & Fact.DEVICE:
        yield (
            f"device: sharing does not reach from device '{subject.device}' to "
            f"'{subject.wanted_device}'; leave device= out, or {allow}"
        )
    if reasons & Fact.STRIDES:
        yield (
            f"strides: {_odd_strides(subject)}, which a torch tensor cannot have; {allow}, or make "
            "the array contiguous first"
        )
    if reasons & Fact.BYTE_ORDER:
        yield f"byte order: the elements are in foreign byte order; {allow}"
    if reasons & Fact.ALIGNMENT:
        yield f"alignment: the data is not aligned to its elements; {allow}"
    if reasons & Fact.MAPPED_FILE:
        yield (
            "read-only: the memory is a read-only mapped file; pass readonly='share' if you will "
            "not write to the tensor, or copy=True to read the whole file"
        )
    elif reasons & Fact.READ_ONLY:
        yield (
            "read-only: the memory must not be written; pass readonly='share' if you will not "
            f"write to the tensor, or copy=True{' or copy=None' * (not _only_read_only(reasons))}"
        )
    if reasons & Fact.CONJUGATE:
        yield f"conjugate: the conjugate bit is set, and must be resolved; {allow}"
    if reasons & Fact.NEGATIVE:
        yield f"negative: the negative bit is set, and must be resolved; {allow}"
    if reasons & Fact.SUB_BYTE:
        yield f"sub-byte: the elements are packed, several to a byte; {allow}"
    if reasons & Fact.SEQUENCE:
        yield (
            "sequence: can't alias arbitrary sequence into a tensor (its numbers are objects of "
            f"their own, not array memory); {allow}"
        )
    if reasons & Fact.PRODUCER_COPY:
        yield f"producer copy: its __dlpack__ copied although it was asked not to; {allow}"


def _only_read_only(reasons: int) -> bool:
    return not reasons & ~(Fact.READ_ONLY | Fact.MAPPED_FILE)


def _odd_strides(subject: Subject) -> str:
    for axis, (length, stride) in enumerate(zip(subject.shape, subject.strides, strict=True)):
        if length > 1 and stride < 0:
            return f"axis {axis} has the negative stride {stride} (bytes)"
    return f"the strides {subject.strides} (bytes) are not multiples of the item size"
