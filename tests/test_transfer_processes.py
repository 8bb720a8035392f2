"""Transfers and the life of a process: no driver, forks, and the end of the interpreter."""

from __future__ import annotations

import os
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest
from sim_driver import SimDriver

pytestmark = pytest.mark.native

HEAD = """
import atexit, os, signal, sys, threading, time
import numpy as np, pytest, torch, dlferry
from dlferry import _link
from dlferry._native import core
from sim_driver import SimDriver, library_path
from sim_torch import SimDoor, block_of, read, write

sim = SimDriver(library_path())
door = SimDoor(sim)
door.install(pytest.MonkeyPatch())

torch.set_num_threads(1)  # a forked child has none of the others

def send(count):
    return _link.to_device([torch.ones(count)], [torch.float32], 0)

LARGE = 10_000_000
"""


def run(body: str, sim: SimDriver, **environment: str) -> None:
    """Runs a program in a fresh interpreter; it must say `end` and exit with 0, in silence."""
    paths = [str(Path(__file__).parent), os.environ.get("PYTHONPATH", "")]
    done = subprocess.run(
        [sys.executable, "-X", "faulthandler", "-W", "error", "-c", HEAD + textwrap.dedent(body)],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
        env={
            **os.environ,
            "DLFERRY_TEST_SIM": str(sim.path),
            "DLFERRY_CUDA_DRIVER": str(sim.path),
            "PYTHONPATH": os.pathsep.join(filter(None, paths)),
            **environment,
        },
    )
    assert done.stderr == ""
    assert done.returncode == 0
    assert done.stdout.split() == ["end"]


def test_without_a_driver_the_error_says_what_is_missing(sim_driver: SimDriver) -> None:
    run(
        """
        assert dlferry.show_config()["driver"] is None
        assert "not opened yet" in dlferry.show_config()["driver_reason"]
        with pytest.raises(dlferry.DriverUnavailable, match="could not be opened"):
            send(1)
        with pytest.raises(dlferry.DriverUnavailable, match="could not be opened"):
            send(LARGE)
        with pytest.raises(dlferry.DriverUnavailable, match="could not be opened"):
            dlferry.pin(torch.ones(9))
        assert "could not be opened" in dlferry.show_config()["driver_reason"]
        assert set(dlferry.memory_stats().values()) == {0}
        print("end")
        """,
        sim_driver,
        DLFERRY_CUDA_DRIVER="/nowhere/libcuda.so.1",
    )


def test_the_driver_is_opened_when_it_is_first_needed(sim_driver: SimDriver) -> None:
    run(
        """
        assert sim.calls(b"cuInit") == 0
        assert dlferry.show_config()["driver"] is None
        assert send(1).synchronize(10)
        assert sim.calls(b"cuInit") == 1
        assert dlferry.show_config()["driver"] == "12.4"
        assert dlferry.show_config()["driver_reason"] is None
        print("end")
        """,
        sim_driver,
        DLFERRY_SIM="version=12.4",
    )


def test_the_staging_memory_is_as_large_as_asked_for(sim_driver: SimDriver) -> None:
    run(
        """
        assert send(LARGE).synchronize(10)
        assert dlferry.memory_stats()["allocated_bytes.current"] == 32 << 20
        print("end")
        """,
        sim_driver,
        DLFERRY_STAGING_MB="64",
    )


def test_without_page_locked_memory_transfers_go_on(sim_driver: SimDriver) -> None:
    run(
        """
        import logging
        from dlferry import _torch_cuda

        def refuse(*wanted):
            raise RuntimeError("CUDA error: out of memory")

        class Kept(logging.Handler):
            said = []
            def emit(self, record):
                self.said.append(record.getMessage())

        _torch_cuda.empty_pinned = refuse
        logging.getLogger("dlferry").addHandler(Kept())
        stream = door.current_stream(0)
        gate = sim.gate(stream)
        assert dlferry.show_config()["staging_reason"] is None
        for count in (3, 100, 3_000_000):
            source = {"a": np.arange(count), "b": torch.full((count,), 7, dtype=torch.uint8)}
            there = dlferry.to_device(source, "cuda")
            source["a"][:] = 0  # it has been read
            handle = dlferry.transfer(there, "cpu")
            assert not handle.done()  # it comes after what is queued
            sim.open(gate)
            back = handle.result(20)
            assert torch.equal(back["a"], torch.arange(count))
            assert torch.equal(back["b"], source["b"])
            dlferry.copyto(there["a"], np.ones(count, np.int64)).synchronize()
            assert dlferry.to_host(there["a"]).tolist() == [1] * count
            gate = sim.gate(stream)
        sim.open(gate)
        assert "cuMemHostAlloc failed" in dlferry.show_config()["staging_reason"]
        [said] = Kept.said
        assert "ordinary memory" in said and "CUDA_ERROR_OUT_OF_MEMORY" in said
        assert set(dlferry.memory_stats().values()) == {0}
        print("end")
        """,
        sim_driver,
        DLFERRY_SIM="register_result=801,host_limit=0",
    )


