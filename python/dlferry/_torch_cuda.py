"""The door to torch's CUDA: streams, memory and casts on devices, and page-locked memory.

Tests put a simulated driver behind these functions; nothing else asks torch for such things.
"""

from __future__ import annotations

import functools
from collections.abc import Sequence
from typing import Any

from dlferry import _fresh, _layout, _torch
from dlferry._torch import torch


def is_available() -> bool:
    """Whether torch can use CUDA in this process, which it cannot in a forked child."""
    if _torch.uses_cuda():
        return True
    return bool(torch.cuda.is_available()) and not torch.cuda._is_in_bad_fork()


def is_nvidia() -> bool:
    """Whether what torch calls CUDA is NVIDIA's, and the core may speak to its driver."""
    return torch.version.hip is None


def current_device() -> int:
    """The index of the device that ``"cuda"`` means."""
    return int(torch.cuda.current_device())


def current_stream(device: int) -> int:
    """The handle of the device's current stream; 0 for the null stream."""
    return int(torch._C._cuda_getCurrentRawStream(device))


def stream_handle(stream: Any, device: int) -> int:
    """The handle of a stream of a device that a caller names: torch's, anybody's, or a number.

    None names the current stream.

    Raises:
        TypeError: It is none of these.
        ValueError: It is a stream of another device.
    """
    if stream is None:
        return current_stream(device)
    if type(stream) is int:
        return stream
    if isinstance(stream, torch.cuda.Stream):
        if stream.device.index != device:
            raise ValueError(
                f"the stream is of {stream.device}, and the copies are of cuda:{device}; have a "
                f"stream of cuda:{device} wait, and the other one for that"
            )
        return int(stream.cuda_stream)
    protocol = getattr(stream, "__cuda_stream__", None)
    if protocol is None:
        raise TypeError(
            "stream must be a torch.cuda.Stream, have __cuda_stream__, or be a handle, "
            f"not {stream!r}"
        )
    described = protocol() if callable(protocol) else protocol
    return int(described[1])


def is_plain(tensor: torch.Tensor) -> bool:
    """Whether a tensor is nothing but its elements, so that moving them moves all of it."""
    return (
        type(tensor) in (torch.Tensor, torch.nn.Parameter)
        and not tensor.requires_grad
        and tensor.layout == torch.strided
        and not tensor.is_quantized
        and not tensor.is_nested
        and not tensor._is_zerotensor()
        and _torch.is_readable(tensor)
    )


_streams: dict[tuple[int, int], Any] = {}


def _stream(device: int, handle: int) -> Any:
    """torch's object for a stream of anybody's."""
    known = _streams.get((device, handle))
    if known is None:
        where = torch.device("cuda", device)
        made: Any = torch.cuda.ExternalStream
        # Given a null handle, that one makes a new stream, which has nothing to do with the null
        # stream, and 1, as CUDA's interfaces write that, it does not know. torch's default stream
        # is the null stream.
        is_null = handle in (0, 1)
        known = torch.cuda.default_stream(where) if is_null else made(handle, device=where)
        _streams[device, handle] = known
    return known


def empty(
    shape: Sequence[int],
    dtype: torch.dtype,
    device: int,
    stream: int,
    strides: Sequence[int] | None = None,
) -> torch.Tensor:
    """New memory on a device, which belongs to a stream."""
    where = torch.device("cuda", device)
    if stream == current_stream(device):
        return _fresh.empty(shape, dtype, strides, where)
    with torch.cuda.stream(_stream(device, stream)):
        return _fresh.empty(shape, dtype, strides, where)


def carve(
    block: torch.Tensor,
    offset: int,
    shape: Sequence[int],
    dtype: torch.dtype,
    strides: Sequence[int] | None = None,
) -> torch.Tensor:
    """A tensor in its own right on the memory of a block of bytes, from `offset` on."""
    place = offset // dtype.itemsize
    return _fresh.on_storage(block.untyped_storage(), dtype, place, shape, strides)


def record(tensor: torch.Tensor, device: int, stream: int) -> None:
    """Memory is not given to anyone else before the work now queued on a stream is done with it."""
    tensor.record_stream(_stream(device, stream))


