"""Conversions in processes of their own: the collector at the worst moment, and forks."""

from __future__ import annotations

import subprocess
import sys
import textwrap

import pytest

LIMIT = 60.0  # seconds after which something hangs


# --- the collector, at the worst moment ---

COLLECT = """
    class Producer:
        def __dlpack__(self, **request): return a.__dlpack__(**request)
        def __dlpack_device__(self): return (1, 0)

    class Meanwhile:
        def __init__(self): self.me = self
        def __del__(self):
            global collected
            collected = True
            if {elsewhere}:
                thread = threading.Thread(target=convert)
                thread.start()
                thread.join()
            else:
                convert()

    def convert():
        return {expression}

    a = np.arange(8.0)
    dlferry.asarray(a)
    collected = False
    gc.disable()
    Meanwhile()
    # Small tuples come from a list of free ones, until it is used up.
    held = [(i, i + 1) for i in range(9000)] + [(i,) for i in range(9000)]
    gc.set_threshold(1, 1, 1)
    gc.enable()
    result = convert()
    gc.disable()
    assert collected and result.sum() == 28
    """


def run_script(source: str) -> None:
    """Runs a script in a new interpreter, which must end well and say nothing."""
    head = "import gc, os, signal, threading\nimport numpy as np, torch, dlferry\n"
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", head + textwrap.dedent(source)],
        capture_output=True,
        text=True,
        timeout=LIMIT,
        check=False,
    )
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


@pytest.mark.parametrize(
    "expression", ["dlferry.asarray(a, copy=True)", "dlferry.asarray(Producer())"]
)
@pytest.mark.parametrize("elsewhere", [False, True], ids=["same thread", "another thread"])
def test_a_collection_that_converts_inside_the_first_conversion(
    expression: str, elsewhere: bool
) -> None:
    run_script(COLLECT.format(expression=expression, elsewhere=elsewhere))


def test_the_first_conversions_of_all_threads_at_once() -> None:
    run_script("""
        import sys
        sys.setswitchinterval(1e-7)
        gate = threading.Barrier(8)
        results = []
        def body():
            gate.wait()
            results.append(dlferry.asarray(np.arange(300_000)[::-1], dtype=torch.float32))
            results.append(dlferry.asarray(torch.ones(3, dtype=torch.float8_e8m0fnu), copy=True))
        threads = [threading.Thread(target=body) for _ in range(8)]
        for thread in threads: thread.start()
        for thread in threads: thread.join()
        assert len(results) == 16 and all(r.dtype.is_floating_point for r in results)
        """)


# --- fork ---

FORK = """
    def convert(size):
        a = np.arange(size, dtype=np.float32).reshape(-1, 1024)
        t = dlferry.asarray(a.T[::-1], copy=True)
        assert np.array_equal(t.numpy(), a.T[::-1])
        assert np.array_equal(dlferry.asarray(a.astype(">f4")).numpy(), a)

    def child_converts():
        child = os.fork()
        if child == 0:
            signal.alarm(30)  # a child that hangs does not stay behind
            try:
                convert(1 << 21)
                again = threading.Thread(target=convert, args=(1 << 21,))
                again.start()
                again.join()
                os._exit(0)
            finally:
                os._exit(1)
        _, status = os.waitpid(child, 0)
        assert os.waitstatus_to_exitcode(status) == 0, status
    """

# torch's own threads stay behind in the parent: the fallback's child would wait for them, and
# nothing here may have torch compute.
FORKS = {
    "before the parent's threads": "child_converts(); convert(1 << 21)",
    "after the parent's threads": "convert(1 << 21); child_converts(); convert(1 << 21)",
    "twice": "convert(1 << 21); child_converts(); child_converts()",
    "while the parent's threads copy": """
        stop = threading.Event()
        def work():
            while not stop.is_set(): convert(1 << 20)
        convert(1 << 20)
        threads = [threading.Thread(target=work, daemon=True) for _ in range(3)]
        for thread in threads: thread.start()
        for _ in range(5): child_converts()
        stop.set()
        for thread in threads: thread.join()
        """,
}


@pytest.mark.native
@pytest.mark.parametrize("when", FORKS)
def test_a_forked_child_copies_in_parallel(when: str) -> None:
    body = textwrap.dedent(FORKS[when])
    run_script(textwrap.dedent(FORK) + body)


FORK_IN_FIRST_COPIES = """
    def copy():
        dlferry.asarray(a.T[::-1], copy=True)

    def parent(delay):
        # New every time, and forked while its threads copy for the first time in its life.
        for _ in range(2): threading.Thread(target=copy, daemon=True).start()
        for _ in range(delay): pass
        child = os.fork()
        if child == 0:
            signal.alarm(10)
            copy()
            os._exit(0)
        os._exit(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) & 0xFF)

    a = np.arange(1 << 19, dtype=np.float32).reshape(-1, 1024)
    dlferry.asarray(a[:1, :3], copy=True)  # torch's own first time, which no fork may interrupt
    for delay in range(0, 15000, 250):
        child = os.fork()
        if child == 0: parent(delay)
        assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0, delay
    """


@pytest.mark.native
def test_a_fork_in_the_middle_of_the_first_copies() -> None:
    run_script(FORK_IN_FIRST_COPIES)
