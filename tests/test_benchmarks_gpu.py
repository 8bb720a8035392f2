"""The benchmarks of the GPU, as far as a machine without one can tell: what they ask, that they run
on a stand-in, that their checks refuse wrong results, and what their runner does.
"""

from __future__ import annotations

import importlib
import json
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from sim_torch import SimDoor, SimTensor, read

from benchmarks import machine, table
from benchmarks.gpu import bench_layouts, bench_stream, hardware, runner
from benchmarks.harness import Case, Contestant, Settings, WrongResultError, measure, verify
from benchmarks.loops import EMPTY, compile_loop
from benchmarks.report import Agenda, run

BRIEF = Settings(rounds=2, least_ns=1_000, most_inputs=2, quick=True, seed=1)
FULL = Settings(rounds=2, least_ns=1_000, most_inputs=2, seed=1)

AS_TENSOR, OF_PINNED = (
    "done(torch.as_tensor(x, device=cuda))",
    ".pin_memory().to(cuda, non_blocking",
)
PINNED = "done(torch.from_numpy(x).pin_memory().to(cuda, non_blocking=True))"
LINK = "the limit: a pinned copy into memory that is there"
EACH = "for k, v in x.items()})"

# Of every case, in order: what each contestant is asked, by a part of its title that only it has.
ASKED: dict[str, list[dict[str, float]]] = {
    "bench_pageable": [{AS_TENSOR: 3.0, PINNED: 1.5, LINK: 0.85}],
    "bench_cast": [
        {
            "done(torch.as_tensor(x, dtype=torch.float32, device=cuda))": 15.0,
            f"{OF_PINNED}=True).float())": 2.5,
            "torch.from_numpy(x).to(cuda).float()": 2.5,
        }
    ],
    "bench_layouts": [
        *3 * [{AS_TENSOR: 4.0, "np.ascontiguousarray(x)).pin_memory()": 2.5}],
        {
            "as_tensor(np.ascontiguousarray(x), device=cuda)": 4.0,
            "from_numpy(np.ascontiguousarray(x)).pin_memory()": 2.5,
        },
        {
            "as_tensor(x.astype(np.float32), device=cuda)": 4.0,
            "from_numpy(x.astype(np.float32)).pin_memory()": 2.5,
        },
    ],
    "bench_tree": [
        {
            f"done({{k: torch.as_tensor(v, device=cuda) {EACH}": 10.0,
            f"{OF_PINNED}=True) {EACH}": 8.0,
            ".split(1024)": 1.0,
        }
    ],
    "bench_images": [
        {AS_TENSOR: 500.0, "np.stack(x)).pin_memory()": 2.5, "as_tensor(np.stack(x)": 2.5}
    ],
    "bench_to_numpy": [{"done(x.cpu().numpy())": 10.0, "done(warm.copy_(x": 0.95}],
    "bench_small": [{AS_TENSOR: 1.0, PINNED: 1.0}],
    "bench_queued": [{PINNED[5:-1]: 1.0}, {}],
    "bench_stream": [
        {"the limit: the steps alone": 1 / 1.05},
        {
            "the limit: the copies alone": 1 / 1.05,
            "the limit: pinned copies into memory that is there": 0.85,
            "DataLoader(pin_memory=True)": 1.3,
            "DataLoader(pin_memory=True, num_workers=2)": 1.3,
        },
    ],
}


def imported(name: str) -> ModuleType:
    return importlib.import_module(f"benchmarks.gpu.{name}")


@pytest.fixture
def on_cpu(monkeypatch: pytest.MonkeyPatch) -> None:
    """The CPU in place of the GPU, and page-locked memory that is none."""
    monkeypatch.setattr(hardware, "device", lambda: torch.device("cpu"))
    monkeypatch.setattr(torch.Tensor, "pin_memory", torch.Tensor.clone)


@pytest.fixture
def no_cuda(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)


# --- what they ask ---


def test_every_module_is_run() -> None:
    files = Path(hardware.__file__).parent.glob("bench_*.py")
    assert sorted(runner.MODULES) == sorted(path.stem for path in files) == sorted(ASKED)


