"""What a transfer on its way keeps to: order, lifetimes, cancellation, timeouts and errors."""

from __future__ import annotations

import concurrent.futures
import pickle
import signal
import threading
import time
import weakref
from collections.abc import Iterator
from contextlib import contextmanager

import pytest
import torch
from sim_torch import SimDoor, block_of, read, write

import dlferry
from dlferry import _link, _page_locked
from dlferry._native import core

pytestmark = pytest.mark.native

SMALL, LARGE = 1000, 40_000_000
"""Numbers of float32 elements: for the current stream itself, and more than is staged at once."""


@contextmanager
def closed_gate(gpu: SimDoor, stream: int) -> Iterator[None]:
    """Work queued on a stream from now on does not begin before the end of the block."""
    gate = gpu.sim.gate(stream)
    try:
        yield
    finally:
        gpu.sim.open(gate)


def to_device(host: torch.Tensor) -> _link.Crossing:
    return _link.to_device([host], [host.dtype], 0)


def pinned(count: int) -> torch.Tensor:
    return _page_locked.results.empty((count,), torch.float32).copy_(torch.arange(count))


def on_device(gpu: SimDoor, values: torch.Tensor) -> torch.Tensor:
    tensor = gpu.empty(values.shape, values.dtype, 0, gpu.current_stream(0))
    write(tensor, values)
    return tensor


# --- order ---


def test_a_large_transfer_does_not_wait_for_the_current_stream(gpu: SimDoor) -> None:
    host = torch.arange(1_000_000.0)
    with closed_gate(gpu, gpu.current_stream(0)):
        crossing = to_device(host)
        assert crossing.synchronize(10)
        [tensor] = crossing.tensors()
        assert torch.equal(read(tensor), host)


def test_a_small_transfer_takes_its_turn_in_the_current_stream(gpu: SimDoor) -> None:
    host = torch.arange(SMALL)
    with closed_gate(gpu, gpu.current_stream(0)):
        crossing = to_device(host)
        crossing.wait_until_read()  # it was, or this would not return
        kept = host.clone()
        host.zero_()
        assert not crossing.done()
    assert crossing.synchronize(10) and crossing.done()
    [tensor] = crossing.tensors()
    assert torch.equal(read(tensor), kept)


def test_small_transfers_go_on_when_all_slots_wait_for_the_current_stream(gpu: SimDoor) -> None:
    hosts = [torch.full((SMALL,), float(i)) for i in range(100)]
    with closed_gate(gpu, gpu.current_stream(0)):
        crossings = [to_device(host) for host in hosts]
        assert crossings[-1].synchronize(10)
        assert not crossings[0].done()
    for crossing, host in zip(crossings, hosts, strict=True):
        assert crossing.synchronize(10)
        assert torch.equal(read(crossing.tensors()[0]), host)


def test_what_comes_from_the_device_waits_for_what_makes_it(gpu: SimDoor) -> None:
    for count in (SMALL, 3_000_000):
        device = on_device(gpu, torch.zeros(count))
        stream = gpu.current_stream(0)
        with closed_gate(gpu, stream):
            gpu.sim.fill(stream, device.data_ptr(), 0x3F, device.nbytes)
            results = [
                _link.to_host([device], [torch.float32]),
                _link.to_host([device], [torch.float32], pinned=False),
            ]
            assert not any(crossing.done() for crossing in results)
        for crossing in results:
            [host] = crossing.tensors()
            assert bool((host.view(torch.uint8) == 0x3F).all())


def test_a_consumer_waits_on_its_stream_and_keeps_the_memory(gpu: SimDoor) -> None:
    host, consumer = pinned(1_000_000), gpu.new_stream()
    used = on_device(gpu, torch.zeros(1_000_000))
    copying = core.copy_stream(0, "h2d")
    with closed_gate(gpu, copying):
        crossing = to_device(host)
        crossing.wait(consumer)
        [tensor] = crossing._landed
        gpu.sim.copy(consumer, used.data_ptr(), tensor.data_ptr(), tensor.nbytes)
        assert not gpu.sim.stream_is_idle(consumer)
        assert block_of(tensor).stream == copying
        assert block_of(tensor).recorded == {consumer}
    gpu.sim.stream_wait(consumer)
    assert torch.equal(read(used), host)


def test_ordinary_memory_has_been_written_when_a_stream_is_made_to_wait(gpu: SimDoor) -> None:
    for count in (SMALL, LARGE):
        device, host = on_device(gpu, torch.ones(count)), torch.zeros(count)
        _link.into_host([host], [device]).wait()
        assert bool((host == 1).all())


# --- lifetimes ---


