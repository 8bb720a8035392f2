"""One array to another device, for whoever needs it there at once.

`_link`, `_crossing` and `_blocks` are imported by the first call: who stays on the host does
without.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from dlferry import _driver, _gather, _torch, _torch_cuda
from dlferry._native import core
from dlferry._torch import torch

CPU = "cpu"


def moved(array: Any, device: torch.device, dtype: torch.dtype) -> torch.Tensor:
    """A new tensor with the elements of an array, cast, on a device.

    It is for the current stream, or complete on the host. What has been read may be changed. By
    dlferry's own copies where they serve, and otherwise by torch's, which are differentiable.

    Args:
        array: A tensor, or memory on the host that `core.ingest` found.
        device: With an index, for CUDA.
        dtype: Of the result.
    """
    from dlferry import _link

    if not _link.takes(array, device):
        tensor = array if _torch.is_tensor(array) else _gather.on_host(array)
        return _torch.converted(tensor, device, dtype)
    if device.type == CPU:
        return _link.to_host([array], [dtype]).tensors()[0]
    assert device.index is not None
    crossing = _link.to_device([_gather.whole(array)], [dtype], device.index)
    crossing.wait_until_read()
    return crossing.tensors()[0]


def little(array: Any, device: torch.device, dtype: torch.dtype | None) -> torch.Tensor | None:
    """A new tensor on a device with the elements of a small array, for the current stream.

    None for the general route: for what is not an exact, C-contiguous ndarray or tensor on the
    host, and where torch has to copy. What has been read may be changed.

    Args:
        array: Anything.
        device: With an index, for CUDA.
        dtype: Of the result; that of the array when None.
    """
    is_tensor = type(array) is torch.Tensor
    if not is_tensor and type(array) is not np.ndarray:
        return None
    if (is_tensor and not array.is_cpu) or not _driver.serves():
        return None
    from dlferry._crossing import allocated

    assert device.index is not None
    stream = _torch_cuda.current_stream(device.index)
    landed = core.little_to_device(array, dtype, device.index, stream, allocated)
    if landed is None or dtype is None or landed.dtype == dtype:
        return landed
    return _torch_cuda.converted(landed, dtype)


def stacked(
    arrays: Sequence[Any], device: torch.device, dtype: torch.dtype | None
) -> torch.Tensor | None:
    """Arrays on the host, in a list or tuple, in one new tensor on a device.

    None for the general route, as where torch has to copy. What has been read may be changed.

    Args:
        arrays: Nested as deep as the caller likes; numbers are for the general route.
        device: With an index, for CUDA.
        dtype: Of the result; that of the arrays together when None.
    """
    if device.type != "cuda" or not _driver.serves():
        return None
    found = core.arrays_of(arrays, dtype)
    if found is None:
        return None
    from dlferry import _blocks

    assert device.index is not None
    crossing = _blocks.stack_to_device(found, device.index)
    crossing.wait_until_read()
    return crossing.tensors()[0]


def read_into(out: torch.Tensor, tensor: torch.Tensor) -> None:
    """Copy a tensor of the same shape into one on the host, cast, which is then complete."""
    if tensor.device == out.device:
        _torch.fill(out, tensor)
        return
    from dlferry import _link

    if _link.takes(tensor, out.device):
        _link.into_host([out], [tensor]).synchronize()
    else:
        _torch.fill(out, tensor)
