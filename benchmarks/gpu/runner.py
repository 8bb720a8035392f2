"""All benchmarks of the GPU, one after the other in one process.

Each prints its table and writes its JSON as soon as it is done, so that a run that is cut short
leaves what it has measured. One that fails is reported, and the next one runs.
"""

from __future__ import annotations

import argparse
import importlib
import sys
import time
import traceback
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from benchmarks import report, table
from benchmarks.gpu import hardware

QUESTION = "What do transfers cost on this GPU? All of its benchmarks, one after the other."
MODULES = (
    "bench_pageable",
    "bench_cast",
    "bench_layouts",
    "bench_tree",
    "bench_images",
    "bench_to_numpy",
    "bench_small",
    "bench_queued",
    "bench_stream",
)
FAILED = 1
COLUMNS = ("benchmark", "case", "against", "asked", "measured", "holds")


@dataclass
class Outcome:
    """What is left of the benchmarks that ran: no tensor, no array.

    Attributes:
        asked: A row for each figure that is asked, the benchmark's name first.
        failures: What went wrong, by the benchmark's name.
    """

    asked: list[list[str]] = field(default_factory=list)
    failures: list[tuple[str, str]] = field(default_factory=list)

    def show(self, *, markdown: bool) -> None:
        """Prints every asked figure, how many hold, and what went wrong."""
        if self.asked:
            styles = {"yes": "green", "no": "bold red"}
            table.show_table(COLUMNS, [self.asked], left=3, markdown=markdown, styles=styles)
        holding = sum(row[-1] == "yes" for row in self.asked)
        print(f"{holding} of {len(self.asked)} asked figures hold")
        for name, reason in self.failures:
            print(f"FAILED: {name}: {reason}")


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs them.

    Returns:
        0 where all were measured, whatever holds; 1 where one failed; `hardware.NO_CUDA` where
        there is no CUDA.
    """
    options = _parser().parse_args(arguments)
    try:
        hardware.device()
    except hardware.NoCudaError as error:
        print(error, file=sys.stderr)
        return hardware.NO_CUDA
    outcome = Outcome()
    started = time.monotonic()
    for name in options.only:
        _run_one(name, options, outcome)
    outcome.show(markdown=options.markdown)
    print(f"all in {time.monotonic() - started:.0f} s")
    return FAILED if outcome.failures else 0


def _parser() -> argparse.ArgumentParser:
    parser = report.command_line("python -m benchmarks.gpu", QUESTION)
    parser.add_argument(
        "--json",
        nargs="?",
        const=report.RESULTS,
        type=Path,
        metavar="DIR",
        help="write a JSON file for each into this directory, by default into results/",
    )
    parser.add_argument(
        "--only",
        nargs="+",
        choices=MODULES,
        default=MODULES,
        metavar="MODULE",
        help="run just these",
    )
    return parser


def _run_one(name: str, options: argparse.Namespace, outcome: Outcome) -> None:
    """Runs one benchmark, whatever becomes of it; the GPU's memory has to come back."""
    started = time.monotonic()
    print(f"\n== {name} ==", flush=True)
    try:
        before = hardware.allocated_bytes()
        outcome.asked += [[name, *row] for row in _measured(name, options)]
        left = hardware.allocated_bytes() - before
    except Exception as error:  # noqa: BLE001  # the next one may do better
        traceback.print_exc()
        outcome.failures.append((name, f"{type(error).__name__}: {error}"))
    else:
        if left > 0:
            outcome.failures.append((name, f"{left} bytes of the GPU's memory did not come back"))
    print(f"{name} took {time.monotonic() - started:.0f} s", flush=True)


def _measured(name: str, options: argparse.Namespace) -> list[list[str]]:
    """The asked figures of one benchmark; its tables are printed, its JSON is written."""
    module = importlib.import_module(f"benchmarks.gpu.{name}")
    settings = report.settings_of(options, module.ROUNDS)
    found = report.run(f"gpu.{name}", module.QUESTION, module.plan(settings), settings)
    table.show(found, markdown=options.markdown)
    if options.json is not None:
        print(f"written: {found.write(options.json / found.file_name)}")
    return table.asked_rows(found)
