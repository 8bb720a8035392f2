"""What two arrays or tensors have to do with each other in memory."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch


def address(x: Any) -> int:
    """Where the first element of an ndarray or tensor lies."""
    if isinstance(x, torch.Tensor):
        return x.data_ptr()
    return int(x.__array_interface__["data"][0])


def extent(x: Any) -> tuple[int, int]:
    """The half-open byte range that an ndarray or tensor can touch; (0, 0) when it has none."""
    if isinstance(x, torch.Tensor):
        steps, item, size = [s * x.element_size() for s in x.stride()], x.element_size(), x.numel()
    else:
        steps, item, size = list(x.strides), x.itemsize, x.size
    if size == 0:
        return 0, 0
    reach = [(n - 1) * step for n, step in zip(x.shape, steps, strict=True)]
    low = address(x) + sum(r for r in reach if r < 0)
    return low, address(x) + sum(r for r in reach if r > 0) + item


def overlaps(x: Any, y: Any) -> bool:
    """Whether two byte ranges meet."""
    (a, b), (c, d) = extent(x), extent(y)
    return a < d and c < b


def same_memory(x: Any, y: Any) -> bool:
    """Whether two views show the very same elements, in the same order."""
    if tuple(x.shape) != tuple(y.shape):
        return False
    if 0 in x.shape:
        return True
    return address(x) == address(y) and extent(x) == extent(y)


def assert_fresh(result: torch.Tensor, source: Any) -> None:
    """Asserts that a result is a copy, in ordinary torch memory."""
    assert not overlaps(result, source)
    assert result.untyped_storage().resizable()


def bits(t: torch.Tensor) -> torch.Tensor:
    """The bytes of a tensor's elements, in order, every NaN made the same."""
    t = t.detach().resolve_conj().resolve_neg().contiguous()
    if t.is_complex():
        t = torch.view_as_real(t)
    if t.is_floating_point():
        wide = t.to(torch.float64) if t.element_size() < 8 else t
        nan = torch.isnan(wide)
        t = t.clone()
        t.reshape(-1).view(torch.uint8).reshape(-1, t.element_size())[nan.reshape(-1)] = 0xFF
    return t.reshape(-1).view(torch.uint8)


def assert_same_values(result: torch.Tensor, expected: torch.Tensor) -> None:
    """Asserts equal dtype, shape and bits (NaN payloads aside)."""
    assert result.dtype == expected.dtype
    assert tuple(result.shape) == tuple(expected.shape)
    assert torch.equal(bits(result), bits(expected))


def misaligned(values: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    """A writable copy of an array that starts one byte past an aligned address."""
    raw = np.empty(values.nbytes + 16, np.uint8)
    start = 1 + (-address(raw)) % 8
    out: np.ndarray[Any, Any] = (
        raw[start : start + values.nbytes].view(values.dtype).reshape(values.shape)
    )
    out[...] = values
    assert not out.flags.aligned and out.flags.writeable
    return out
