"""`explain`: what a conversion would do, and why, without doing it."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any, NamedTuple

from dlferry import _decide, _torch
from dlferry._ingest import checked_request, ingested
from dlferry._policy import Cause, Fact, ReadOnly, causes, reason_names

if TYPE_CHECKING:
    import torch
    from torch.types import Device


class Plan(NamedTuple):
    """What a conversion would do. ``str(plan)`` says it in words."""

    shares: bool
    """Whether the result shares the memory of the input."""
    reasons: tuple[str, ...]
    """Why it does not: the names that `CopyRequired.reasons` has."""
    route: str
    """``"share"``, ``"host copy"``, ``"torch copy"`` (of a tensor), ``"fill"`` (from a sequence),
    or ``"refuse"``. Across the link ``"staged → cuda:0"``, ``"pinned → cuda:0"`` (read where it is)
    or ``"cuda:0 → cpu"``; ``"fill → cuda:0"`` from a sequence, and ``"host copy → cuda:0"`` where
    torch makes the copy."""
    bytes_moved: int
    """The bytes that would be written, or cross the link; 0 where memory is shared, or refused."""
    dtype: torch.dtype
    """Of the result."""
    device: torch.device
    """Of the result."""
    what: str
    """The input, in words."""
    causes: tuple[Cause, ...]
    """The reasons in words, each with its remedy."""

    def __str__(self) -> str:
        """A line for what would happen, and one for each reason."""
        does = {"share": "shared", "refuse": "refused"}.get(
            self.route, f"copied, {self.bytes_moved:,} bytes"
        )
        head = f"{self.what} → {self.dtype} on {self.device}: {does} ({self.route})"
        return "\n".join([head, *(f"  {cause.name}: {cause.fact}" for cause in self.causes)])


def explain(
    obj: object,
    /,
    *,
    dtype: torch.dtype | None = None,
    device: Device = None,
    copy: bool | None = None,
    readonly: ReadOnly = "copy",
) -> Plan:
    """Return what `asarray` would do with the same arguments, and why. Nothing is moved.

    Asks the same decision as the real call. A DLPack object is asked for its memory and the export
    released; a capsule stays usable.

    Args:
        obj: As in `asarray`.
        dtype: As in `asarray`.
        device: As in `asarray`.
        copy: As in `asarray`. Where ``False`` would raise, the plan's route is ``"refuse"``.
        readonly: As in `asarray`.

    Raises:
        UnsupportedInput: `asarray` would raise it too, as it would every other error but
            `CopyRequired`. A sequence is looked through also where ``copy=False`` refuses it.

    Example:
        >>> import numpy as np, dlferry
        >>> plan = dlferry.explain(np.arange(6.0)[::-1])
        >>> plan.shares, plan.reasons, plan.bytes_moved
        (False, ('strides',), 48)
    """
    request = checked_request(dtype, device, copy, readonly)
    if _torch.is_tensor(obj):
        outcome = _decide.for_tensor(obj, request)
        return _plan(outcome, *_way(obj, obj.dtype, outcome, "torch copy"))
    found = ingested(obj, request)
    if found is None:
        outcome = _decide.for_sequence(obj, request)
        return _plan(outcome, _from_host("fill", outcome.device))
    outcome = _decide.for_array(found, request)
    route = _from_host("host copy", outcome.device)
    return _plan(outcome, *_way(found.source, found.source.dtype, outcome, route))


def _from_host(route: str, device: torch.device) -> str:
    return route if device.type == "cpu" else f"{route} → {device}"


def _way(
    array: Any, dtype: torch.dtype, outcome: _decide.Outcome, otherwise: str
) -> tuple[str, torch.dtype]:
    """The route of a copy, and the dtype of what is moved: over the link, the narrower one."""
    target = outcome.device
    if not outcome.decision.reasons & Fact.DEVICE:
        return otherwise, outcome.dtype
    from dlferry import _link, _page_locked

    if not _link.takes(array, target):
        return otherwise, outcome.dtype
    wire = _link.wire_dtype(dtype, outcome.dtype)
    if target.type == "cpu":
        return f"{array.device} → cpu", wire
    is_direct = _torch.is_tensor(array) and _page_locked.goes_direct(array, wire)
    return f"{'pinned' if is_direct else 'staged'} → {target}", wire


def _plan(outcome: _decide.Outcome, copy_route: str, moved: torch.dtype | None = None) -> Plan:
    decision, subject, dtype, device = outcome
    copies = decision.action == "copy"
    return Plan(
        shares=decision.action == "share",
        reasons=reason_names(decision.reasons),
        route=copy_route if copies else decision.action,
        bytes_moved=math.prod(subject.shape) * (moved or dtype).itemsize if copies else 0,
        dtype=dtype,
        device=device,
        what=subject.what,
        causes=tuple(causes(decision.reasons, subject)),
    )