@pytest.mark.usefixtures("on_cpu")
@pytest.mark.parametrize("name", runner.MODULES)
def test_modules_ask_for_the_figures_of_the_project(
    name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(bench_stream, "_room_to_share", lambda size: True)
    cases = imported(name).plan(BRIEF).cases
    assert len({case.title for case in cases}) == len(cases) == len(ASKED[name])
    for case, asked in zip(cases, ASKED[name], strict=True):
        titles = {each.title: each.at_least for each in case.others if each.at_least is not None}
        assert len(titles) == len(asked)
        for part, figure in asked.items():
            found = [value for title, value in titles.items() if part in title]
            assert figure in found, (part, titles)
        assert "dlferry." in case.ours.statement
        assert not any("dlferry." in each.title for each in case.others)


@pytest.mark.usefixtures("on_cpu")
def test_the_host_time_behind_queued_work_is_asked() -> None:
    small, large = imported("bench_queued").plan(FULL).cases
    assert (small.ours.at_most_ns, large.ours.at_most_ns) == (200_000, 10_000_000)
    assert "64 KiB" in small.title and "64 MiB" in large.title
    for each in (*small.contestants, *large.contestants):
        assert "done(" not in each.statement


@pytest.mark.usefixtures("on_cpu")
def test_all_other_statements_end_in_synchronisation() -> None:
    for name in set(runner.MODULES) - {"bench_queued"}:
        for case in imported(name).plan(BRIEF).cases:
            assert all(each.statement.startswith("done(") for each in case.contestants)


@pytest.mark.usefixtures("on_cpu")
def test_sizes_are_those_of_the_figures() -> None:
    expected = {
        "bench_pageable": [256 * 2**20],
        "bench_cast": [38_535_168],
        "bench_layouts": 5 * [128 * 2**20],
        "bench_tree": [100 * 4096],
        "bench_images": [64 * 150_528],
        "bench_to_numpy": [256 * 2**20],
    }
    for name, sizes in expected.items():
        assert [case.moved_bytes for case in imported(name).plan(FULL).cases] == sizes, name
    assert "m[:, :4096], 128 MiB" in [case.title for case in bench_layouts.plan(FULL).cases]


# --- whether they would run ---


@pytest.mark.usefixtures("on_cpu")
def test_every_statement_compiles_into_a_loop() -> None:
    for name in runner.MODULES:
        for case in imported(name).plan(BRIEF).cases:
            for statement in (EMPTY, *(each.statement for each in case.contestants)):
                compile_loop(statement, case.names)


@pytest.mark.usefixtures("on_cpu")
@pytest.mark.parametrize("name", runner.MODULES)
def test_modules_run_on_the_stand_in(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    module = imported(name)
    # No workers: this process may have threads of other libraries, which do not survive a fork.
    monkeypatch.setattr(bench_stream, "_room_to_share", lambda size: False)
    found = run(f"gpu.{name}", module.QUESTION, module.plan(BRIEF), BRIEF)
    assert all(timing.ns.median > 0 for result in found.cases for timing in result.timings)
    assert "gpu" not in found.machine
    assert found.file_name == f"{name}-{machine.name()}.json"
    assert len(table.asked_rows(found)) >= len(found.cases)


@pytest.mark.native
@pytest.mark.parametrize("name", ["bench_cast", "bench_layouts", "bench_pageable", "bench_small"])
def test_our_statements_run_on_the_simulator(
    name: str, gpu: SimDoor, monkeypatch: pytest.MonkeyPatch
) -> None:
    for case in planned(name, monkeypatch):
        x, result = on_simulator(case, gpu)
        assert isinstance(result, SimTensor)
        assert case.check(x, read(result))


@pytest.mark.native
def test_our_lists_and_dicts_run_on_the_simulator(
    gpu: SimDoor, monkeypatch: pytest.MonkeyPatch
) -> None:
    (images,) = planned("bench_images", monkeypatch)
    x, result = on_simulator(images, gpu)
    assert images.check(x, read(result))
    (tree,) = planned("bench_tree", monkeypatch)
    x, result = on_simulator(tree, gpu)
    assert tree.check(x, {key: read(value) for key, value in result.items()})


def planned(name: str, monkeypatch: pytest.MonkeyPatch) -> list[Case]:
    monkeypatch.setattr(hardware, "device", lambda: torch.device("cpu"))
    return list(imported(name).plan(BRIEF).cases)


def on_simulator(case: Case, gpu: SimDoor) -> tuple[Any, Any]:
    """An input, and what the case's own way makes of it on the simulated GPU."""

    def done(value: Any) -> Any:
        assert gpu.sim.stream_wait(gpu.current_stream(0)) == 0
        return value

    x = case.make(np.random.default_rng(3))
    names = {**case.names, "cuda": torch.device("cuda", 0), "done": done}
    return x, eval(case.ours.statement, names, {"x": x})


# --- whether they would notice ---


def wrong(result: Any) -> Iterator[Any]:
    """Results that are wrong in one way each."""
    if isinstance(result, dict):
        first, *others = result
        yield {key: result[key] for key in others}
        yield {key: result[key] for key in (*others, first)}
        yield {**result, first: result[first] + 1}
        return
    if isinstance(result, list):
        yield result[1:]
        yield [result[0] + 1, *result[1:]]
        yield [total.to("meta") for total in result]
        return
    changed = result.copy() if isinstance(result, np.ndarray) else result.clone()
    changed.reshape(-1)[-1] += 1
    yield changed
    yield result[1:]
    yield result.reshape(1, *result.shape)
    if isinstance(result, torch.Tensor):
        yield result.to(torch.float64)
        yield result.to("meta")
        yield result.numpy()
    else:
        yield result.astype(np.float64)
        yield torch.from_numpy(result)


@pytest.mark.usefixtures("on_cpu")
@pytest.mark.parametrize("name", runner.MODULES)
def test_checks_accept_right_results_and_refuse_wrong_ones(name: str) -> None:
    for case in imported(name).plan(BRIEF).cases:
        x = case.make(np.random.default_rng(2))
        result = eval(case.ours.statement, dict(case.names), {"x": x})
        assert case.check(x, result)
        for number, each in enumerate(wrong(result)):
            assert not case.check(x, each), (case.title, number)


@pytest.mark.usefixtures("on_cpu")
@pytest.mark.parametrize("name", runner.MODULES)
def test_inputs_are_fresh_and_random(name: str) -> None:
    for case in imported(name).plan(BRIEF).cases:
        rng = np.random.default_rng(4)
        x, another = case.make(rng), case.make(rng)
        result = eval(case.ours.statement, dict(case.names), {"x": x})
        assert not case.check(another, result)


def test_a_wrong_result_ends_a_case_behind_queued_work() -> None:
    entered: list[str] = []
    case = queued_case("x + 2", entered)
    with pytest.raises(WrongResultError):
        verify(case, np.random.default_rng(1))
    assert entered == ["in", "out"]


def test_surroundings_are_entered_for_each_call() -> None:
    entered: list[str] = []
    ours, other = measure(queued_case("x + 1", entered), BRIEF).timings
    assert (ours.calls, other.calls) == (1, 1)
    assert ours.holds is True
    # Two checks; of three loops, two passes to warm up and two rounds.
    assert entered == ["in", "out"] * (2 + 3 * (2 + 2))


def queued_case(ours: str, entered: list[str]) -> Case:
    class Around:
        def __enter__(self) -> None:
            entered.append("in")

        def __exit__(self, *_: object) -> None:
            entered.append("out")

    return Case(
        "increment",
        Contestant(ours, at_most_ns=1e9),
        (Contestant("1 + x"),),
        make=lambda rng: int(rng.integers(1000)),
        check=lambda x, result: bool(result == x + 1),
        names={},
        around=Around,
    )


# --- the runner ---


@pytest.mark.usefixtures("no_cuda")
@pytest.mark.parametrize("name", ["", *runner.MODULES])
def test_without_cuda_one_line_says_so(
    name: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["--json", str(tmp_path / "results")]
    if name:
        module = imported(name)
        status = hardware.main(name, module.QUESTION, module.plan, words)
    else:
        status = runner.main(words)
    out, err = capsys.readouterr()
    assert (status, out) == (3, "")
    assert err.startswith("no CUDA: ") and err.count("\n") == 1
    assert not any(tmp_path.iterdir())


def made_up(monkeypatch: pytest.MonkeyPatch, **plans: Callable[[Settings], Agenda]) -> None:
    """Puts modules of these names in the place of the runner's."""
    for name, plan in plans.items():
        module = SimpleNamespace(QUESTION=f"{name}?", ROUNDS=3, plan=plan)
        monkeypatch.setitem(sys.modules, f"benchmarks.gpu.{name}", module)
    monkeypatch.setattr(runner, "MODULES", tuple(plans))


def increments(ours: str = "x + 1", at_least: float = 1e-9) -> Callable[[Settings], Agenda]:
    case = queued_case(ours, [])
    return lambda settings: Agenda(
        [Case(case.title, case.ours, (Contestant("1 + x", at_least),), case.make, case.check, {})]
    )


@pytest.mark.usefixtures("on_cpu")
def test_the_runner_goes_on_after_a_failure(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    def broken(settings: Settings) -> Agenda:
        raise MemoryError("no room")

    made_up(monkeypatch, bench_a=broken, bench_b=increments("x"), bench_c=increments(at_least=1e9))
    assert runner.main(["--quick", "--seed", "7", "--markdown", "--json", str(tmp_path)]) == 1
    out = capsys.readouterr().out
    assert "FAILED: bench_a: MemoryError: no room" in out
    assert "FAILED: bench_b: WrongResultError: increment: wrong result from x" in out
    assert "1 of 2 asked figures hold" in out
    assert "| bench_c | `increment` | 1 + x |" in out
    (written,) = tmp_path.iterdir()
    assert written.name == f"bench_c-{machine.name()}.json"
    found = json.loads(written.read_text())
    assert (found["benchmark"], found["settings"]["seed"]) == ("gpu.bench_c", 7)
    assert [timing["holds"] for timing in found["cases"][0]["timings"]] == [True, False]


@pytest.mark.usefixtures("on_cpu")
def test_the_runner_succeeds_where_all_were_measured(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    made_up(monkeypatch, bench_a=increments(), bench_b=increments(at_least=1e9))
    assert runner.main(["--rounds", "2", "--only", "bench_b"]) == 0
    out = capsys.readouterr().out
    assert "bench_a" not in out and "FAILED" not in out and "1 of 2 asked figures hold" in out


@pytest.mark.usefixtures("on_cpu")
def test_memory_that_stays_on_the_gpu_is_a_failure(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    made_up(monkeypatch, bench_a=increments())
    amounts = iter([1000, 1512])
    monkeypatch.setattr(hardware, "allocated_bytes", lambda: next(amounts))
    assert runner.main(["--rounds", "2"]) == 1
    assert "FAILED: bench_a: 512 bytes of the GPU's memory" in capsys.readouterr().out
