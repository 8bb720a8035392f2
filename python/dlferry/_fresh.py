"""New tensors of torch's, which are what was asked for or refused.

The core writes to their memory by itself, so a mode of torch's that gives another dtype or shape
must not pass unseen.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from dlferry import _modes
from dlferry._torch import torch

NOT_AS_ASKED = (
    "torch does not make ordinary tensors at present: a mode is active that gives another dtype, "
    "shape or device than it is asked for; leave the mode first"
)


def empty(
    shape: Sequence[int],
    dtype: torch.dtype,
    strides: Sequence[int] | None = None,
    device: torch.device | str = "cpu",
    *,
    pin_memory: bool = False,
) -> torch.Tensor:
    """A new tensor, by default contiguous; `strides` count elements.

    Raises:
        BufferError: A mode of torch's makes something else.
        RuntimeError: torch has no memory.
    """
    made: torch.Tensor
    if strides is None:
        made = torch.empty(shape, dtype=dtype, device=device, pin_memory=pin_memory)
    else:
        made = torch.empty_strided(
            shape, strides, dtype=dtype, device=device, pin_memory=pin_memory
        )
    return _as_asked(made, shape, dtype, strides, device)


def on_storage(
    storage: torch.UntypedStorage,
    dtype: torch.dtype,
    offset: int,
    shape: Sequence[int],
    strides: Sequence[int] | None = None,
) -> torch.Tensor:
    """A tensor in its own right on memory that exists, from the element `offset` on.

    Raises:
        BufferError: A mode of torch's makes something else.
    """
    tensor: torch.Tensor = torch.empty(0, dtype=dtype, device=storage.device)
    in_place: Any = tensor.set_
    layout = () if strides is None else (tuple(strides),)
    made = in_place(storage, offset, tuple(shape), *layout)
    return _as_asked(made, shape, dtype, strides, storage.device)


def _as_asked(
    made: torch.Tensor,
    shape: Sequence[int],
    dtype: torch.dtype,
    strides: Sequence[int] | None,
    device: torch.device | str,
) -> torch.Tensor:
    if _modes.count() and not (
        made.dtype == dtype
        and made.shape == tuple(shape)
        and made.device.type == torch.device(device).type
        and (made.is_contiguous() if strides is None else made.stride() == tuple(strides))
    ):
        raise BufferError(NOT_AS_ASKED)
    return made
