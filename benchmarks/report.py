"""What a benchmark found: cases, single figures, and what could not be measured."""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from benchmarks import machine, table
from benchmarks.harness import Case, CaseResult, Settings, Spread, measure

RESULTS = Path(__file__).parent / "results"


@dataclass(frozen=True)
class Figure:
    """One number that is no comparison, such as the time of an import.

    Attributes:
        title: What was measured.
        unit: Of the values.
        value: What came out.
        at_most: What it has to stay within.
    """

    title: str
    unit: str
    value: Spread
    at_most: float

    @property
    def holds(self) -> bool:
        return self.value.median <= self.at_most


@dataclass(frozen=True)
class Skipped:
    """A case that this environment cannot run, and the reason."""

    title: str
    reason: str


@dataclass
class Agenda:
    """What a benchmark is about to measure."""

    cases: list[Case] = field(default_factory=list)
    figures: list[Callable[[Settings], Figure]] = field(default_factory=list)
    skipped: list[Skipped] = field(default_factory=list)


@dataclass
class Report:
    """What a benchmark measured."""

    benchmark: str
    question: str
    settings: Settings
    machine: dict[str, Any]
    cases: list[CaseResult] = field(default_factory=list)
    figures: list[Figure] = field(default_factory=list)
    skipped: list[Skipped] = field(default_factory=list)

    @property
    def file_name(self) -> str:
        """Named after the benchmark and the machine."""
        return f"{self.benchmark.rpartition('.')[2]}-{self.machine['name']}.json"

    def as_dict(self) -> dict[str, Any]:
        """The report in plain JSON types; times are nanoseconds."""
        return {
            "benchmark": self.benchmark,
            "question": self.question,
            "machine": self.machine,
            "settings": asdict(self.settings),
            "cases": [_case_as_dict(result) for result in self.cases],
            "figures": [{**asdict(figure), "holds": figure.holds} for figure in self.figures],
            "skipped": [asdict(each) for each in self.skipped],
        }

    def write(self, path: Path | None = None) -> Path:
        """Writes JSON to `path`, by default into `results/` under the `file_name`."""
        path = path or RESULTS / self.file_name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps(self.as_dict(), indent=2) + "\n")
        return path


def _case_as_dict(result: CaseResult) -> dict[str, Any]:
    return {
        "title": result.case.title,
        "moved_bytes": result.case.moved_bytes,
        "inputs": result.case.inputs,
        "loop_ns": asdict(result.loop_ns),
        "timings": [
            {
                **asdict(timing.contestant),
                "ns": asdict(timing.ns),
                "ratio": asdict(timing.ratio) if timing.ratio else None,
                "calls_a_round": timing.calls,
                "holds": timing.holds,
            }
            for timing in result.timings
        ],
    }


def run(benchmark: str, question: str, agenda: Agenda, settings: Settings) -> Report:
    """Measures everything on the agenda."""
    report = Report(benchmark, question, settings, machine.describe())
    report.cases = [measure(case, settings) for case in agenda.cases]
    report.figures = [figure(settings) for figure in agenda.figures]
    report.skipped = list(agenda.skipped)
    report.machine["load_at_end"] = machine.load()
    return report


def command_line(prog: str, question: str) -> argparse.ArgumentParser:
    """What every command line of a benchmark understands."""
    parser = argparse.ArgumentParser(prog=prog, description=question)
    parser.add_argument("--quick", action="store_true", help="a smoke test: few rounds, rough")
    parser.add_argument("--rounds", type=int, help="how often every contestant runs")
    parser.add_argument("--seed", type=int, help="of the random inputs; recorded in the JSON")
    parser.add_argument("--markdown", action="store_true", help="print a Markdown table")
    return parser


def settings_of(options: argparse.Namespace, rounds: int) -> Settings:
    """The settings that a command line asks for, with `rounds` where it names none."""
    settings = Settings(rounds=rounds if options.rounds is None else options.rounds)
    if options.quick:
        settings = Settings.for_smoke_test()
    return settings if options.seed is None else settings.with_seed(options.seed)


def main(
    benchmark: str,
    question: str,
    plan: Callable[[Settings], Agenda],
    arguments: Sequence[str] | None = None,
    rounds: int = 41,
) -> int:
    """The command line of a benchmark module.

    Args:
        benchmark: The module's name.
        question: What it answers, in one sentence.
        plan: Makes the agenda once the settings are known.
        arguments: The command line's words; those of the process by default.
        rounds: How many rounds, unless `--rounds` says otherwise.
    """
    parser = command_line(f"python -m benchmarks.{benchmark}", question)
    parser.add_argument(
        "--json", nargs="?", const="", metavar="PATH", help="write JSON, by default into results/"
    )
    options = parser.parse_args(arguments)
    settings = settings_of(options, rounds)
    report = run(benchmark, question, plan(settings), settings)
    table.show(report, markdown=options.markdown)
    if options.json is not None:
        print(f"written: {report.write(Path(options.json) if options.json else None)}")
    return 0
