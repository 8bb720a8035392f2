"""The harness of the benchmarks: what it refuses, what it compares, what it writes."""

from __future__ import annotations

import gc
import json
import resource
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from benchmarks import bench_collate, bench_exchange_latency, machine, table
from benchmarks.fresh_memory import found_by_the_host
from benchmarks.harness import Case, Contestant, Settings, Spread, WrongResultError, measure
from benchmarks.loops import compile_loop
from benchmarks.report import Agenda, Skipped, run

BRIEF = Settings(rounds=3, least_ns=1_000, most_inputs=5, quick=True, seed=1)


def case(ours: str = "x + 1", other: str = "1 + x", **more: Any) -> Case:
    return Case(
        "increment",
        Contestant(ours),
        (Contestant(other, at_least=0.001),),
        make=lambda rng: int(rng.integers(1000)),
        check=lambda x, result: bool(result == x + 1),
        names={"np": np, **more.pop("names", {})},
        **more,
    )


def test_loop_runs_its_statement_once_for_each_input() -> None:
    seen: list[int] = []
    taken = compile_loop("seen.append(x)", {"seen": seen})([1, 2, 3])
    assert seen == [1, 2, 3]
    assert taken > 0


def test_loop_looks_module_attributes_up_beforehand() -> None:
    loop = compile_loop("np.add(x, np.float32(1))", {"np": np})
    names = set(loop.__code__.co_names)
    assert not names & {"np", "add", "float32"}


def test_loop_looks_them_up_in_each_call_as_written() -> None:
    loop = compile_loop("np.add(x, 1)", {"np": np}, as_written=True)
    assert "add" in loop.__code__.co_names


def test_loop_names_an_attribute_that_is_missing() -> None:
    with pytest.raises(AttributeError, match="no_such_thing"):
        compile_loop("np.no_such_thing(x)", {"np": np})


@pytest.mark.parametrize("wrong", [{"ours": "x + 2"}, {"other": "x"}])
def test_wrong_results_are_never_timed(wrong: dict[str, str]) -> None:
    with pytest.raises(WrongResultError, match="increment: wrong result from x"):
        measure(case(**wrong), BRIEF)


def test_measure_gives_a_ratio_to_all_but_the_first() -> None:
    ours, other = measure(case(), BRIEF).timings
    assert ours.ratio is None
    assert ours.holds is None
    assert other.ratio is not None
    assert other.ratio.low <= other.ratio.median <= other.ratio.high
    assert other.holds is True


@pytest.mark.parametrize("mode", ["once", "round", "call"])
def test_inputs_are_made_as_often_as_asked(mode: Any) -> None:
    seen: list[int] = []
    counter = iter(range(100_000))
    watched = Case(
        "watched",
        Contestant("seen.append(x)"),
        (),
        make=lambda _rng: next(counter),
        check=lambda _x, result: result is None,
        names={"seen": seen},
        inputs=mode,
    )
    measure(watched, BRIEF)
    timed = seen[1:]  # the first call is the check's
    distinct = len(set(timed))
    if mode == "call":
        assert distinct == len(timed)
    else:
        assert distinct == (1 if mode == "once" else 1 + BRIEF.rounds)


def test_measure_leaves_the_collector_as_it_was() -> None:
    during: list[bool] = []
    names = {"during": during, "gc": gc}
    watched = case(ours="during.append(gc.isenabled()) or x + 1", names=names)
    assert gc.isenabled()
    measure(watched, BRIEF)
    assert gc.isenabled()
    assert gc.get_freeze_count() == 0
    assert not any(during[1:])  # the first call is the check's


def test_spread_is_median_and_quartiles() -> None:
    assert Spread.of([5.0, 1.0, 4.0, 2.0, 3.0]) == Spread(3.0, 2.0, 4.0)
    assert Spread.of([7.0]) == Spread(7.0, 7.0, 7.0)


def test_report_is_written_with_its_machine(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    agenda = Agenda([case()], skipped=[Skipped("other things", "no such library")])
    report = run("bench_test", "How long?", agenda, BRIEF)
    written = json.loads(report.write(tmp_path / "out" / "result.json").read_text())
    assert written["machine"]["cores"] == machine.core_count()
    assert {"cpu", "caches", "python", "torch", "numpy", "dlferry", "date"} <= set(
        written["machine"]
    )
    assert written["settings"]["seed"] == 1
    assert [timing["statement"] for timing in written["cases"][0]["timings"]] == ["x + 1", "1 + x"]
    table.show(report, markdown=True)
    printed = capsys.readouterr().out
    assert "| increment | `x + 1` |" in printed
    assert "not measured: other things: no such library" in printed


def test_exchange_cases_share_memory() -> None:
    for each in bench_exchange_latency.cases(bench_exchange_latency.small_array):
        assert measure(each, BRIEF).timings[0].ns.median > 0


def test_collate_cases_make_the_batches_of_torch() -> None:
    for each in bench_collate.cases(8):
        assert measure(each, BRIEF).timings[0].ns.median > 0


@pytest.mark.parametrize(
    ("ns", "text"), [(9.96, "10.0 ns"), (310.4, "310 ns"), (5_664, "5.66 µs"), (1.21e7, "12.1 ms")]
)
def test_durations_read_well(ns: float, text: str) -> None:
    assert table.duration(ns) == text


def _resident_bytes() -> int:
    return int(Path("/proc/self/statm").read_text().split()[1]) * resource.getpagesize()


@pytest.mark.skipif(not Path("/proc/self/statm").exists(), reason="asks Linux what is resident")
def test_memory_found_by_the_host_is_free_again() -> None:
    size = 128 * 2**20
    with found_by_the_host(size):  # starts the threads
        before = _resident_bytes()
    with found_by_the_host(size):
        assert _resident_bytes() < before + size // 4
