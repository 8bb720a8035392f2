"""The shared harness: contestants that run in turn on the same inputs, compared round by round.

A `Case` pits one way of doing something against others. Before anything is timed, every contestant
must give the right result for fresh random data. Then, in every round, each contestant and an empty
loop run once, in an order that rotates from round to round, with the garbage collector off. A
contestant's time is that of its loop less the empty one's, and ratios are taken within a round
before the median over all rounds is: a machine that slows down slows both sides of a ratio.
"""

from __future__ import annotations

import gc
import statistics
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass, field, replace
from typing import Any, Literal

import numpy as np

from benchmarks.loops import EMPTY, Loop, calls_needed, compile_loop, same_input

Inputs = Literal["once", "round", "call"]

RESOLUTION_NS = 0.1
"""Times below this are reported as this: the loop's own noise is larger."""


class WrongResultError(AssertionError):
    """A contestant gave a result that the case's check does not accept."""


@dataclass(frozen=True)
class Contestant:
    """One way of doing the work.

    Attributes:
        statement: What is timed and printed, an expression about `x`.
        at_least: How many times faster than this the case's own way has to be; `None` where
            nothing is asked.
        limit: This is no rival but a bound: ratios are read as percent of it.
        label: Printed in place of the statement where that says too little.
        at_most_ns: What a call of the case's own way may take; `None` where nothing is asked.
    """

    statement: str
    at_least: float | None = None
    limit: bool = False
    label: str = ""
    at_most_ns: float | None = None

    @property
    def title(self) -> str:
        return self.label or self.statement


@dataclass(frozen=True)
class Case:
    """One comparison.

    Attributes:
        title: What is converted into what.
        ours: The way whose speed is in question.
        others: What it is compared with.
        make: Makes one input `x` from a random generator; never timed.
        check: Whether a result is right for an `x`.
        names: What the statements name besides `x`: modules, dtypes, helpers.
        inputs: When a new `x` is made: "once", every "round" (the same for all contestants), or
            for every single "call".
        moved_bytes: Bytes read plus bytes written by one call, or, for a transfer, bytes of its
            source; 0 where bandwidth says nothing.
        as_written: The look-up of `module.name` is part of a call.
        around: Entered before each pass through a loop and left after it, outside of the timing;
            a pass is one call then.
    """

    title: str
    ours: Contestant
    others: tuple[Contestant, ...]
    make: Callable[[np.random.Generator], Any]
    check: Callable[[Any, Any], bool]
    names: Mapping[str, object]
    inputs: Inputs = "once"
    moved_bytes: int = 0
    as_written: bool = False
    around: Callable[[], AbstractContextManager[object]] | None = None

    @property
    def contestants(self) -> tuple[Contestant, ...]:
        return (self.ours, *self.others)


@dataclass(frozen=True)
class Settings:
    """How long to measure.

    Attributes:
        rounds: How often every contestant runs.
        least_ns: How long one contestant runs within a round, one call at least.
        most_inputs: The most inputs alive at once where each call gets its own.
        quick: A smoke test: the numbers are rough, and large inputs are small.
        seed: Of the random generator that fills the inputs.
    """

    rounds: int = 41
    least_ns: int = 4_000_000
    most_inputs: int = 2_000
    quick: bool = False
    seed: int = field(default_factory=lambda: int(np.random.SeedSequence().generate_state(1)[0]))

    @classmethod
    def for_smoke_test(cls) -> Settings:
        """Settings that give every figure within a second or so, roughly."""
        return cls(rounds=7, least_ns=400_000, most_inputs=500, quick=True)

    def with_seed(self, seed: int) -> Settings:
        """The same settings with another seed."""
        return replace(self, seed=seed)


@dataclass(frozen=True)
class Spread:
    """A median with its quartiles."""

    median: float
    low: float
    high: float

    @classmethod
    def of(cls, samples: Sequence[float]) -> Spread:
        if len(samples) == 1:
            return cls(samples[0], samples[0], samples[0])
        low, median, high = statistics.quantiles(samples, n=4, method="inclusive")
        return cls(median, low, high)