FORKS = {
    "everything says so": """
        with pytest.raises(dlferry.DriverUnavailable, match="fork"):
            send(1)
        with pytest.raises(dlferry.DriverUnavailable, match="fork"):
            send(LARGE)
        with pytest.raises(dlferry.DriverUnavailable, match="fork"):
            dlferry.pin(torch.ones(9))
        assert "fork" in dlferry.show_config()["driver_reason"]
        assert dlferry.memory_stats()["allocated_bytes.current"] == 0
        """,
    "inherited handles say so": """
        for handle in (running, finished):
            with pytest.raises(dlferry.DriverUnavailable, match="fork"):
                handle.synchronize(10)
            with pytest.raises(dlferry.DriverUnavailable, match="fork"):
                handle.wait()
            with pytest.raises(dlferry.DriverUnavailable, match="fork"):
                running.done()
            assert not handle.cancel()
        """,
    "inherited owners are let go without a call": """
        del running, finished, dropped
        assert core.close_transfers(10.0, False)
        """,
}


@pytest.mark.parametrize("case", FORKS)
def test_a_forked_child_has_no_cuda(sim_driver: SimDriver, case: str) -> None:
    child = textwrap.indent(textwrap.dedent(FORKS[case]), " " * 16)
    run(
        f"""
        finished = send(1000)
        dropped = dlferry.pin(torch.ones(9))
        assert finished.synchronize(10)
        gate = sim.gate(core.copy_stream(0, "h2d"))
        running = send(LARGE)
        send(LARGE)  # and nobody holds this one
        if os.fork() == 0:
            signal.alarm(30)
            try:
{child}
            except BaseException:
                sys.excepthook(*sys.exc_info())
                sys.stderr.flush()
                os._exit(1)
            sys.exit(0)  # with all that runs at exit
        assert os.waitstatus_to_exitcode(os.wait()[1]) == 0
        assert sim.count("calls_in_child") == 0
        sim.open(gate)
        assert running.synchronize(10)
        print("end")
        """,
        sim_driver,
    )


EXITS = {
    "copies on the link": """
        sim.set(h2d_rate=200_000_000)
        kept = send(LARGE)
        send(LARGE)
        """,
    "copies that do not end": """
        import dlferry._driver as driver
        atexit.unregister(core.close_transfers)
        driver.EXIT_SECONDS = 0.2
        sim.gate(core.copy_stream(0, "h2d"))
        sim.gate(door.current_stream(0))
        kept = send(LARGE), send(10)
        send(LARGE), send(10)
        """,
    "threads that wait": """
        # What they hold stays, since torch itself does not survive to lose a thread in a call.
        def work(transfer):
            try:
                transfer.synchronize()
            except BaseException as error:
                seen.append(error)
        seen = []
        sim.set(h2d_rate=200_000_000)
        kept = [send(LARGE) for _ in range(8)]
        for transfer in kept:
            threading.Thread(target=work, args=(transfer,), daemon=True).start()
        """,
    "threads that transfer": """
        # They end by themselves, and are waited for: torch does not survive to lose one in a call.
        def work():
            first = True
            try:
                while True:
                    dlferry.asarray(np.ones(300_000), device="cuda")
                    if first:
                        started.wait(30)
                    first = False
            except dlferry.DriverUnavailable as error:
                assert "shutting down" in str(error)
        def join():
            for thread in threads:
                thread.join()
        started = threading.Barrier(4)
        atexit.unregister(core.close_transfers)
        atexit.register(join)
        import dlferry._driver as driver
        atexit.register(core.close_transfers, driver.EXIT_SECONDS, True)  # before that
        threads = [threading.Thread(target=work, daemon=True) for _ in range(3)]
        for thread in threads:
            thread.start()
        started.wait(30)
        """,
    "transfers of functions that run at exit": """
        def last():
            assert kept.done()
            with pytest.raises(dlferry.DriverUnavailable, match="shutting down"):
                send(LARGE)
            with pytest.raises(dlferry.DriverUnavailable, match="shutting down"):
                send(1)
        kept = None
        atexit.register(last)
        kept = send(LARGE)
        """,
    "page-locked memory": """
        table = np.ones(100_000)
        kept = dlferry.pin(table), dlferry.empty_pinned(100)
        cycle = [dlferry.pin(torch.ones(9))]
        cycle.append(cycle)
        """,
}


@pytest.mark.parametrize("case", EXITS)
def test_the_end_of_the_process_is_clean(sim_driver: SimDriver, case: str) -> None:
    run(EXITS[case] + '\n        print("end")\n', sim_driver)
