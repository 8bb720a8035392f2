"""torch with a simulated GPU: tensors in memory that the host must not touch, and dlferry's door
to torch with the simulated driver behind it.
"""

from __future__ import annotations

import ctypes
import os
import weakref
from collections.abc import Callable, Sequence
from typing import Any, ClassVar

import pytest
import torch
from sim_driver import SimDriver

from dlferry import _fresh, _torch, _torch_cuda
from dlferry._layout import is_dense, layout_of, strides_of

_is_plain = _torch_cuda.is_plain


class Block:
    """Device memory as torch's allocator gives it out: it belongs to a stream.

    The next owner's work is ordered after what is queued on the streams it was recorded for. The
    driver knows of no next owner, so here the memory goes when those streams are idle.
    """

    abandoned: ClassVar[list[Block]] = []
    """Those that nobody has any more, and whose streams were not idle."""

    def __init__(self, sim: SimDriver, device: int, size: int, stream: int) -> None:
        self.sim, self.device, self.size, self.stream = sim, device, size, stream
        self.process = os.getpid()
        self.address = sim.device_alloc(device, max(size, 1))
        assert self.address, "the simulated device has no memory left"
        self.recorded: set[int] = set()

    def release(self) -> None:
        """As `cudaFree` of an allocator that must not wait; a forked child forgets the memory."""
        if os.getpid() != self.process:
            return
        streams = {self.stream, *self.recorded}
        if all(self.sim.stream_is_idle(stream) for stream in streams):
            assert self.sim.device_free(self.address) == 0
        else:
            Block.abandoned.append(self)

    @staticmethod
    def release_abandoned(*, wait: bool = False) -> None:
        blocks, Block.abandoned = Block.abandoned, []
        for block in blocks:
            if wait:
                for stream in {block.stream, *block.recorded}:
                    block.sim.stream_wait(stream)
            block.release()


_blocks: dict[int, tuple[Block, Any]] = {}
"""The live blocks, by torch's storage."""


def block_of(tensor: torch.Tensor) -> Block:
    return _blocks[tensor.untyped_storage()._cdata][0]


def _on(block: Block, tensor: torch.Tensor) -> SimTensor:
    """A meta tensor, from now on on the block, which lives as long as its storage."""
    storage = tensor.untyped_storage()
    key = storage._cdata

    def gone(_: object) -> None:
        _blocks.pop(key)[0].release()

    _blocks[key] = (block, weakref.ref(storage, gone))
    return tensor.as_subclass(SimTensor)


def _getter(function: Any) -> str:
    """The name of the attribute that a `__get__` reads."""
    return str(getattr(getattr(function, "__self__", None), "__name__", ""))


# What says something about a tensor, or makes another one on its memory.
METADATA = {
    "dim", "element_size", "is_complex", "is_conj", "is_contiguous", "is_floating_point", "is_neg",
    "numel", "shape", "size", "storage_offset", "stride", "untyped_storage", "dtype", "ndim",
    "layout", "requires_grad", "is_quantized", "is_sparse", "grad_fn", "itemsize", "nbytes",
    "__len__", "_is_view", "_is_zerotensor", "_version", "data_ptr", "is_pinned", "is_nested",
}  # fmt: skip
VIEWS = {
    "__getitem__", "as_strided", "detach", "expand", "flatten", "movedim", "permute", "reshape",
    "resolve_conj", "resolve_neg", "select", "set_", "squeeze", "t", "transpose", "unsqueeze",
    "unbind", "view", "T",
}  # fmt: skip


class SimTensor(torch.Tensor):
    """A tensor that says it is on a CUDA device, whose elements only the driver can reach."""

    @classmethod
    def __torch_function__(
        cls,
        func: Any,
        types: Sequence[type],
        args: Sequence[Any] = (),
        kwargs: dict[str, Any] | None = None,
    ) -> Any:
        name = func.__name__ if func.__name__ != "__get__" else _getter(func)
        if name == "device":
            return torch.device("cuda", block_of(args[0]).device)
        if name in {"is_cuda", "is_meta", "is_cpu"}:
            return name == "is_cuda"
        with torch._C.DisableTorchFunctionSubclass():
            if name == "data_ptr":
                return _address(args[0])
            if name not in METADATA | VIEWS:
                raise AssertionError(f"{name} would touch the elements of a simulated tensor")
            result = func(*args, **(kwargs or {}))
            if name in VIEWS:
                several = isinstance(result, tuple)
                return (
                    tuple(r.as_subclass(cls) for r in result)
                    if several
                    else result.as_subclass(cls)
                )
        return result

    def __repr__(self) -> str:  # type: ignore[override]
        return f"SimTensor({tuple(self.shape)}, {self.dtype}, {_address(self):#x})"


def _address(tensor: torch.Tensor) -> int:
    if tensor.numel() == 0:
        return 0
    with torch._C.DisableTorchFunctionSubclass():
        offset = tensor.storage_offset() * tensor.dtype.itemsize
        return block_of(tensor).address + offset


def read(tensor: torch.Tensor) -> torch.Tensor:
    """What the tensor holds at this moment, whatever is queued."""
    host = torch.empty(_span(tensor), dtype=tensor.dtype)
    if tensor.numel():
        assert block_of(tensor).sim.peek(host.data_ptr(), _address(tensor), host.nbytes) == 0
    return host.as_strided(tensor.shape, tensor.stride()).clone(
        memory_format=torch.contiguous_format
    )


