"""Tracers and transforms of torch's, which see its operations and shared memory, but no writes."""

from __future__ import annotations

import signal
from typing import Any

import numpy as np
import pytest
import torch
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.fx.experimental.proxy_tensor import make_fx
from torch.utils._python_dispatch import TorchDispatchMode

import dlferry

CONSTANTS: dict[str, Any] = {
    "floats": lambda: dlferry.asarray([0.5, 0.25, 2.0]),
    "ints": lambda: dlferry.asarray([1, 2, 3]),
    "bools": lambda: dlferry.asarray([True, False, True]),
    "a scalar": lambda: dlferry.asarray(2.5),
    "ints, cast": lambda: dlferry.asarray([1, 2, 3], dtype=torch.float32),
    "nested": lambda: dlferry.asarray([[1.0, 2.0, 3.0], [4.0, 5.0, 6.0]]),
    "arrays": lambda: dlferry.asarray([np.arange(3.0), np.ones(3)]),
    "an array": lambda: dlferry.asarray(np.arange(3.0)),
    "an array, copied": lambda: dlferry.asarray(np.arange(3.0), copy=True),
    "an array, cast": lambda: dlferry.asarray(np.arange(3), dtype=torch.float64),
    "reversed": lambda: dlferry.asarray(np.arange(3.0)[::-1]),
    "bytes": lambda: dlferry.asarray(b"abc"),
    "from_dlpack": lambda: dlferry.from_dlpack(np.arange(3.0), copy=True),
    "stack": lambda: dlferry.stack([np.arange(3.0), np.ones(3)]),
    "stack, out": lambda: dlferry.stack(
        [np.arange(3.0), np.ones(3)], out=torch.zeros(2, 3, dtype=torch.float64)
    ),
    "tensors": lambda: dlferry.asarray([torch.ones(3), torch.full((3,), 2.0)]),
    "collate": lambda: dlferry.collate([np.arange(3.0), np.ones(3)]),
    "to_device": lambda: dlferry.to_device(np.arange(3.0)[::-1], "cpu"),
}


def by_jit(function: Any) -> Any:
    return torch.jit.trace(function, (torch.ones(3),), check_trace=False)


def by_fx(function: Any) -> Any:
    return make_fx(function, tracing_mode="real")(torch.ones(3))


# torch.jit cannot trace copies into slices of new memory, which the fallback makes.
@pytest.mark.native
@pytest.mark.filterwarnings("ignore::torch.jit.TracerWarning", "ignore::DeprecationWarning")
@pytest.mark.parametrize("trace", [by_jit, by_fx])
@pytest.mark.parametrize("name", CONSTANTS)
def test_what_is_converted_in_a_trace_has_its_elements(name: str, trace: Any) -> None:
    def function(x: torch.Tensor) -> torch.Tensor:
        return x * CONSTANTS[name]()

    traced = trace(function)
    junk = [torch.full((3,), 7.0) for _ in range(10)]  # where memory of the trace may have been
    x = torch.tensor([2.0, 3.0, 4.0])
    assert torch.equal(traced(x), function(x))
    assert torch.equal(traced(x), function(x))
    del junk


@pytest.mark.native
@pytest.mark.filterwarnings("ignore::torch.jit.TracerWarning", "ignore::DeprecationWarning")
@pytest.mark.parametrize("trace", [by_jit, by_fx])
def test_constants_of_a_trace_stay_what_they_are(trace: Any) -> None:
    traced = trace(lambda x: dlferry.asarray([1.0, 2.0, 3.0]).add_(x))
    for _ in range(2):
        assert traced(torch.ones(3)).tolist() == [2.0, 3.0, 4.0]


def test_tensors_in_a_list_stay_part_of_the_trace() -> None:
    traced = by_fx(lambda x: dlferry.stack([x, x + 1]))
    assert traced(torch.zeros(3)).tolist() == [[0.0] * 3, [1.0] * 3]


@pytest.mark.filterwarnings("ignore:`torch.jit.script`:DeprecationWarning")  # of torch's own
@pytest.mark.parametrize("name", CONSTANTS)
@pytest.mark.parametrize(
    "transform",
    [
        lambda function: torch.func.grad(lambda x: function(x).sum())(torch.ones(3)),
        lambda function: torch.vmap(function)(torch.ones(2, 3)),
        lambda function: torch.func.functionalize(function)(torch.ones(3)),
        lambda function: torch.func.jvp(function, (torch.ones(3),), (torch.ones(3),))[0],
    ],
    ids=["grad", "vmap", "functionalize", "jvp"],
)
def test_what_is_converted_in_a_transform_has_its_elements(name: str, transform: Any) -> None:
    want = CONSTANTS[name]()
    try:
        made = transform(lambda x: x * CONSTANTS[name]())
    except BufferError:
        return
    expected = transform(lambda x: x * want)
    assert torch.equal(made, expected)


class Late(TorchDispatchMode):
    """Takes its time over whatever makes a tensor, so that a signal arrives within."""

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        signal.raise_signal(signal.SIGUSR1)
        return func(*args, **(kwargs or {}))


@pytest.mark.parametrize(
    "convert",
    [
        lambda: dlferry.asarray([1, 2, 3]),
        lambda: dlferry.asarray([1.5, 2.5]),
        lambda: dlferry.asarray([np.ones(3), np.ones(3)]),
        lambda: dlferry.asarray(np.ones(3), copy=True),
        lambda: dlferry.stack([np.ones(3), np.ones(3)]),
    ],
)
def test_an_interrupt_is_not_lost(convert: Any) -> None:
    def interrupt(*_: object) -> None:
        raise KeyboardInterrupt

    before = signal.signal(signal.SIGUSR1, interrupt)
    try:
        with Late(), pytest.raises(KeyboardInterrupt):
            convert()
    finally:
        signal.signal(signal.SIGUSR1, before)
    convert()


def test_elements_that_a_mode_hides_are_not_taken_for_copied() -> None:
    real = torch.arange(4.0)
    array = np.full(4, 9.0)
    with FakeTensorMode(allow_non_fake_inputs=True):
        with pytest.raises(dlferry.UnsupportedInput):
            dlferry.to_numpy(real)
        with pytest.raises((dlferry.UnsupportedInput, BufferError)):
            dlferry.to_numpy(real, out=array)
        with pytest.raises((dlferry.UnsupportedInput, BufferError)):
            dlferry.copyto(array, real)
    assert array.tolist() == [9.0] * 4
    assert dlferry.to_numpy(real, out=array).tolist() == [0.0, 1.0, 2.0, 3.0]


def test_a_tensor_of_zeros_without_memory() -> None:
    zeros = torch._efficientzerotensor((2, 3))
    assert dlferry.to_numpy(zeros).tolist() == np.zeros((2, 3)).tolist()
    assert dlferry.to_numpy(zeros, copy=True).tolist() == np.zeros((2, 3)).tolist()
    with pytest.raises(dlferry.UnsupportedInput, match="no memory to share"):
        dlferry.to_numpy(zeros, copy=False)
    assert dlferry.stack([zeros, zeros]).tolist() == np.zeros((2, 2, 3)).tolist()
