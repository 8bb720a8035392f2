"""Programs of their own: imports, forks, errors that end a context, and exits."""

from __future__ import annotations

import pytest
from hardware import run

pytestmark = pytest.mark.usefixtures("device")

NO_CONTEXT = """
import ctypes
driver = ctypes.CDLL("libcuda.so.1")
def active():
    flags, on, device = ctypes.c_uint(), ctypes.c_int(), ctypes.c_int()
    assert driver.cuInit(0) == 0 and driver.cuDeviceGet(ctypes.byref(device), 0) == 0
    state = driver.cuDevicePrimaryCtxGetState
    assert state(device, ctypes.byref(flags), ctypes.byref(on)) == 0
    return on.value
"""


def test_import_makes_no_call_of_the_driver() -> None:
    run(
        "import sys, dlferry\n"
        "assert 'torch' not in sys.modules\n"
        "assert 'libcuda.so' not in open('/proc/self/maps').read()\n"
    )


def test_work_on_the_host_makes_no_context() -> None:
    run(
        NO_CONTEXT + "import dlferry, numpy as np, torch\n"
        "dlferry.asarray(np.ones(10)); dlferry.to_host([np.ones(3)]); dlferry.stack([np.ones(3)])\n"
        "list(dlferry.prefetch([np.ones(3)], 'cpu')); dlferry.collate([np.ones(3)] * 2)\n"
        "dlferry.show_config(); dlferry.memory_stats()\n"
        "assert not torch.cuda.is_initialized() and not active()\n"
        "dlferry.asarray(np.ones(10), device='cuda:0'); assert active()\n"
    )


@pytest.mark.parametrize(
    "first",
    [
        "int(dlferry.asarray(np.arange(9), device=D)[-1]) == 8",
        "int(dlferry.asarray(np.arange(3_000_000), device=D)[-1]) == 2_999_999",
        "int(dlferry.to_device({'x': np.arange(9)}, D)['x'][-1]) == 8",
        "int(next(iter(dlferry.prefetch([np.arange(9)], D)))[-1]) == 8",
        "dlferry.empty_pinned(3).is_pinned()",
        "dlferry.pin(np.zeros(100_000)).is_pinned()",
    ],
    ids=["small", "large", "tree", "prefetch", "empty_pinned", "pin"],
)
def test_the_first_use_may_be_of_any_kind(first: str) -> None:
    run(f"import dlferry, numpy as np\nD = 'cuda:0'  # which does not wake torch\nassert {first}\n")


def test_a_forked_child_has_no_cuda() -> None:
    run(
        "import dlferry, numpy as np, os, torch\n"
        "there = dlferry.asarray(np.arange(10), device='cuda')\n"
        "handle = dlferry.transfer(np.ones(3_000_000), 'cuda')\n"
        "def attempts():\n"
        "    yield lambda: dlferry.asarray(np.ones(10), device='cuda')\n"
        "    yield lambda: dlferry.asarray(np.ones(10), device='cuda:0')\n"
        "    yield lambda: dlferry.asarray([1, 2], device='cuda')\n"
        "    yield lambda: dlferry.stack([np.ones(10)], device='cuda')\n"
        "    yield lambda: dlferry.to_device([np.ones(10)], 'cuda')\n"
        "    yield lambda: dlferry.prefetch([np.ones(10)], 'cuda')\n"
        "    yield lambda: dlferry.to_numpy(there)\n"
        "    yield lambda: dlferry.to_host([there])\n"
        "    yield lambda: handle.synchronize()\n"
        "def child():\n"
        "    for attempt in attempts():\n"
        "        try:\n"
        "            attempt()\n"
        "        except dlferry.DriverUnavailable as error:\n"
        "            assert 'fork' in str(error), error\n"
        "        else:\n"
        "            raise AssertionError('no error')\n"
        "    assert dlferry.asarray(np.arange(3)).tolist() == [0, 1, 2]\n"
        "    assert dlferry.empty_pinned(3).fill_(2).tolist() == [2, 2, 2]\n"
        "    assert dlferry.collate([np.ones(3)] * 2).shape == (2, 3)\n"
        "pid = os.fork()\n"
        "if pid == 0:\n"
        "    code = 1\n"
        "    try:\n"
        "        child()\n"
        "        code = 7\n"
        "    finally:\n"
        "        os._exit(code)\n"
        "assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 7\n"
        "assert float(handle.result().sum()) == 3_000_000\n"
        "assert dlferry.to_numpy(there).tolist() == list(range(10))\n"
    )