def write(tensor: torch.Tensor, values: torch.Tensor) -> None:
    """Put elements into a dense tensor at once."""
    layout = layout_of(tensor)
    assert is_dense(tensor) and values.shape == tensor.shape and values.dtype == tensor.dtype
    values = (values.permute(layout.order) if layout else values).contiguous()
    if tensor.numel():
        assert block_of(tensor).sim.poke(_address(tensor), values.data_ptr(), values.nbytes) == 0


def _span(tensor: torch.Tensor) -> int:
    if tensor.numel() == 0:
        return 0
    return 1 + sum((n - 1) * s for n, s in zip(tensor.shape, tensor.stride(), strict=True))


class SimDoor:
    """What `dlferry._torch_cuda` asks of torch, answered by the simulator."""

    def __init__(self, sim: SimDriver) -> None:
        self.sim = sim
        self.device = 0
        self.current: dict[int, int] = {0: sim.stream_create(0, 1)}
        """The current stream of each device."""
        self.own = list(self.current.values())

    def install(self, monkeypatch: pytest.MonkeyPatch) -> None:
        for name in (
            "is_available", "is_nvidia", "current_device", "current_stream", "empty", "carve",
            "record", "follow", "converted", "dense", "is_plain", "empty_pinned", "idle_stream",
            "synchronize", "is_capturing",
        ):  # fmt: skip
            monkeypatch.setattr(_torch_cuda, name, getattr(self, name))
        monkeypatch.setattr(_torch, "require_cuda", lambda index=None: None)
        monkeypatch.setattr(torch.cuda, "current_device", self.current_device)

    def wait(self) -> None:
        """For all work in the streams of this door."""
        for stream in self.own:
            assert self.sim.stream_wait(stream) == 0

    def close(self) -> None:
        Block.release_abandoned(wait=True)
        for stream in self.own:
            assert self.sim.stream_destroy(stream) == 0

    def new_stream(self) -> int:
        stream = int(self.sim.stream_create(0, 1))
        self.own.append(stream)
        return stream

    # --- the door ---

    def is_available(self) -> bool:
        return True

    def is_nvidia(self) -> bool:
        return True

    def current_device(self) -> int:
        return self.device

    def current_stream(self, device: int) -> int:
        return self.current[device]

    def empty(
        self,
        shape: Sequence[int],
        dtype: torch.dtype,
        device: int,
        stream: int,
        strides: Sequence[int] | None = None,
    ) -> torch.Tensor:
        Block.release_abandoned()
        tensor = _fresh.empty(tuple(shape), dtype, strides, "meta")
        return _on(Block(self.sim, device, tensor.nbytes, stream), tensor)

    def carve(
        self,
        block: torch.Tensor,
        offset: int,
        shape: Sequence[int],
        dtype: torch.dtype,
        strides: Sequence[int] | None = None,
    ) -> torch.Tensor:
        tensor = torch.empty(0, dtype=dtype, device="meta")
        layout = () if strides is None else (tuple(strides),)
        tensor.set_(block.untyped_storage(), offset // dtype.itemsize, tuple(shape), *layout)
        return tensor.as_subclass(SimTensor)

    def record(self, tensor: torch.Tensor, device: int, stream: int) -> None:
        block_of(tensor).recorded.add(stream)

    def follow(self, device: int, stream: int, other: int) -> None:
        assert self.sim.stream_wait(other) == 0

    def idle_stream(self, device: int) -> int:
        return self.new_stream()

    def synchronize(self, device: int, stream: int) -> None:
        assert self.sim.stream_wait(stream) == 0

    def is_capturing(self) -> bool:
        return bool(self.sim.capture_status(self.current[self.device]))

    def converted(self, tensor: torch.Tensor, dtype: torch.dtype) -> torch.Tensor:
        return self._computed(tensor, lambda values: values.to(dtype), strides_of(tensor))

    def is_plain(self, tensor: torch.Tensor) -> bool:
        return type(tensor) is SimTensor or _is_plain(tensor)

    def dense(self, tensor: torch.Tensor) -> torch.Tensor:
        if is_dense(tensor):
            return tensor.detach()
        return self._computed(tensor, lambda values: values, None)

    def _computed(
        self,
        tensor: torch.Tensor,
        compute: Callable[[torch.Tensor], torch.Tensor],
        strides: Sequence[int] | None,
    ) -> torch.Tensor:
        """As a kernel on the current stream, but that the host waits for what comes before."""
        device = block_of(tensor).device
        stream = self.current[device]
        assert self.sim.stream_wait(stream) == 0
        values = compute(read(tensor))
        made = self.empty(values.shape, values.dtype, device, stream, strides)
        write(made, values)
        return made

    def empty_pinned(
        self,
        shape: Sequence[int],
        dtype: torch.dtype,
        strides: Sequence[int] | None = None,
    ) -> torch.Tensor:
        like = _fresh.empty(tuple(shape), dtype, strides, "meta")
        if like.nbytes == 0:
            return torch.empty(tuple(shape), dtype=dtype)
        address = self.sim.pinned_alloc(like.nbytes)
        memory = (ctypes.c_char * like.nbytes).from_address(address)
        storage = torch.frombuffer(memory, dtype=like.dtype).untyped_storage()
        tensor = torch.empty(0, dtype=like.dtype).set_(storage, 0, like.shape, like.stride())
        weakref.finalize(memory, self.sim.pinned_free, address)
        return tensor
