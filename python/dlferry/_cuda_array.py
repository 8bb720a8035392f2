"""`__cuda_array_interface__`, versions 2 and 3: validated here, turned into a tensor by torch."""

from __future__ import annotations

import operator
from typing import Any, NamedTuple

import numpy as np

from dlferry import _torch, _torch_cuda
from dlferry._errors import UnsupportedInput
from dlferry._foreign import attribute
from dlferry._policy import Fact
from dlferry._torch import torch


class CudaArray(NamedTuple):
    """Memory on a CUDA device. Has what the core's `Source` says of itself."""

    owner: object
    element: np.dtype[Any]
    dtype: torch.dtype
    shape: tuple[int, ...]
    strides: tuple[int, ...]
    """In bytes."""
    address: int
    stream: int | None
    """The stream with work on the memory that is yet to finish; 1 and 2 as CUDA means them."""
    facts: int
    device: str = "cuda"

    def tensor(self) -> torch.Tensor:
        """A tensor on the memory, ordered after the stream; a copy where no tensor has the layout.

        Raises:
            DriverUnavailable: torch cannot use CUDA.
        """
        # A negative stride is undone by starting from the other end.
        flipped = [axis for axis, stride in enumerate(self.strides) if stride < 0]
        start = self.address + sum((self.shape[a] - 1) * self.strides[a] for a in flipped)
        strides = tuple(abs(stride) for stride in self.strides)
        if not self.facts & (Fact.BYTE_ORDER | Fact.ALIGNMENT) and not self._odd():
            if not flipped:
                return self._on_memory(start, self.element, self.shape, strides)
            # torch flips no unsigned elements but bytes.
            wide = self.element.kind == "u" and self.element.itemsize > 1
            element = np.dtype(f"i{self.element.itemsize}") if wide else self.element
            tensor = self._on_memory(start, element, self.shape, strides)
            return tensor.flip(flipped).view(self.dtype)
        size = self.element.itemsize
        parts = (2, size // 2) if self.element.kind == "c" else (1, size)
        tensor = self._on_memory(
            start, np.dtype(np.uint8), (*self.shape, *parts), (*strides, parts[1], 1)
        )
        flipped += [tensor.ndim - 1] * bool(self.facts & Fact.BYTE_ORDER)
        return tensor.flip(flipped).flatten(-2).view(self.dtype).squeeze(-1)

    def _odd(self) -> bool:
        return any(stride % self.element.itemsize for stride in self.strides)

    def _on_memory(
        self,
        address: int,
        element: np.dtype[Any],
        shape: tuple[int, ...],
        strides: tuple[int, ...],
    ) -> torch.Tensor:
        interface = {
            "version": 2,
            "typestr": element.newbyteorder("=").str,
            "shape": shape,
            "strides": strides,
            "data": (address, False),
        }
        return _torch_cuda.on_cuda_memory(_Described(self.owner, interface), self.stream)


class _Described:
    """Describes memory to torch, and keeps its owner."""

    def __init__(self, owner: object, interface: dict[str, Any]) -> None:
        self.owner = owner
        self.__cuda_array_interface__ = interface


def memory_of(obj: object) -> CudaArray | None:
    """The memory that a `__cuda_array_interface__` describes; None without.

    Raises:
        BufferError: It is malformed, or of another version.
        UnsupportedInput: It has a mask, or elements that torch has no dtype for.
    """
    if isinstance(obj, type):
        return None
    interface = attribute(obj, "__cuda_array_interface__")
    if interface is None:
        return None
    try:
        return _validated(obj, interface)
    except UnsupportedInput:
        raise
    except (KeyError, TypeError, ValueError, AttributeError, OverflowError) as error:
        raise BufferError(f"the __cuda_array_interface__ is malformed: {error!r}") from error


def _validated(obj: object, interface: Any) -> CudaArray:
    if interface["version"] not in (2, 3):
        raise BufferError(
            f"the __cuda_array_interface__ has version {interface['version']!r}; 2 and 3 are "
            "understood"
        )
    if interface.get("mask") is not None:
        raise UnsupportedInput(
            "a __cuda_array_interface__ with a mask: a tensor has none; fill or drop what is masked"
        )
    element = np.dtype(interface["typestr"])
    dtype = _torch.dtypes().get(element.name)
    if dtype is None or element.subdtype is not None:
        raise UnsupportedInput(
            f"a __cuda_array_interface__ with elements ({interface['typestr']}) that torch has no "
            "dtype for; convert it on the device first"
        )
    shape = tuple(operator.index(length) for length in interface["shape"])
    if any(length < 0 for length in shape):
        raise ValueError(f"shape {shape}")
    strides = _strides(interface.get("strides"), shape, element.itemsize)
    address, readonly = interface["data"]
    address = operator.index(address)
    if address < 0 or (address == 0 and 0 not in shape):
        raise ValueError(f"data {address} for {shape} elements")
    stream = _stream(interface.get("stream"))
    facts = _facts(element, shape, strides, address) | Fact.READ_ONLY * bool(readonly)
    return CudaArray(obj, element, dtype, shape, strides, address, stream, int(facts))


def _strides(given: Any, shape: tuple[int, ...], size: int) -> tuple[int, ...]:
    """Strides in bytes; those of axes with one element at most, which are never used, made up."""
    contiguous = []
    for length in reversed(shape):
        contiguous.append(size)
        size *= max(length, 1)
    row_major = tuple(reversed(contiguous))
    if given is None or 0 in shape:
        return row_major
    strides = tuple(operator.index(stride) for stride in given)
    if len(strides) != len(shape):
        raise ValueError(f"{len(strides)} strides for {len(shape)} axes")
    return tuple(
        stride if length > 1 else made_up
        for stride, length, made_up in zip(strides, shape, row_major, strict=True)
    )


def _stream(given: Any) -> int | None:
    if given is None:
        return None
    stream = operator.index(given)
    if stream <= 0:
        raise ValueError(f"stream {stream}, which may be None, 1, 2 or a handle")
    return stream


def _facts(
    element: np.dtype[Any], shape: tuple[int, ...], strides: tuple[int, ...], address: int
) -> int:
    if 0 in shape:
        return 0
    facts = Fact.BYTE_ORDER * (not element.isnative)
    if any(stride < 0 or stride % element.itemsize for stride in strides):
        facts |= Fact.STRIDES
    if address % element.itemsize:
        facts |= Fact.ALIGNMENT
    return int(facts)
