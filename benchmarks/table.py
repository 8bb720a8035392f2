"""Results as tables for people: through rich where it is installed, plain or Markdown otherwise."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from benchmarks.harness import CaseResult, Spread, Timing
    from benchmarks.report import Figure, Report

COLUMNS = ("case", "call", "median", "quartiles", "time ÷ ours", "quartiles", "asked", "holds")
BANDWIDTH = "GB/s"

Section = Sequence[Sequence[str]]
"""Rows that belong together; a table rules a line after each section."""


def show(report: Report, *, markdown: bool = False) -> None:
    """Prints a report: the question, the machine, the table, and what is missing."""
    print(f"{report.question}\n{machine_line(report.machine)}")
    if report.settings.quick:
        print("Quick mode: a smoke test of the benchmark; do not quote these numbers.")
    show_cases(report.cases, report.figures, markdown=markdown)
    for skipped in report.skipped:
        print(f"not measured: {skipped.title}: {skipped.reason}")


def show_cases(
    results: Sequence[CaseResult], figures: Sequence[Figure] = (), *, markdown: bool = False
) -> None:
    """Prints cases and figures as one table, a section each."""
    columns = list(COLUMNS)
    with_bandwidth = any(result.case.moved_bytes for result in results)
    if with_bandwidth:
        columns.insert(4, BANDWIDTH)
    sections = [_case_rows(result, with_bandwidth) for result in results]
    sections += [[_figure_row(figure, len(columns))] for figure in figures]
    if sections:
        show_table(columns, sections, markdown=markdown, styles={"yes": "green", "no": "bold red"})


def asked_rows(report: Report) -> list[list[str]]:
    """Each figure that is asked: the case, against what, what is asked, what came out, and whether
    it holds.
    """
    rows = []
    for result in report.cases:
        for timing in result.timings:
            *_, asked, holds = _comparison(timing)
            if asked:
                times = _percent if timing.contestant.limit else _times
                value = times(timing.ratio.median) if timing.ratio else duration(timing.ns.median)
                rows.append([result.case.title, timing.contestant.title, asked, value, holds])
    for figure in report.figures:
        title, *_, asked, holds = _figure_row(figure, len(COLUMNS))
        rows.append([title, "", asked, f"{figure.value.median:.3g} {figure.unit}", holds])
    return rows


def show_table(
    columns: Sequence[str],
    sections: Sequence[Section],
    *,
    left: int = 2,
    markdown: bool = False,
    styles: Mapping[str, str] | None = None,
) -> None:
    """Prints any table of strings.

    Args:
        columns: The head.
        sections: The rows, in groups.
        left: How many columns, from the first, are flush left; the others are flush right.
        markdown: For a document instead of a terminal.
        styles: rich styles of cells with exactly these texts.
    """
    if markdown:
        print(_markdown(columns, sections, left))
        return
    try:
        import rich.box
        import rich.console
        import rich.table
        import rich.text
    except ImportError:
        print(_plain(columns, sections, left))
        return
    grid = rich.table.Table(box=rich.box.SIMPLE_HEAD, pad_edge=False)
    for place, column in enumerate(columns):
        grid.add_column(column, justify="left" if place < left else "right")
    for section in sections:
        for row in section:
            grid.add_row(
                *(rich.text.Text(cell, style=(styles or {}).get(cell, "")) for cell in row)
            )
        grid.add_section()
    # A table wider than the terminal reads better wrapped by the terminal than with cells cut off.
    needed = rich.console.Console(width=1_000).measure(grid).maximum
    width = max(needed, rich.console.Console().width)
    rich.console.Console(highlight=False, width=width).print(grid)


def machine_line(machine: dict[str, Any]) -> str:
    """The machine and its versions in one line."""
    native = machine["dlferry_config"].get("native")
    core = {True: "native core", False: "fallback"}.get(native, "core unknown")
    return (
        f"{machine['cpu']}, {machine['cores']} cores, {_gpu(machine)}Python {machine['python']}, "
        f"torch {machine['torch']}, NumPy {machine['numpy']}, "
        f"dlferry {machine['dlferry']} ({core}), load {machine['load_at_start']}, "
        f"{machine['date']}"
    )


def _gpu(machine: dict[str, Any]) -> str:
    """The GPU, where one was used: its name, link and drivers."""
    gpu = machine.get("gpu")
    if gpu is None:
        return ""
    config = machine["dlferry_config"]
    opened = f"CUDA {config['driver']}" if config.get("driver") else config.get("driver_reason")
    return (
        f"{gpu['name']} on {gpu['link']}, driver {gpu['driver']} (dlferry: {opened}), "
        f"CUDA {gpu['cuda']}, "
    )


def duration(ns: float) -> str:
    """Nanoseconds in the unit that reads best: `310 ns`, `5.66 µs`, `12.1 ms`."""
    for unit, size in (("s", 1e9), ("ms", 1e6), ("µs", 1e3)):
        if ns >= size:
            return f"{ns / size:.3g} {unit}"
    return f"{ns:.0f} ns" if ns >= 99.5 else f"{ns:.1f} ns"


def _case_rows(result: CaseResult, with_bandwidth: bool) -> list[list[str]]:
    rows = []
    for place, timing in enumerate(result.timings):
        row = ["" if place else result.case.title, timing.contestant.title]
        row += [duration(timing.ns.median), _range(timing.ns)]
        if with_bandwidth:
            moved = result.case.moved_bytes
            row.append(f"{moved / timing.ns.median:.1f}" if moved else "")
        rows.append(row + _comparison(timing))
    return rows


def _comparison(timing: Timing) -> list[str]:
    ratio, asked = timing.ratio, timing.contestant.at_least
    if ratio is None:
        at_most = timing.contestant.at_most_ns
        return [
            "",
            "",
            "" if at_most is None else f"≤ {duration(at_most)}",
            _yes_or_no(timing.holds),
        ]
    times = _percent if timing.contestant.limit else _times
    return [
        times(ratio.median),
        f"{times(ratio.low)} - {times(ratio.high)}",
        "" if asked is None else f"≥ {times(asked)}",
        _yes_or_no(timing.holds),
    ]


def _figure_row(figure: Figure, width: int) -> list[str]:
    value = figure.value
    row = [figure.title, "", f"{value.median:.3g} {figure.unit}"]
    row.append(f"{value.low:.3g} - {value.high:.3g} {figure.unit}")
    row += [""] * (width - len(row) - 2)
    return [*row, f"≤ {figure.at_most:g} {figure.unit}", _yes_or_no(figure.holds)]


def _yes_or_no(holds: bool | None) -> str:
    return {True: "yes", False: "no", None: ""}[holds]


def _times(ratio: float) -> str:
    return f"{ratio:.0f}x" if ratio >= 99.5 else f"{ratio:.3g}x"


def _percent(ratio: float) -> str:
    return f"{100 * ratio:.0f} %"


def _range(spread: Spread) -> str:
    low, high = duration(spread.low), duration(spread.high)
    shared_unit = low.split()[1] == high.split()[1]
    return f"{low.split()[0] if shared_unit else low} - {high}"


def _plain(columns: Sequence[str], sections: Sequence[Section], left: int) -> str:
    rows = [list(columns), *(row for section in sections for row in section)]
    widths = [max(len(row[place]) for row in rows) for place in range(len(columns))]

    def line(row: Sequence[str]) -> str:
        cells = [
            cell.ljust(width) if place < left else cell.rjust(width)
            for place, (cell, width) in enumerate(zip(row, widths, strict=True))
        ]
        return "  ".join(cells).rstrip()

    rule = "-" * (sum(widths) + 2 * (len(widths) - 1))
    blocks = ["\n".join(line(row) for row in section) for section in sections]
    return "\n".join([line(columns), rule, "\n\n".join(blocks), rule])


def _markdown(columns: Sequence[str], sections: Sequence[Section], left: int) -> str:
    def line(row: Sequence[str]) -> str:
        cells = [f"`{cell}`" if place == 1 and cell else cell for place, cell in enumerate(row)]
        return "| " + " | ".join(cells) + " |"

    head = "| " + " | ".join(columns) + " |"
    rules = [" --- " if place < left else " ---: " for place in range(len(columns))]
    rule = "|" + "|".join(rules) + "|"
    return "\n".join([head, rule, *(line(row) for section in sections for row in section)])
