"""`copyto`: into memory that is there already.

`_arrivals`, `_link` and `_queued` are imported by the first call.
"""

from __future__ import annotations

from typing import Any

from dlferry import _convert, _modes, _move, _torch, _torch_cuda
from dlferry._layout import is_dense, repeats
from dlferry._torch import torch
from dlferry._transfer import Transfer
from dlferry._tree import Tree


def copyto(dst: Any, src: Any) -> Transfer:
    """Start to copy the elements of an array into another one, in either direction.

    Waits, on the device, for work queued earlier on the current stream: that may still use `dst` or
    produce `src`. `src` must stay unchanged, and `dst` unread, until the transfer is done; a handle
    that is dropped keeps both alive until then.

    Args:
        dst: A tensor on the host or on a device, or an ndarray or other array that a tensor can
            share for writing. Of any strides; no two elements at one place.
        src: An array of the same shape, anywhere, as `asarray` takes it. Its elements are cast to
            the dtype of `dst` as in C.

    Returns:
        A handle, whose result is `dst` as a tensor. Between arrays on one side of the link the copy
        is made, or for a device queued, before the call returns.

    Raises:
        ValueError: The shapes differ, elements of `dst` share memory, or `dst` would take part in
            autograd.
        CopyRequired: No tensor can share the memory of `dst` for writing.
        UnsupportedInput: torch has no such elements.
        CudaError: A call of the driver failed, or the current stream is being captured.

    Example:
        >>> import numpy as np, dlferry
        >>> buffer = np.zeros(3)
        >>> dlferry.copyto(buffer, [1, 2, 3]).synchronize()
        >>> buffer
        array([1., 2., 3.])
    """
    from dlferry import _arrivals, _link, _queued

    _modes.refuse_fakes()
    to = dst if _torch.is_tensor(dst) else _convert.asarray(dst, copy=False, readonly="error")
    source = src if _torch.is_tensor(src) else _read_from(src)
    _check(to, source)
    arrivals = _arrivals.Arrivals(1)
    source = source.detach()
    crosses = _link.takes(source, to.device) and _torch_cuda.is_plain(to)
    has_own_elements = not (to.is_conj() or to.is_neg())
    if crosses and has_own_elements and to.device.type == "cpu":
        arrivals.expect(_link.into_host([to], [source]), [0])
    elif crosses and has_own_elements and is_dense(to):
        arrivals.expect(_link.into_device([to], [source]), [0])
    else:
        near = _move.moved(source, to.device, to.dtype) if crosses else source
        _torch.fill(to.detach(), near)
        if to.device.type == "cuda":
            arrivals.expect(_queued.Queued([to], to.device.index), [0])
        else:
            arrivals.add(0, to)
    _torch.wrote(to)
    return Transfer(Tree(to, _torch.is_tensor), arrivals)


def _read_from(src: Any) -> torch.Tensor:
    """The elements of what is no tensor; a copy that this takes is not an implicit one."""
    tensor = _convert.leaf(src, None)
    return _convert.asarray(src) if tensor is None else tensor


def _check(dst: torch.Tensor, src: torch.Tensor) -> None:
    if dst.shape != src.shape:
        raise ValueError(f"dst has shape {tuple(dst.shape)}, and src has {tuple(src.shape)}")
    if repeats(dst):
        raise ValueError(
            "dst has elements that share memory, as from expand; pass dst.contiguous()"
        )
    if torch.is_grad_enabled() and (dst.requires_grad or src.requires_grad):
        raise ValueError(
            "copyto takes no part in autograd, and a tensor requires grad; pass tensor.detach(), "
            "or call it under torch.no_grad()"
        )