def test_after_an_error_on_another_stream() -> None:
    # An assertion on the device ends the context; only a process of its own survives that. What
    # dlferry has made is gone by then: torch ends the process when it cannot free such memory.
    printed = run(
        "import dlferry, numpy as np, torch\n"
        "small, large = np.ones(10, np.float32), np.ones(3_000_000, np.float32)\n"
        "for source in (small, large):\n"
        "    dlferry.to_numpy(dlferry.asarray(source, device='cuda'))\n"
        "there, index = torch.ones(10, device='cuda'), torch.tensor([99], device='cuda')\n"
        "torch.cuda.synchronize()\n"
        "with torch.cuda.stream(torch.cuda.Stream()):\n"
        "    there[index]\n"
        "try:\n"
        "    torch.cuda.synchronize()\n"
        "except RuntimeError:\n"
        "    pass\n"
        "else:\n"
        "    raise SystemExit('the device did not mind')\n"
        "for attempt in (\n"
        "    lambda: dlferry.asarray(small, device='cuda'),\n"
        "    lambda: dlferry.asarray(large, device='cuda'),\n"
        "    lambda: dlferry.stack([large, large], device='cuda'),\n"
        "    lambda: dlferry.to_device({'x': small, 'y': large}, 'cuda'),\n"
        "    lambda: dlferry.copyto(there, small).synchronize(),\n"
        "    lambda: dlferry.to_numpy(there),\n"
        "    lambda: dlferry.to_host([there]),\n"
        "    lambda: next(iter(dlferry.prefetch([large], 'cuda'))),\n"
        "):\n"
        "    try:\n"
        "        attempt()\n"
        "    except dlferry.CudaError as error:\n"
        "        assert error.code > 0 and error.call.startswith('cu'), error\n"
        "        assert str(error.code) in str(error) and error.call in str(error), error\n"
        "    else:\n"
        "        raise SystemExit('no error')\n"
        "assert dlferry.asarray(small).sum() == 10\n"
        "print('all refused')\n"
    )
    assert printed == "all refused\n"


@pytest.mark.parametrize(
    "work",
    [
        "kept = [dlferry.transfer(np.ones(20_000_000), 'cuda') for _ in range(4)]",
        "for _ in range(4): dlferry.transfer(np.ones(20_000_000), 'cuda')",
        "t = torch.ones(20_000_000, device='cuda'); kept = [dlferry.transfer(t, 'cpu')] * 3",
        (
            "t = torch.ones(20_000_000, device='cuda'); torch.cuda._sleep(10**9)\n"
            "for _ in range(3): dlferry.copyto(np.ones(20_000_000, np.float32), t)"
        ),
        "it = iter(dlferry.prefetch((np.ones(5_000_000) for _ in range(100)), 'cuda')); next(it)",
        "kept = dlferry.pin(np.ones(5_000_000)); there = dlferry.transfer(kept, 'cuda')",
        "kept = [dlferry.asarray(np.ones(n), device='cuda') for n in (10, 3_000_000)]",
    ],
    ids=[
        "kept",
        "dropped",
        "to the host",
        "on a busy stream",
        "prefetch",
        "page-locked",
        "results",
    ],
)
def test_exit_with_copies_in_flight(work: str) -> None:
    run(f"import dlferry, numpy as np, torch\n{work}\n")


def test_threads_that_transfer_when_the_process_ends() -> None:
    # They end by themselves, and are waited for: torch does not survive to lose one in a call.
    run(
        "import atexit, threading\n"
        "threads = []\n"
        "atexit.register(lambda: [thread.join() for thread in threads])  # the last to run\n"
        "import dlferry, numpy as np\n"
        "started = threading.Event()\n"
        "def work():\n"
        "    try:\n"
        "        while True:\n"
        "            dlferry.asarray(np.ones(300_000), device='cuda')\n"
        "            started.set()\n"
        "    except dlferry.DriverUnavailable:\n"
        "        pass\n"
        "for _ in range(3):\n"
        "    threads.append(threading.Thread(target=work, daemon=True))\n"
        "    threads[-1].start()\n"
        "assert started.wait(60)\n"
    )
