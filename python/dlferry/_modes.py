"""Modes, tracers and transforms of torch's, which see what it does, change it, or only say it."""

from __future__ import annotations

from typing import Any

from dlferry import _torch
from dlferry._errors import UnsupportedInput
from dlferry._torch import torch


def count() -> int:
    """How many modes are active, which may make of each call what they like."""
    modes: int = torch._C._len_torch_function_stack() + torch._C._len_torch_dispatch_stack()
    return modes


def is_watched() -> bool:
    """Whether a tracer or a mode sees each operation of torch's, and nothing else."""
    return torch._C._is_tracing() or torch._C._len_torch_dispatch_stack() > 0


def hidden_empty(
    shape: tuple[int, ...],
    strides: tuple[int, ...],
    dtype: torch.dtype | None,
    device: torch.device | None,
) -> torch.Tensor:
    """A new tensor that no tracer, dispatch mode or transform of torch's sees being made.

    They know it as a constant, then, like memory that is shared, and so may ask for its elements
    when it has some. They must not know of the memory before, because they would take it as it is.
    """
    # torch's stub lacks it.
    set_tracing: Any = torch._C._set_tracing_state  # type: ignore[attr-defined]
    tracing = torch._C._get_tracing_state()
    set_tracing(None)
    try:
        with _torch.without_transforms(), torch._C._DisableTorchDispatch():
            return torch.empty_strided(shape, strides, dtype=dtype, device=device)
    finally:
        set_tracing(tracing)


def refuse_fakes() -> None:
    """Make sure that torch reads and writes elements.

    Raises:
        UnsupportedInput: FakeTensorMode is active, under which it only says that it did.
    """
    if torch._C._len_torch_dispatch_stack() == 0:
        return
    if torch._C._get_dispatch_mode(torch._C._TorchDispatchModeKey.FAKE) is not None:
        raise UnsupportedInput(
            "under FakeTensorMode torch reads and writes no elements; convert outside of the mode"
        )
