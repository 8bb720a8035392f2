"""Many arrays in one piece of a device's memory, found and started by the core together."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

from dlferry import _driver, _modes, _torch_cuda
from dlferry._crossing import Crossing, NewMemory, allocated, to_new_memory
from dlferry._link import wire_dtype
from dlferry._native import core
from dlferry._torch import torch


class Run(NamedTuple):
    """Arrays of one shape and dtype that lie in a block of bytes at equal distances."""

    length: int
    """How many."""
    offset: int
    """Where the first begins, in bytes."""
    distance: int
    """From one to the next, in bytes."""
    shape: tuple[int, ...]
    source: torch.dtype
    """On the host."""
    dtype: torch.dtype
    """In the block."""


def batch_to_device(
    batch: core.Batch,
    casts: Callable[[torch.dtype], torch.dtype],
    device: int,
    *,
    aside: bool = False,
) -> Crossing:
    """Start to copy small arrays into one block of new memory, where each is a tensor.

    Args:
        batch: The arrays, which must stay unchanged until the crossing is done, or
            `wait_until_read` returns; kept alive so long.
        casts: The dtype of the result for each dtype of theirs.
        device: Its index.
        aside: As in `to_new_memory`.
    """
    _driver.require()
    size, placed = batch.place({kind: wire_dtype(kind, casts(kind)) for kind in batch.dtypes})
    runs = [Run(*run) for run in placed]

    def new(stream: int) -> NewMemory:
        core.drop_finished()
        block = allocated((size,), torch.uint8, device, stream)
        return NewMemory(carve_runs(block, runs), [block], stream)

    def start(new: NewMemory, current: int, on_stream: bool) -> Any:
        block = new.blocks[0]
        return core.start_batch(
            batch, block.data_ptr(), device=device, stream=current, on_stream=on_stream,
            keep_device=block.untyped_storage(),
        )  # fmt: skip

    dtypes = None
    if any(casts(run.source) != run.dtype for run in runs):
        dtypes = [dtype for run in runs for dtype in [casts(run.source)] * run.length]
    inline = size <= core.INLINE_BYTES
    return to_new_memory(inline, dtypes, device, new, start, aside=aside)


def stack_to_device(arrays: core.Arrays, device: int) -> Crossing:
    """Start to copy the arrays of a list into one new tensor of their shape together."""
    _driver.require()
    source, *others = arrays.dtypes
    wire = arrays.dtype if others else wire_dtype(source, arrays.dtype)

    def new(stream: int) -> NewMemory:
        core.drop_finished()
        out = [allocated(arrays.shape, wire, device, stream)]
        return NewMemory(out, out, stream)

    def start(new: NewMemory, current: int, on_stream: bool) -> Any:
        out = new.tensors[0]
        return core.start_stack(
            arrays, out.data_ptr(), wire, device=device, stream=current, on_stream=on_stream,
            keep_device=out.untyped_storage(),
        )  # fmt: skip

    inline = math.prod(arrays.shape) * wire.itemsize <= core.INLINE_BYTES
    return to_new_memory(inline, [arrays.dtype], device, new, start)


def carve_runs(block: torch.Tensor, runs: Sequence[Run]) -> list[torch.Tensor]:
    """Tensors in their own right on the memory of a block of bytes, in C order, run by run.

    Made as views, which takes a quarter of the time, but past what notes whose views they are: so
    each has a version of its own, and autograd knows of no base. For offsets and a size of the
    block that are multiples of all item sizes.
    """
    if _modes.count():  # which see each call, and may change what it makes
        return [
            _torch_cuda.carve(block, run.offset + i * run.distance, run.shape, run.dtype)
            for run in runs
            for i in range(run.length)
        ]
    tensors: list[torch.Tensor] = []
    views = torch._C.DispatchKeySet(torch._C.DispatchKey.ADInplaceOrView)
    with torch._C._ExcludeDispatchKeyGuard(views):
        for run in runs:
            size = run.dtype.itemsize
            together = block.view(run.dtype).as_strided(
                (run.length, *run.shape),
                (run.distance // size, *_contiguous(run.shape)),
                run.offset // size,
            )
            tensors.extend(together.unbind())
    return tensors


def _contiguous(shape: Sequence[int]) -> list[int]:
    """The strides of C order, in elements."""
    return [math.prod(shape[axis + 1 :]) for axis in range(len(shape))]