@dataclass(frozen=True)
class Timing:
    """What one contestant took.

    Attributes:
        contestant: Who.
        ns: Nanoseconds of one call, net of the loop.
        ratio: Its time divided by that of the case's own way, round by round; `None` for that way
            itself.
        calls: Calls in a round.
    """

    contestant: Contestant
    ns: Spread
    ratio: Spread | None
    calls: int

    @property
    def holds(self) -> bool | None:
        """Whether what is asked is reached; `None` where nothing is."""
        if self.ratio is None:
            at_most = self.contestant.at_most_ns
            return None if at_most is None else self.ns.median <= at_most
        at_least = self.contestant.at_least
        return None if at_least is None else self.ratio.median >= at_least


@dataclass(frozen=True)
class CaseResult:
    """A case with its timings, the case's own way first."""

    case: Case
    timings: tuple[Timing, ...]
    loop_ns: Spread


def verify(case: Case, rng: np.random.Generator) -> None:
    """Checks every contestant on one fresh input each.

    Raises:
        WrongResultError: A result is wrong; says whose.
    """
    for contestant in case.contestants:
        if contestant.limit:
            continue
        x = case.make(rng)
        with _surroundings(case):
            result = eval(contestant.statement, dict(case.names), {"x": x})
        if not case.check(x, result):
            raise WrongResultError(f"{case.title}: wrong result from {contestant.title}")


def measure(case: Case, settings: Settings) -> CaseResult:
    """Verifies, then times, every contestant of a case.

    Raises:
        WrongResultError: A contestant is wrong; nothing has been timed then.
    """
    rng = np.random.default_rng(settings.seed)
    verify(case, rng)
    supply = _Supply(case, rng)
    statements = (EMPTY, *(each.statement for each in case.contestants))
    loops = [
        _surrounded(compile_loop(each, case.names, as_written=case.as_written), case)
        for each in statements
    ]
    with _no_collector():
        most_calls = settings.most_inputs if case.inputs == "call" else 10_000_000
        most_calls = 1 if case.around else most_calls
        counts = [calls_needed(run, supply.take, settings.least_ns, most_calls) for run in loops]
        rounds = [_one_round(loops, counts, supply, number) for number in range(settings.rounds)]
    own_calls = [[max(ns - row[0], RESOLUTION_NS) for ns in row[1:]] for row in rounds]
    timings = [
        Timing(
            contestant,
            Spread.of([row[place] for row in own_calls]),
            Spread.of([row[place] / row[0] for row in own_calls]) if place else None,
            counts[place + 1],
        )
        for place, contestant in enumerate(case.contestants)
    ]
    return CaseResult(case, tuple(timings), Spread.of([row[0] for row in rounds]))


class _Supply:
    """The inputs of a case, made outside of the timing."""

    def __init__(self, case: Case, rng: np.random.Generator) -> None:
        self._case = case
        self._rng = rng
        self._x = case.make(rng)

    def start_round(self) -> None:
        if self._case.inputs == "round":
            self._x = None
            self._x = self._case.make(self._rng)

    def take(self, count: int) -> Iterable[object]:
        if self._case.inputs == "call":
            return [self._case.make(self._rng) for _ in range(count)]
        return same_input(self._x, count)


def _one_round(
    loops: Sequence[Loop], counts: Sequence[int], supply: _Supply, number: int
) -> list[float]:
    """Nanoseconds of one pass through each loop, in the order of `loops`."""
    gc.collect()
    supply.start_round()
    ns = [0.0] * len(loops)
    for step in range(len(loops)):
        place = (number + step) % len(loops)
        inputs = supply.take(counts[place])
        ns[place] = loops[place](inputs) / counts[place]
    return ns


def _surroundings(case: Case) -> AbstractContextManager[object]:
    return nullcontext() if case.around is None else case.around()


def _surrounded(loop: Loop, case: Case) -> Loop:
    """The loop within the surroundings of its case."""
    if case.around is None:
        return loop

    def run(inputs: Iterable[object]) -> int:
        with _surroundings(case):
            return loop(inputs)

    return run


@contextmanager
def _no_collector() -> Iterator[None]:
    enabled = gc.isenabled()
    gc.disable()
    gc.collect()
    gc.freeze()  # so that the collections between rounds need not walk all of torch
    try:
        yield
    finally:
        gc.unfreeze()
        if enabled:
            gc.enable()
