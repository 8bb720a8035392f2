"""The end of the interpreter and of the thread that imported, and processes that fork."""

from __future__ import annotations

import subprocess
import sys
import textwrap

import pytest

HEAD = "import ctypes, os, signal, sys, threading, numpy as np, torch, dlferry\n"


def run_script(body: str, head: str = HEAD) -> subprocess.CompletedProcess[str]:
    """Runs a program in a fresh interpreter; it must say `end` and exit with 0, in silence."""
    done = subprocess.run(
        [sys.executable, "-X", "faulthandler", "-W", "error", "-c", head + textwrap.dedent(body)],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.split() == ["end"]
    assert done.stderr == ""
    return done


EXITS: dict[str, str] = {
    "results in globals": """
        a = np.arange(9.0)
        t, u, n = dlferry.asarray(a), dlferry.from_dlpack(a), dlferry.to_numpy(torch.ones(9))
        print("end")
        """,
    "results in a cycle": """
        class Node: pass
        node = Node()
        node.me, node.t = node, dlferry.asarray(np.arange(9.0))
        node.n = dlferry.to_numpy(torch.ones(9))
        print("end")
        """,
    "results in torch's own keeping": """
        module = torch.nn.Linear(3, 3)
        module.register_buffer("b", dlferry.asarray(np.arange(9.0)))
        torch._keep = module, dlferry.to_numpy(module.weight)
        print("end")
        """,
    "results dropped by atexit": """
        import atexit
        kept = [dlferry.asarray(np.arange(9.0)), dlferry.to_numpy(torch.ones(9))]
        atexit.register(kept.clear)
        atexit.register(lambda: dlferry.asarray([1.0]))
        print("end")
        """,
    "deleters after the interpreter": """
        # The C library calls the deleters at exit, when there is no interpreter any more.
        libc = ctypes.CDLL(None)
        register = getattr(libc, "__cxa_atexit")
        register.argtypes = [ctypes.c_void_p] * 3
        get = ctypes.pythonapi.PyCapsule_GetPointer
        get.restype, get.argtypes = ctypes.c_void_p, [ctypes.py_object, ctypes.c_char_p]
        name = ctypes.pythonapi.PyCapsule_SetName
        name.argtypes = [ctypes.py_object, ctypes.c_void_p]
        libc.strdup.restype, libc.strdup.argtypes = ctypes.c_void_p, [ctypes.c_char_p]
        used = libc.strdup(b"used_dltensor")  # outlives the capsule
        for x in (np.arange(9.0), np.arange(4)):
            capsule = dlferry.asarray(x).__dlpack__()
            pointer = get(capsule, b"dltensor")
            name(capsule, used)
            deleter = ctypes.c_void_p.from_address(pointer + 56).value
            assert register(deleter, pointer, None) == 0
        print("end", flush=True)
        """,
    "daemon threads that have worked": """
        # They must stop by themselves: torch ends the process when the interpreter takes a thread
        # away in the middle of one of its calls.
        running = [True]
        idle = threading.Semaphore(0)
        def work():
            a, t = np.arange(9.0), torch.ones(3)
            while running:
                kept = dlferry.to_numpy(dlferry.asarray(a)), dlferry.from_dlpack(t)
                dlferry.asarray([1.0, 2.0])
            idle.release()
            threading.Event().wait()
        for _ in range(3):
            threading.Thread(target=work, daemon=True).start()
        for _ in range(1000):
            dlferry.asarray(np.ones(3))
        running.clear()
        for _ in range(3):
            idle.acquire()
        print("end", flush=True)
        """,
    "a thread that still holds results": """
        gate = threading.Event()
        def work():
            kept = [dlferry.asarray(np.arange(9.0)), dlferry.to_numpy(torch.ones(9))]
            gate.set()
            threading.Event().wait()
        threading.Thread(target=work, daemon=True).start()
        gate.wait()
        print("end", flush=True)
        """,
}


@pytest.mark.parametrize("case", EXITS)
def test_the_interpreter_ends_quietly(case: str) -> None:
    run_script(EXITS[case])


# Torch's own deleters end the process here, so ours are called without it: it is kept from
# importing what it is given.
WAITING_DELETERS = """
    for klass in torch.Tensor.__mro__:
        if "__dlpack_c_exchange_api__" in vars(klass):
            del klass.__dlpack_c_exchange_api__
    get, name = ctypes.pythonapi.PyCapsule_GetPointer, ctypes.pythonapi.PyCapsule_SetName
    get.restype, get.argtypes = ctypes.c_void_p, [ctypes.py_object, ctypes.c_char_p]
    name.argtypes = [ctypes.py_object, ctypes.c_char_p]
    used = b"used_dltensor"
    taken = []
    def take(capsule, dtype):
        taken.append(get(capsule, b"dltensor"))
        name(capsule, used)
        return torch.ones(1)
    import dlferry._torch
    dlferry._torch.from_capsule = take
    for _ in range(20):
        dlferry.asarray(np.arange(9.0))
    assert len(taken) == 20
    libc = ctypes.PyDLL(None)  # which keeps the GIL
    libc.pthread_create.argtypes = [ctypes.c_void_p] * 4
    def last():
        thread = ctypes.c_ulong()
        for pointer in taken:
            deleter = ctypes.c_void_p.from_address(pointer + 56).value
            libc.pthread_create(ctypes.addressof(thread), None, deleter, pointer)
        libc.usleep(50_000)  # until they wait for the GIL: nothing shows that they do
    print("end", flush=True)
    """


@pytest.mark.native
def test_deleters_may_wait_for_the_gil_when_the_interpreter_ends() -> None:
    # Registered before all others, so called after them, with nothing between it and the end.
    run_script(WAITING_DELETERS, "import atexit; atexit.register(lambda: last())\n" + HEAD)


# The C threads have the id of the importing thread, which glibc gives again once that has ended,
# and no state: what Python had for the importer is gone, and the debug allocator has written over
# it.
IMPORTER = """
    import weakref
    def convert():
        import dlferry
        taken.extend(dlferry.from_dlpack(array).__dlpack__() for _ in range(2))
    array, taken = np.arange(9.0), []
    owner = weakref.ref(array)
    threads = len(os.listdir("/proc/self/task"))
    importer = threading.Thread(target=convert)
    importer.start()
    importer.join()
    for _ in range(100_000):
        if len(os.listdir("/proc/self/task")) <= threads:
            break  # Python joins a little before the thread has ended
        os.sched_yield()
    get, name = ctypes.pythonapi.PyCapsule_GetPointer, ctypes.pythonapi.PyCapsule_SetName
    get.restype, get.argtypes = ctypes.c_void_p, [ctypes.py_object, ctypes.c_char_p]
    name.argtypes = [ctypes.py_object, ctypes.c_char_p]
    used = b"used_dltensor"
    libc = ctypes.CDLL(None)
    libc.pthread_create.argtypes = [ctypes.c_void_p] * 4
    libc.pthread_join.argtypes = [ctypes.c_ulong, ctypes.c_void_p]
    thread = ctypes.c_ulong()
    for capsule in taken:
        pointer = get(capsule, b"dltensor")
        name(capsule, used)
        deleter = ctypes.c_void_p.from_address(pointer + 56).value
        libc.pthread_create(ctypes.addressof(thread), None, deleter, pointer)
        libc.pthread_join(thread, None)
    del array
    assert owner() is None
    import dlferry
    assert dlferry.asarray(np.arange(9.0)).sum() == 36
    print("end")
    """


@pytest.mark.native
def test_the_thread_that_imported_may_end(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PYTHONMALLOC", "debug")
    run_script(IMPORTER, "import ctypes, os, threading, numpy as np, torch\n")


FORK = """
    def convert(size):
        a = np.arange(9.0)
        assert dlferry.to_numpy(dlferry.asarray(a)).sum() == 36
        assert dlferry.from_dlpack(torch.ones(3)).sum() == 3
        assert dlferry.asarray([[1, 2], [3, 4]], dtype=torch.float32).sum() == 10
        assert dlferry.asarray(np.arange(size)[::-1])[0] == size - 1
    {before}
    child = os.fork()
    if child == 0:
        signal.alarm(30)  # a child that hangs does not stay behind
        convert({size})
        sys.stdout = None
        sys.exit(0)
    _, status = os.waitpid(child, 0)
    assert os.waitstatus_to_exitcode(status) == 0
    convert({size})
    print("end")
    """


@pytest.mark.parametrize("before", ["pass", "convert(100)"], ids=["before use", "after use"])
def test_a_forked_child_converts(before: str) -> None:
    run_script(FORK.format(before=before, size=100))


# torch's own copies hang in such a child: its OpenMP threads stayed behind in the parent.
@pytest.mark.native
@pytest.mark.parametrize("before", ["pass", "convert(1 << 20)"], ids=["before use", "after use"])
def test_a_forked_child_copies_a_large_array(before: str) -> None:
    run_script(FORK.format(before=before, size=1 << 20))
