"""The decision for a call: the facts of what it was given, put to the core's table.

Moves nothing; `_convert` acts on the answer, and `explain` shows it.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np

from dlferry import _guard, _numbers, _sequence, _sources, _torch
from dlferry._errors import UnsupportedInput
from dlferry._ingest import Found, Request, described, ingested
from dlferry._native import core
from dlferry._policy import Decision, Fact, Subject, refusal
from dlferry._torch import torch


class Outcome(NamedTuple):
    """What is to be done, and with what."""

    decision: Decision
    subject: Subject
    dtype: torch.dtype
    """Of the result."""
    device: torch.device
    """Of the result."""

    def enforce(self) -> Decision:
        """The decision, where it may be acted on.

        Raises:
            CopyRequired: The decision is to refuse, or the current `copy_guard` forbids the copy.
        """
        if self.decision.action == "refuse":
            raise refusal(self.decision.reasons, self.subject)
        if self.decision.implicit:
            nbytes = math.prod(self.subject.shape) * self.dtype.itemsize
            _guard.check(self.decision, self.subject, nbytes)
        return self.decision


def for_array(found: Found, request: Request) -> Outcome:
    """For memory on the host."""
    source = found.source
    is_scalar = isinstance(found.origin, np.generic)
    device = request.device or (_torch.default_device() if is_scalar else torch.device("cpu"))
    dtype = request.dtype or source.dtype
    facts = source.facts | found.facts
    if dtype != source.dtype:
        facts |= Fact.DTYPE
    if is_scalar:
        facts |= Fact.SEQUENCE
    if device.type != "cpu":
        facts |= Fact.DEVICE
    if facts & Fact.READ_ONLY and request.readonly == "copy" and request.copy is not True:
        facts |= Fact.MAPPED_FILE if _sources.is_mapped_file(found.origin) else 0
    decision = Decision(*core.decide(facts, request.copy, request.readonly))
    subject = Subject(
        described(found.origin), source.dtype, source.device, source.shape, source.strides,
        dtype, str(device),
    )  # fmt: skip
    return Outcome(decision, subject, dtype, device)


def for_tensor(tensor: torch.Tensor, request: Request, found: Found | None = None) -> Outcome:
    """For a tensor, or for device memory that was found and is one already."""
    device = request.device or tensor.device
    dtype = request.dtype or tensor.dtype
    facts = 0 if found is None else found.source.facts
    facts |= Fact.DTYPE * (dtype != tensor.dtype) | Fact.DEVICE * (device != tensor.device)
    decision = Decision(*core.decide(int(facts), request.copy, request.readonly))
    subject = Subject(
        described(tensor if found is None else found.origin), tensor.dtype, str(tensor.device),
        () if tensor.is_nested else tuple(tensor.shape),
        () if found is None else found.source.strides,
        wanted_dtype=dtype, wanted_device=str(device),
    )  # fmt: skip
    return Outcome(decision, subject, dtype, device)


def for_sequence(obj: object, request: Request) -> Outcome:
    """For numbers and nested sequences, which are scanned and not yet copied.

    Raises:
        UnsupportedInput: `obj` is neither.
        OverflowError, TypeError: A number is none of the dtype.
    """
    check_sequence(obj)
    leaves, shape = _sequence.scan(obj, lambda item: _outline(item, request))
    dtype = request.dtype or _sequence.promoted(leaves.kinds)
    device = request.device or _torch.default_device()
    decision = Decision(*core.decide(Fact.SEQUENCE, request.copy, request.readonly))
    if decision.action == "copy":
        _numbers.converted(leaves.numbers(), dtype)
    subject = Subject(described(obj), None, "cpu", shape, wanted_dtype=dtype)
    return Outcome(decision, subject, dtype, device)


def check_sequence(obj: object) -> None:
    """Raise `UnsupportedInput` for what is neither an array nor a number or sequence."""
    if not _sequence.is_sequence(obj):
        raise UnsupportedInput(
            f"{described(obj)} is not an array, and has none of the protocols of one; pass an "
            "array, a buffer, a number, or a nested list of numbers or arrays"
        )


def _outline(item: object, request: Request) -> torch.Tensor | None:
    """An array-like inside a sequence, as a tensor without memory: its shape and dtype."""
    if _torch.is_tensor(item):
        if item.is_meta:
            raise UnsupportedInput(_sequence.NO_ELEMENTS)
        return item
    found = ingested(item, request._replace(copy=None))
    if found is None:
        return None
    return torch.empty(found.source.shape, dtype=found.source.dtype, device="meta")