@pytest.mark.parametrize("direction", ["h2d", "d2h"])
def test_a_dropped_transfer_keeps_both_sides_until_it_is_done(gpu: SimDoor, direction: str) -> None:
    host = pinned(LARGE // 10)
    device = on_device(gpu, torch.zeros(LARGE // 10))
    block = block_of(device)
    gone: list[str] = []
    references = [
        weakref.ref(host.untyped_storage(), lambda _: gone.append("host")),
        weakref.ref(device.untyped_storage(), lambda _: gone.append("device")),
    ]
    with closed_gate(gpu, core.copy_stream(0, "h2d" if direction == "h2d" else "d2h")):
        if direction == "h2d":
            crossing = _link.into_device([device], [host])
        else:
            crossing = _link.into_host([host], [device])
        host.data = torch.zeros(1)  # takes the memory from the tensor, and not from the copy
        del crossing, host, device
        to_device(torch.zeros(1)).synchronize()  # looks after what was dropped
        assert gone == [] and core.unfinished_count() == 1
        assert gpu.sim.count("freed_in_use") == 0
    assert core.close_transfers(10.0, False)
    assert sorted(gone) == ["device", "host"] and core.unfinished_count() == 0
    assert gpu.sim.device_free(block.address) != 0  # it is gone
    del references


def test_a_source_is_let_go_as_soon_as_it_has_been_read(gpu: SimDoor) -> None:
    host = torch.ones(SMALL)
    gone: list[object] = []
    reference = weakref.ref(host.untyped_storage(), gone.append)
    with closed_gate(gpu, gpu.current_stream(0)):
        crossing = to_device(host)
        crossing.wait_until_read()
        del host
        assert gone == [reference] and not crossing.done()
    assert crossing.synchronize(10)


def test_what_was_dropped_is_swept_by_later_calls(gpu: SimDoor) -> None:
    for _ in range(100):
        to_device(torch.ones(SMALL))
    # A lane may learn late that its copies have ended, whatever the stream already knows.
    deadline = time.monotonic() + 30
    while core.unfinished_count() and time.monotonic() < deadline:
        to_device(torch.ones(1)).synchronize()
    assert core.unfinished_count() == 0


# --- waiting ---


def test_a_timeout_leaves_the_transfer_as_it_is(gpu: SimDoor) -> None:
    for host, stream in (
        (torch.ones(SMALL), gpu.current_stream(0)),
        (torch.ones(LARGE), core.copy_stream(0, "h2d")),
    ):
        with closed_gate(gpu, stream):
            crossing = to_device(host)
            assert not crossing.synchronize(0)
            assert not crossing.synchronize(0.01)
            assert not crossing.synchronize(-1)
        assert crossing.synchronize(1e300)
        assert torch.equal(read(crossing.tensors()[0]), host)


def test_other_threads_run_while_one_waits(gpu: SimDoor) -> None:
    gate = gpu.sim.gate(core.copy_stream(0, "h2d"))
    crossing = to_device(torch.ones(LARGE))
    with concurrent.futures.ThreadPoolExecutor() as pool:
        waits = [pool.submit(crossing.synchronize, 30), pool.submit(crossing.wait_until_read)]
        waits.append(pool.submit(crossing.wait))
        assert not concurrent.futures.wait(waits, 0.05).done
        gpu.sim.open(gate)  # with the GIL in a thread that waits, this line is not reached
        assert waits[0].result(30) and waits[1].result(30) is None


@contextmanager
def interrupted_when(ready: threading.Event) -> Iterator[None]:
    """Ctrl-C once the event is set."""

    def interrupt() -> None:
        assert ready.wait(30)
        signal.pthread_kill(threading.main_thread().ident or 0, signal.SIGINT)

    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    sender = threading.Thread(target=interrupt)
    sender.start()
    try:
        yield
    finally:
        sender.join()
        signal.signal(signal.SIGINT, before)


@pytest.mark.parametrize(
    ("call", "count"),
    [
        ("wait", LARGE),
        ("wait_until_read", LARGE),
        ("synchronize", LARGE),
        ("synchronize", SMALL),
        ("tensors", LARGE),
    ],
)
def test_an_interrupt_ends_a_wait_and_not_the_transfer(gpu: SimDoor, call: str, count: int) -> None:
    host, about_to_wait = torch.arange(float(count)), threading.Event()
    gate = gpu.sim.gate(gpu.current_stream(0) if count == SMALL else core.copy_stream(0, "h2d"))
    opening = threading.Timer(30, gpu.sim.open, [gate])  # so that a failure ends
    opening.start()
    crossing = to_device(host)
    with interrupted_when(about_to_wait), pytest.raises(KeyboardInterrupt):
        about_to_wait.set()
        getattr(crossing, call)()
        pytest.fail("the interrupt was lost")
    assert opening.is_alive()  # nobody had to open the gate
    opening.cancel()
    gpu.sim.open(gate)
    getattr(crossing, call)()
    assert crossing.synchronize(30)
    assert torch.equal(read(crossing.tensors()[0]), host)


def test_threads_share_the_link(gpu: SimDoor) -> None:
    gpu.sim.set(delay_us=50)
    failures = []

    def work(seed: int) -> None:
        generator = torch.Generator().manual_seed(seed)
        for size in torch.randint(1, 300_000, (12,), generator=generator).tolist():
            host = torch.rand(size, generator=generator)
            [there] = to_device(host).tensors()
            [back] = _link.to_host([there], [torch.float32]).tensors()
            if not torch.equal(back, host):
                failures.append((seed, size))

    threads = [threading.Thread(target=work, args=(seed,)) for seed in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert failures == []


# --- what goes wrong ---


def test_cancellation(gpu: SimDoor) -> None:
    with closed_gate(gpu, core.copy_stream(0, "h2d")):
        crossing, after = to_device(torch.ones(LARGE)), to_device(torch.ones(LARGE))
        assert after.cancel() and crossing.cancel()
    for cancelled in (crossing, after):
        with pytest.raises(concurrent.futures.CancelledError):
            cancelled.synchronize(10)
        assert cancelled.done()
        with pytest.raises(concurrent.futures.CancelledError):
            cancelled.tensors()
    done = to_device(torch.ones(SMALL))
    assert done.synchronize(10) and not done.cancel()


@pytest.mark.parametrize("call", ["cuMemcpyHtoDAsync", "cuEventRecord"])
@pytest.mark.parametrize("count", [SMALL, LARGE])
def test_an_error_reaches_the_caller_of_its_transfer(gpu: SimDoor, call: str, count: int) -> None:
    before = to_device(torch.ones(LARGE))
    assert before.synchronize(10)
    gpu.sim.fail_call(call, 1, 2)
    with pytest.raises(dlferry.CudaError, match=f"{call}.*CUDA_ERROR_OUT_OF_MEMORY") as caught:
        to_device(torch.ones(count)).synchronize(10)
    assert (caught.value.call, caught.value.code) == (call, 2)
    copy = pickle.loads(pickle.dumps(caught.value))
    assert (str(copy), copy.call, copy.code) == (str(caught.value), call, 2)
    after = to_device(torch.ones(count))
    assert after.synchronize(10)
    assert bool((read(after.tensors()[0]) == 1).all())


def test_after_the_context_is_lost_everything_fails_and_nothing_hangs(gpu: SimDoor) -> None:
    with closed_gate(gpu, core.copy_stream(0, "h2d")):
        crossings = [to_device(torch.ones(LARGE)), to_device(torch.ones(SMALL))]
        gpu.sim.poison(0, 700)
    for crossing in crossings:
        with pytest.raises(dlferry.CudaError) as caught:
            crossing.synchronize(10)
        assert caught.value.code == 700
    for count in (SMALL, LARGE):
        with pytest.raises(dlferry.CudaError, match="700"):
            to_device(torch.ones(count)).synchronize(10)
    del crossings, crossing, caught
    gpu.sim.reset()
    assert core.close_transfers(10.0, False)


def test_what_is_captured_into_a_graph_is_refused(gpu: SimDoor) -> None:
    stream = gpu.current_stream(0)
    device = on_device(gpu, torch.ones(SMALL))
    assert gpu.sim.capture_begin(stream, 0) == 0
    for start in (
        lambda: to_device(torch.ones(SMALL)),
        lambda: to_device(torch.ones(LARGE)),
        lambda: _link.to_host([device], [torch.float32]),
    ):
        with pytest.raises(dlferry.CudaError, match="CAPTURE_UNSUPPORTED"):
            start()
    assert gpu.sim.capture_end(stream, None) == 0  # and the capture itself is as it was


def test_a_graph_does_not_capture_the_cast_of_a_result(gpu: SimDoor) -> None:
    crossing = _link.to_device([torch.ones(SMALL, dtype=torch.uint8)], [torch.float32], 0)
    crossing.synchronize()
    stream = gpu.current_stream(0)
    assert gpu.sim.capture_begin(stream, 0) == 0
    with pytest.raises(dlferry.CudaError, match="CAPTURE_UNSUPPORTED"):
        crossing.tensors()
    assert gpu.sim.capture_end(stream, None) == 0
    [tensor] = crossing.tensors()
    assert gpu.sim.stream_wait(stream) == 0
    assert bool((read(tensor) == 1).all())


def test_a_device_that_does_not_exist(gpu: SimDoor) -> None:
    gpu.current[9] = gpu.current[0]
    with pytest.raises(dlferry.CudaError, match="INVALID_DEVICE") as caught:
        _link.to_device([torch.ones(LARGE)], [torch.float32], 9)
    assert caught.value.code == 101


# --- arguments of the core's own ---


def test_the_core_takes_host_memory_and_known_dtypes_only(gpu: SimDoor) -> None:
    def start(leaf: object, direction: str = "h2d") -> None:
        core.start_transfer(  # type: ignore[call-overload]
            direction, [leaf], device=0, stream=0, packed=False, ordered=False, on_stream=False,
            keep_host=None, keep_device=None,
        )  # fmt: skip

    with pytest.raises(TypeError):
        start(("host", 0, torch.float32, None))
    with pytest.raises(TypeError, match="not a dtype"):
        start((torch.ones(1), 0, "float32", None))
    with pytest.raises(ValueError, match="h2d"):
        start((torch.ones(1), 0, torch.float32, None), "sideways")
    for order in ((0,), (0, 0), (0, 2), (-1, 0), (0, 1, 2)):
        with pytest.raises(ValueError, match="each axis once"):
            start((torch.ones(2, 3), 0, torch.float32, order))
