"""Timed loops: a statement in, nanoseconds for a number of calls out."""

from __future__ import annotations

import ast
import itertools
from collections.abc import Callable, Iterable, Mapping
from time import perf_counter_ns
from types import ModuleType
from typing import Any, cast

Loop = Callable[[Iterable[object]], int]
"""Runs its statement once for every input `x`; returns the nanoseconds for all of them."""

EMPTY = "pass"
"""The statement whose loop is the overhead that is subtracted from all others."""


class _ModuleAttributes(ast.NodeTransformer):
    """Turns `module.name` into a local variable, so that no look-up is timed."""

    def __init__(self, names: Mapping[str, object]) -> None:
        self.names = names
        self.hoisted: dict[str, object] = {}

    def visit_Attribute(self, node: ast.Attribute) -> ast.expr:
        value = node.value
        if isinstance(value, ast.Name) and isinstance(self.names.get(value.id), ModuleType):
            local = f"{value.id}_{node.attr}"
            self.hoisted[local] = getattr(self.names[value.id], node.attr)
            return ast.Name(local, ast.Load())
        return cast(ast.expr, self.generic_visit(node))


def compile_loop(statement: str, names: Mapping[str, object], *, as_written: bool = False) -> Loop:
    """Compiles `for x in inputs: statement`.

    The statement is compiled into the loop, as `timeit` does, because a function around it would
    cost more than the calls that are measured here. Whatever it names is a local variable of the
    loop, attributes of modules included: `torch.asarray(x)` times the call, not the look-up.

    Args:
        statement: One Python statement about `x`. Its result is dropped, and freed, inside the
            loop.
        names: What the statement may name besides `x`.
        as_written: Attributes of modules are looked up in each call, as in most programs.

    Raises:
        AttributeError: A module in `names` lacks an attribute that the statement asks for.
    """
    hoist = _ModuleAttributes(names)
    body = statement if as_written else ast.unparse(hoist.visit(ast.parse(statement)))
    scope: dict[str, Any] = {**names, **hoist.hoisted, "clock": perf_counter_ns}
    parameters = ", ".join(f"{name}={name}" for name in scope)
    source = (
        f"def loop(inputs, {parameters}):\n"
        f"    started = clock()\n"
        f"    for x in inputs:\n"
        f"        {body}\n"
        f"    return clock() - started\n"
    )
    exec(compile(source, f"<benchmark: {statement}>", "exec"), scope)
    return cast(Loop, scope["loop"])


def same_input(x: object, count: int) -> Iterable[object]:
    """`x`, `count` times."""
    return itertools.repeat(x, count)


def calls_needed(
    loop: Loop, inputs: Callable[[int], Iterable[object]], least_ns: int, most_calls: int
) -> int:
    """How many calls keep `loop` busy for about `least_ns`; at least one, at most `most_calls`.

    The loop runs several times for this, which also warms it up.
    """
    count = 1
    loop(inputs(count))
    while True:
        taken = max(loop(inputs(count)), 1)
        if taken >= least_ns or count >= most_calls:
            return count
        growth = min(max(least_ns / taken, 1.5), 10.0)
        count = min(int(count * growth) + 1, most_calls)