def follow(device: int, stream: int, other: int) -> None:
    """Work submitted to a stream from now on waits for what is queued on another one."""
    _stream(device, stream).wait_stream(_stream(device, other))


@functools.cache
def _idle_stream(device: int) -> Any:
    make: Any = torch.cuda.Stream
    return make(torch.device("cuda", device))


def idle_stream(device: int) -> int:
    """The handle of a stream that nobody here submits work to."""
    return int(_idle_stream(device).cuda_stream)


def synchronize(device: int, stream: int) -> None:
    """The host waits for what is queued on a stream."""
    _stream(device, stream).synchronize()


def is_capturing() -> bool:
    """Whether the current stream is being captured into a graph."""
    return bool(torch.cuda.is_current_stream_capturing())


def recorded(device: int) -> Any:
    """torch's event for what is queued on the device's current stream."""
    make: Any = torch.cuda.Event
    event = make()
    event.record(_stream(device, current_stream(device)))
    return event


def wait_event(device: int, stream: int, event: Any) -> None:
    """Work submitted to a stream from now on waits for an event."""
    _stream(device, stream).wait_event(event)


def on_cuda_memory(described: Any, stream: int | None) -> torch.Tensor:
    """A tensor on the memory that a `__cuda_array_interface__` without a stream describes.

    Args:
        described: The object that has it; lives as long as the tensor.
        stream: What the current stream is to wait for: a handle, or 1 or 2 as CUDA means them.

    Raises:
        DriverUnavailable: torch cannot use CUDA.
        BufferError: The memory is on no CUDA device.
    """
    _torch.require_cuda()
    interface = described.__cuda_array_interface__
    current = torch.cuda.current_device()
    if 0 in interface["shape"]:
        return torch.as_tensor(described, device=torch.device("cuda", current))
    # Without an index torch finds out whose memory it is, which it does not doubt where one is
    # named, and then copies to the current device.
    others = [index for index in range(torch.cuda.device_count()) if index != current]
    for index in (current, *others):
        with torch.cuda.device(index):
            tensor: torch.Tensor = torch.as_tensor(described, device="cuda")
        if tensor.data_ptr() == interface["data"][0]:
            if stream is not None:
                follow(index, current_stream(index), stream)
            return tensor
    raise BufferError("the memory of a __cuda_array_interface__ is on no CUDA device")


def is_pinned(tensor: torch.Tensor) -> bool:
    """Whether a tensor is in page-locked memory, which a device reads by itself."""
    return tensor.device.type == "cpu" and bool(tensor.is_pinned())


def converted(tensor: torch.Tensor, dtype: torch.dtype) -> torch.Tensor:
    """A copy of a tensor on its device, on the current stream."""
    return _torch.converted(tensor, tensor.device, dtype)


def dense(tensor: torch.Tensor) -> torch.Tensor:
    """The tensor's elements without gaps in memory, by work on the current stream if any."""
    plain = tensor.detach().resolve_conj().resolve_neg()
    return plain if _layout.is_dense(plain) else plain.contiguous()


def empty_pinned(
    shape: Sequence[int], dtype: torch.dtype, strides: Sequence[int] | None = None
) -> torch.Tensor:
    """Host memory from torch's page-locked allocator; ordinary memory without CUDA."""
    return _fresh.empty(shape, dtype, strides, pin_memory=is_available())


class Registration:
    """Memory page-locked in place by torch's runtime, for as long as this lives.

    For use without the core, which has its own.
    """

    def __init__(self, data: int, size: int, owner: object) -> None:
        self._data, self._owner = 0, owner
        find: Any = torch.cuda.cudart
        runtime = find()
        torch.cuda.check_error(int(runtime.cudaHostRegister(data, size, 1)))  # for all devices
        self._data, self._unregister = data, runtime.cudaHostUnregister

    def __del__(self) -> None:
        """Before the owner goes, and with it the memory."""
        if self._data and not torch.cuda._is_in_bad_fork():
            self._unregister(self._data)
