"""The copy policy: which facts keep memory from being shared, what follows, and the words for it.

`decide` is the fallback's twin of ``csrc/tensor/plan``; a test compares the two over every
combination of facts. The words serve both.
"""

from __future__ import annotations

from typing import Literal, NamedTuple

from dlferry._errors import CopyRequired

ReadOnly = Literal["copy", "share", "error"]


class Fact:
    """What keeps memory from being shared as asked. The bits of ``csrc/tensor/plan.h``.

    Plain ints: an `enum.IntFlag` takes a microsecond to combine, and half a millisecond to define.
    """

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
    CHUNKS = 1 << 12


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
    Fact.CHUNKS: "chunks",
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
    """What a decision is about: an array as it is, and as it was asked for."""

    what: str
    dtype: object
    device: str
    shape: tuple[int, ...] = ()
    strides: tuple[int, ...] = ()
    """In bytes."""
    wanted_dtype: object = None
    wanted_device: str | None = None


class Cause(NamedTuple):
    """A reason in words: its name, what is the case, and what to do about it."""

    name: str
    fact: str
    remedy: str


def refusal(reasons: int, subject: Subject) -> CopyRequired:
    """The error for a copy that was not allowed: a line for each reason, with its remedy."""
    lines = "".join(f"\n  {c.name}: {c.fact}; {c.remedy}" for c in causes(reasons, subject))
    message = f"cannot share the memory of {subject.what} without a copy:{lines}"
    return CopyRequired(message, reason_names(reasons))


def causes(reasons: int, subject: Subject) -> list[Cause]:
    """Every reason in words, in the order of `NAMES`."""
    return [
        Cause(name, *_words(fact, reasons, subject))
        for fact, name in NAMES.items()
        if reasons & fact
    ]


def _words(fact: int, reasons: int, subject: Subject) -> tuple[str, str]:
    """What is the case, and the remedy."""
    allow = "pass copy=None or copy=True to allow a copy"
    match fact:
        case Fact.DTYPE:
            return (
                (
                    f"sharing does not turn memory with dtype '{subject.dtype}' into dtype "
                    f"'{subject.wanted_dtype}'"
                ),
                f"leave dtype= out, or {allow}",
            )
        case Fact.DEVICE:
            return (
                (
                    f"sharing does not reach from device '{subject.device}' to "
                    f"'{subject.wanted_device}'"
                ),
                f"leave device= out, or {allow}",
            )
        case Fact.STRIDES:
            return (
                f"{_odd_strides(subject)}, which a torch tensor cannot have",
                f"{allow}, or make the array contiguous first",
            )
        case Fact.READ_ONLY if reasons & Fact.MAPPED_FILE:
            return (
                "the memory is a read-only mapped file",
                (
                    "pass readonly='share' if you will not write to the tensor, or copy=True to "
                    "read the whole file"
                ),
            )
        case Fact.READ_ONLY:
            return (
                "the memory must not be written",
                "pass readonly='share' if you will not write to the tensor, or copy=True",
            )
        case Fact.SEQUENCE:
            return (
                (
                    "can't alias arbitrary sequence into a tensor: its numbers are objects of "
                    "their own, not array memory"
                ),
                allow,
            )
    return _OTHER_FACTS[fact], allow


_OTHER_FACTS = {
    Fact.BYTE_ORDER: "the elements are in foreign byte order",
    Fact.ALIGNMENT: "the data is not aligned to its elements",
    Fact.CONJUGATE: "the conjugate bit is set, and must be resolved",
    Fact.NEGATIVE: "the negative bit is set, and must be resolved",
    Fact.SUB_BYTE: "the elements are packed, several to a byte",
    Fact.PRODUCER_COPY: "what its producer hands over is a copy, not its own memory",
    Fact.CHUNKS: "the elements are in several blocks of memory",
}


def _odd_strides(subject: Subject) -> str:
    for axis, (length, stride) in enumerate(zip(subject.shape, subject.strides, strict=True)):
        if length > 1 and stride < 0:
            return f"axis {axis} has the negative stride {stride} (bytes)"
    return f"the strides {subject.strides} (bytes) are not multiples of the item size"
