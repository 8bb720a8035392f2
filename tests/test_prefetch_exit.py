"""prefetch: the end of the process in the middle of an iteration, and forks."""

from __future__ import annotations

import subprocess
import sys
import textwrap

import pytest

LIMIT = 60.0  # seconds after which something hangs

HEAD = """
    import os, signal, sys, threading, numpy as np, torch, dlferry
    from dlferry import _producer
    never = threading.Event()
    def endless():
        while True: yield {"x": np.zeros(10)}
    def stuck():
        yield {"x": np.zeros(10)}
        never.wait()
    """

SCRIPTS: dict[str, str] = {
    "in the middle": """
        running = iter(dlferry.prefetch(endless(), "cpu"))
        next(running)
        """,
    "inside the loop": """
        for item in dlferry.prefetch(endless(), "cpu"):
            print("end", flush=True)
            sys.exit(0)
        """,
    "a source that never returns": """
        _producer.CLOSE_SECONDS = 0.1
        running = iter(dlferry.prefetch(stuck(), "cpu"))
        next(running)
        """,
    "a DataLoader with workers": """
        data = [{"x": np.zeros(3)}] * 100
        loader = torch.utils.data.DataLoader(
            data, batch_size=2, num_workers=1, multiprocessing_context="fork",
            persistent_workers=True, collate_fn=dlferry.collate)
        running = iter(dlferry.prefetch(loader, "cpu"))
        next(running)
        """,
    "a thread that goes on after the main one": """
        main = threading.main_thread()
        def consume():
            running = iter(dlferry.prefetch(endless(), "cpu"))
            next(running)
            main.join()
            for _ in range(100): next(running)
        threading.Thread(target=consume).start()
        """,
    "a fork": """
        running = iter(dlferry.prefetch(endless(), "cpu"))
        next(running)
        child = os.fork()
        if child == 0:
            signal.alarm(30)  # a child that hangs does not stay behind
            try:
                next(running)
            except RuntimeError as error:
                assert "parent" in str(error)
                del running
                assert len(list(dlferry.prefetch(range(3), "cpu"))) == 3
                os._exit(0)
            os._exit(1)
        assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
        next(running)
        """,
}


@pytest.mark.parametrize("case", SCRIPTS)
def test_the_process_ends_quietly(case: str) -> None:
    source = textwrap.dedent(HEAD) + textwrap.dedent(SCRIPTS[case])
    if case != "inside the loop":
        source += "\nprint('end', flush=True)\n"
    silent = ["-W", "error", "-W", "ignore:.*multi-threaded.*:DeprecationWarning"]
    done = subprocess.run(
        [sys.executable, "-X", "faulthandler", *silent, "-c", source],
        capture_output=True,
        text=True,
        timeout=LIMIT,
        check=False,
    )
    assert (done.returncode, done.stdout.split(), done.stderr) == (0, ["end"], "")
