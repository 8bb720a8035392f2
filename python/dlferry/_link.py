"""Copies across the link between host and device: what they need of torch, and the core's part.

Memory on the host is a CPU tensor, or a `Source` of the core; either may have any strides. The
current stream is the one of the device at the time of the call.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, Literal, NamedTuple

from dlferry import _driver, _fresh, _layout, _page_locked, _torch, _torch_cuda
from dlferry._crossing import Crossing, NewMemory, new_memory, to_new_memory
from dlferry._native import core
from dlferry._torch import torch

Host = Any
"""A CPU tensor, or what `core.ingest` found."""


class Leaf(NamedTuple):
    """One array of a transfer, as the core wants it."""

    host: Host
    address: int
    wire: torch.dtype
    """What crosses the link and lies on the device."""
    order: tuple[int, ...] | None
    """In which the axes lie there, the outermost first; None for that of the shape."""


def takes(array: Host, target: torch.device) -> bool:
    """Whether to move an array to a device is for the core; torch moves everything else."""
    if not _torch.is_tensor(array):
        return target.type == "cuda" and _driver.serves()
    crosses = {array.device.type, target.type} == {"cpu", "cuda"}
    return crosses and _torch_cuda.is_plain(array) and _driver.serves()


def wire_dtype(source: torch.dtype, target: torch.dtype) -> torch.dtype:
    """The narrower of the two crosses the link; what the host would widen, the device does."""
    if torch.complex32 in (source, target):  # beyond the core's casts
        return source
    return target if target.itemsize < source.itemsize else source


# --- to a device ---


def to_device(
    hosts: Sequence[Host],
    dtypes: Sequence[torch.dtype],
    device: int,
    *,
    packed: bool = False,
    aside: bool = False,
) -> Crossing:
    """Start to copy arrays from the host to new memory of a device, as tensors of these dtypes.

    Args:
        hosts: Must stay unchanged until the crossing is done, or `wait_until_read` returns; kept
            alive so long.
        dtypes: Of the results, which keep the strides of dense memory.
        device: Its index.
        packed: Put the arrays into one block of memory, so that they cross the link as one.
        aside: As in `to_new_memory`.
    """
    _driver.require()
    hosts = [_readable(host) for host in hosts]
    wires = [wire_dtype(host.dtype, dtype) for host, dtype in zip(hosts, dtypes, strict=True)]

    def start(new: NewMemory, current: int, on_stream: bool) -> Any:
        leaves = _leaves(hosts, new.tensors)
        return _started("h2d", leaves, new.blocks, device, current, packed, on_stream=on_stream)

    return to_new_memory(
        _goes_inline(hosts, wires, packed), dtypes, device,
        lambda stream: new_memory(hosts, wires, device, stream, packed), start, aside=aside,
    )  # fmt: skip


def into_device(destinations: Sequence[torch.Tensor], hosts: Sequence[Host]) -> Crossing:
    """Start to copy arrays from the host into dense tensors of one device, cast to theirs.

    Waits for work queued on the current stream, without keeping the host.
    """
    _driver.require()
    hosts = [_readable(host) for host in hosts]
    if not all(_layout.is_dense(tensor) for tensor in destinations):
        raise ValueError("the destinations on a device must be dense")
    device = _index(destinations[0])
    current = _torch_cuda.current_stream(device)
    leaves = _leaves(hosts, destinations)
    handle = _started("h2d", leaves, destinations, device, current, ordered=True)
    dtypes = [tensor.dtype for tensor in destinations]
    return Crossing(handle, destinations, dtypes, device)


# --- to the host ---


def to_host(
    tensors: Sequence[torch.Tensor], dtypes: Sequence[torch.dtype], *, pinned: bool = True
) -> Crossing:
    """Start to copy tensors of one device to new memory on the host, as tensors of these dtypes.

    Args:
        tensors: What they are to hold may still be queued on the current stream.
        dtypes: Of the results, which keep the strides of dense memory.
        pinned: Page-locked results, within the cap.
    """
    _driver.require()
    device = _index(tensors[0])
    core.check_stream(device, _torch_cuda.current_stream(device))  # before memory is page-locked
    make = _page_locked.results.empty if pinned else _fresh.empty
    hosts = [
        make(tensor.shape, dtype, _layout.strides_of(tensor))
        for tensor, dtype in zip(tensors, dtypes, strict=True)
    ]
    return _fetched(hosts, tensors, device)


def into_host(destinations: Sequence[torch.Tensor], tensors: Sequence[torch.Tensor]) -> Crossing:
    """Start to copy tensors of one device into memory on the host, cast to the dtypes there."""
    _driver.require()
    device = _index(tensors[0])
    core.check_stream(device, _torch_cuda.current_stream(device))  # before torch queues a cast
    return _fetched(destinations, tensors, device)


# --- parts ---


def _fetched(
    destinations: Sequence[torch.Tensor], tensors: Sequence[torch.Tensor], device: int
) -> Crossing:
    current = _torch_cuda.current_stream(device)
    sources = []
    for tensor, host in zip(tensors, destinations, strict=True):
        wire = wire_dtype(tensor.dtype, host.dtype)
        plain = _torch_cuda.dense(tensor)
        sources.append(plain if wire == plain.dtype else _torch_cuda.converted(plain, wire))
    leaves = _leaves(destinations, sources)
    handle = None
    if _size(destinations, [source.dtype for source in sources]) <= core.INLINE_BYTES:
        handle = _started("d2h", leaves, sources, device, current, on_stream=True)
    if handle is None:
        handle = _started("d2h", leaves, sources, device, current, ordered=True)
    dtypes = [tensor.dtype for tensor in destinations]
    return Crossing(handle, destinations, dtypes, device)


def _readable(host: Host) -> Host:
    return host.detach().resolve_conj().resolve_neg() if _torch.is_tensor(host) else host


def _index(tensor: torch.Tensor) -> int:
    index: int | None = tensor.device.index
    return _torch_cuda.current_device() if index is None else index


def _size(hosts: Sequence[Host], wires: Sequence[torch.dtype]) -> int:
    return sum(
        math.prod(host.shape) * wire.itemsize for host, wire in zip(hosts, wires, strict=True)
    )


def _goes_inline(hosts: Sequence[Host], wires: Sequence[torch.dtype], packed: bool) -> bool:
    """Whether new memory is for the current stream itself, as a rule."""
    size = _size(hosts, wires)
    if size <= core.LITTLE_BYTES or size > core.INLINE_BYTES:
        return size <= core.LITTLE_BYTES
    leaves = [_leaf(host, 0, wire, host) for host, wire in zip(hosts, wires, strict=True)]
    return core.goes_inline(leaves, packed)


def _leaves(hosts: Sequence[Host], tensors: Sequence[torch.Tensor]) -> list[Leaf]:
    return [
        _leaf(host, tensor.data_ptr(), tensor.dtype, tensor)
        for host, tensor in zip(hosts, tensors, strict=True)
    ]


def _leaf(host: Host, address: int, wire: torch.dtype, like: Host) -> Leaf:
    layout = _layout.layout_of(like)
    return Leaf(host, address, wire, layout.order if layout else None)


def _started(
    direction: Literal["h2d", "d2h"],
    leaves: Sequence[Leaf],
    tensors: Sequence[torch.Tensor],
    device: int,
    current: int,
    packed: bool = False,
    *,
    ordered: bool = False,
    on_stream: bool = False,
) -> Any:
    """The core's handle; None where a transfer on the current stream itself is not for it.

    `tensors` own the memory on the device. One that is given other memory meanwhile must not take
    this away: the storages are kept.
    """
    return core.start_transfer(
        direction,
        leaves,
        device=device,
        stream=current,
        packed=packed,
        ordered=ordered,
        on_stream=on_stream,
        keep_host=[leaf.host.untyped_storage() for leaf in leaves if _torch.is_tensor(leaf.host)],
        keep_device=[tensor.untyped_storage() for tensor in tensors],
    )
