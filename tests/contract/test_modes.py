"""Modes of torch's under which new tensors are not what was asked for.

The core writes to memory by itself: a tensor that is too small would be written past its end.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode

import dlferry

FACTORIES = {"empty", "empty_strided", "empty_like", "new_empty", "new_empty_strided"}


def _other_dtype(made: torch.Tensor) -> torch.Tensor:
    return torch.empty_strided(made.shape, made.stride(), dtype=torch.uint8)


def _other_shape(made: torch.Tensor) -> torch.Tensor:
    return torch.empty((1,) * made.dim(), dtype=made.dtype)


def _other_strides(made: torch.Tensor) -> torch.Tensor:
    return torch.empty(made.shape[::-1], dtype=made.dtype).permute(*range(made.dim())[::-1])


def _other_number_of_axes(made: torch.Tensor) -> torch.Tensor:
    return torch.empty(made.numel() // 2, dtype=made.dtype)


CHANGES = (_other_dtype, _other_shape, _other_strides, _other_number_of_axes)


class OfFunctions(TorchFunctionMode):
    """Changes what the functions that make tensors give."""

    def __init__(self, change: Any) -> None:
        super().__init__()
        self.change = change

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        made = func(*args, **(kwargs or {}))
        return self.change(made) if func.__name__ in FACTORIES else made


class OfDispatch(TorchDispatchMode):
    """The same for all that reaches torch's dispatcher."""

    def __init__(self, change: Any) -> None:
        super().__init__()
        self.change = change

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        made = func(*args, **(kwargs or {}))
        name = func.name().removeprefix("aten::").split(".")[0]
        return self.change(made) if name in FACTORIES else made


ROWS = 64
"""Enough for a write past the end to be noticed by the allocator or a sanitizer."""


def _rows(rng: np.random.Generator) -> list[np.ndarray[Any, Any]]:
    return list(rng.random((ROWS, 32)))


CONVERSIONS: dict[str, Any] = {
    "list of arrays": lambda rows: dlferry.asarray(rows),
    "tuple of arrays, cast": lambda rows: dlferry.asarray(tuple(rows), dtype=torch.float32),
    "list of floats": lambda rows: dlferry.asarray(rows[0].tolist()),
    "nested floats": lambda rows: dlferry.asarray([row.tolist() for row in rows]),
    "list of ints": lambda rows: dlferry.asarray([int(100 * x) for x in rows[0]]),
    "list of complex numbers": lambda rows: dlferry.asarray([complex(x, 1) for x in rows[0]]),
    "array, copied": lambda rows: dlferry.asarray(np.stack(rows), copy=True),
    "array, cast": lambda rows: dlferry.asarray(np.stack(rows), dtype=torch.float32),
    "array, reversed": lambda rows: dlferry.asarray(np.stack(rows)[::-1]),
    "array, transposed": lambda rows: dlferry.asarray(np.stack(rows).T, copy=True),
    "stack": lambda rows: dlferry.stack(rows),
    "collate": lambda rows: dlferry.collate(rows),
    "to_device": lambda rows: dlferry.to_device(
        {"x": np.stack(rows).T}, "cpu", dtype=torch.float32
    )["x"],
    "empty_pinned": lambda rows: dlferry.empty_pinned((ROWS, 32), torch.float64).fill_(1),
}


@pytest.mark.parametrize("mode", [OfFunctions, OfDispatch])
@pytest.mark.parametrize("change", CHANGES)
@pytest.mark.parametrize("name", CONVERSIONS)
def test_what_torch_makes_otherwise_is_not_written_to(name: str, change: Any, mode: Any) -> None:
    rows = _rows(np.random.default_rng(7))
    convert = CONVERSIONS[name]
    want = convert(rows)
    try:
        with mode(change):
            made = convert(rows)
    except (BufferError, RuntimeError, ValueError):
        return
    # collate leaves what is refused to torch, which makes what the mode likes.
    if made.shape == want.shape and made.dtype == want.dtype:
        assert torch.equal(made, want)
    else:
        assert name == "collate"


@pytest.mark.parametrize("request_", [{"copy": True}, {"dtype": torch.float32}])
def test_the_refusal_names_the_mode(request_: dict[str, Any]) -> None:
    array = np.random.default_rng(8).random((3, 4))
    with (
        OfFunctions(_other_dtype),
        pytest.raises(BufferError, match="mode is active.*leave the mode"),
    ):
        dlferry.asarray(array, **request_)
    assert torch.equal(dlferry.asarray(array, copy=True), torch.from_numpy(array))


class OfNumpy(TorchFunctionMode):
    """Gives something of its own in place of an array on a tensor."""

    def __init__(self, given: object) -> None:
        super().__init__()
        self.given = given

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        return self.given if func is torch.Tensor.numpy else func(*args, **(kwargs or {}))


@pytest.mark.parametrize("given", [None, [1.0], "text", np.float32(3)])
def test_what_is_no_array_is_not_handed_out(given: object) -> None:
    with OfNumpy(given), pytest.raises(BufferError, match="leave the mode"):
        dlferry.to_numpy(torch.arange(3.0))


def test_an_array_of_somebody_elses_keeps_its_memory() -> None:
    owner = np.arange(1000.0)
    given = owner[1:]
    tensor = torch.zeros(999, dtype=torch.float64)
    with OfNumpy(given), pytest.raises(BufferError, match="leave the mode"):
        dlferry.to_numpy(tensor)
    assert given.base is owner
    assert np.array_equal(dlferry.to_numpy(tensor), np.zeros(999))


class OfDetach(TorchDispatchMode):
    """Gives another tensor in place of an alias, as `Tensor.numpy` makes one."""

    def __init__(self, given: torch.Tensor) -> None:
        super().__init__()
        self.given = given

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        made = func(*args, **(kwargs or {}))
        return self.given if func is torch.ops.aten.detach.default else made


def test_an_array_on_what_a_mode_gives_owns_its_memory() -> None:
    given, tensor = torch.arange(999.0), torch.zeros(999)
    with OfDetach(given):
        try:
            made = dlferry.to_numpy(tensor)
        except BufferError:
            return
    assert made.tolist() in (tensor.tolist(), given.tolist())
    want = made.copy()
    del given, tensor
    junk = [np.full(999, 7, np.float32) for _ in range(50)]
    assert np.array_equal(made, want)
    del junk
