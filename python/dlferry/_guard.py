"""`copy_guard`: copies that a caller did not ask for, allowed, reported or forbidden."""

from __future__ import annotations

import contextvars
import inspect
import logging
import sys
from collections.abc import Callable
from contextlib import ContextDecorator
from types import TracebackType
from typing import Any, Literal, NamedTuple, TypeVar

from dlferry._native import core
from dlferry._policy import Decision, Subject, causes, refusal

Function = TypeVar("Function", bound=Callable[..., Any])
Mode = Literal["allow", "log", "error"]
MODES = ("allow", "log", "error")


class _InForce(NamedTuple):
    """A guard, and what it gives way to; kept with the context, since threads share guards."""

    guard: copy_guard
    outer: _InForce | None


_current: contextvars.ContextVar[_InForce | None] = contextvars.ContextVar(
    "dlferry.copy_guard", default=None
)


class copy_guard(ContextDecorator):  # noqa: N801  # used as a function, as torch.no_grad is
    """Allow, report or forbid implicit copies inside a ``with`` block or a decorated function.

    An implicit copy is one made under ``copy=None`` because array memory could not be shared. A
    copy that the call names is not: ``copy=True``, a ``device=`` that differs, numbers and
    sequences. The guard holds for the current thread and asyncio task; the innermost one decides.

    Args:
        mode: ``"error"`` raises `CopyRequired` before anything is moved. ``"log"`` reports each
            copy to the logger ``dlferry``, at level WARNING, with the line of the caller.
            ``"allow"`` lifts an outer guard.
        min_bytes: Copies of fewer bytes (of the result) are let through.

    Raises:
        ValueError: Another `mode`, or a negative `min_bytes`.
        TypeError: It decorates a generator or coroutine function.

    Example:
        >>> import numpy as np, dlferry
        >>> with dlferry.copy_guard("error"):
        ...     shared = dlferry.asarray(np.zeros(3))
    """

    def __init__(self, mode: Mode, *, min_bytes: int = 0) -> None:
        if mode not in MODES:
            raise ValueError(f"mode must be 'allow', 'log' or 'error', not {mode!r}")
        if min_bytes < 0:
            raise ValueError(f"min_bytes must not be negative, and is {min_bytes}")
        self.mode = mode
        self.min_bytes = min_bytes

    def _recreate_cm(self) -> copy_guard:
        return copy_guard(self.mode, min_bytes=self.min_bytes)

    def __call__(self, func: Function) -> Function:
        """Guard every call of a function."""
        is_later = inspect.isgeneratorfunction(func) or inspect.isasyncgenfunction(func)
        if is_later or inspect.iscoroutinefunction(func):
            raise TypeError(
                "copy_guard cannot decorate a generator or coroutine function, whose body runs "
                "when the call is over; use `with copy_guard(...)` inside it"
            )
        return super().__call__(func)

    def __enter__(self) -> copy_guard:  # noqa: PYI034  # Self needs Python 3.11
        """Take effect."""
        _current.set(_InForce(self, _current.get()))
        core.watch_copies(1)
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        """Give way to the guard outside."""
        core.watch_copies(-1)
        current = _current.get()
        if current is not None and current.guard is self:
            _current.set(current.outer)


def check(decision: Decision, subject: Subject, nbytes: int) -> None:
    """Let a copy happen, or not.

    Args:
        decision: What was decided; only implicit copies matter here.
        subject: What it is about.
        nbytes: The size of the copy.

    Raises:
        CopyRequired: The current guard forbids it.
    """
    current = _current.get()
    if current is None or not decision.implicit:
        return
    guard = current.guard
    if guard.mode == "allow" or nbytes < guard.min_bytes:
        return
    if guard.mode == "error":
        raise refusal(decision.reasons, subject)
    facts = "; ".join(f"{cause.name}: {cause.fact}" for cause in causes(decision.reasons, subject))
    logging.getLogger("dlferry").warning(
        "copied %d bytes of %s (%s)", nbytes, subject.what, facts, stacklevel=_level_of_caller()
    )


def _level_of_caller() -> int:
    """How far up the stack, for `logging`, the first frame is that is not dlferry's."""
    level = 1
    frame = sys._getframe(1)
    while frame.f_back is not None and frame.f_globals.get("__name__", "").startswith("dlferry."):
        frame = frame.f_back
        level += 1
    return level
