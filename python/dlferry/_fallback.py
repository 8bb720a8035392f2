"""The mechanisms of the native core in NumPy and plain torch: slower, with the same results.

`ingest` finds the memory of an object, `share` and `copy` make a tensor of it, `array` makes an
ndarray of a tensor, `decide` chooses. Serves where there is no native core.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np

from dlferry import _capsule, _export, _fresh, _sources, _torch
from dlferry._errors import UnsupportedInput
from dlferry._policy import Fact
from dlferry._policy import decide as decide
from dlferry._torch import torch

Array = np.ndarray[Any, Any]

NO_ARRAY = (
    "Tensor.numpy() gives something else than an array on the tensor's memory: a mode of torch's "
    "is active; leave the mode first"
)


@dataclass(slots=True)
class Source:
    """Foreign memory on its way to a tensor; see the native core's class of this name."""

    array: Array | None
    origin: object
    device: str = "cpu"
    facts: int = 0
    dtype: torch.dtype | None = None
    shape: tuple[int, ...] = field(default=())
    strides: tuple[int, ...] = field(default=())
    capsule: object = None
    """Of memory on a device, which no array can describe."""


class _Memory:
    """Describes the memory of an array anew, and keeps the array and its owner."""

    def __init__(self, array: Array, strides: tuple[int, ...], owner: object) -> None:
        self.kept = (array, owner)
        self.__array_interface__ = {
            "version": 3,
            "shape": array.shape,
            "strides": strides,
            "typestr": array.dtype.str,
            "data": (array.ctypes.data, False),
        }


def ingest(obj: object, never_copy: bool, /) -> Source | None:
    """The memory of an ndarray or DLPack object; None for anything else.

    Raises:
        UnsupportedInput: `obj` is a bare capsule, which only the native core can validate.
        BufferError: An export that NumPy's importer does not understand.
    """
    if isinstance(obj, np.ndarray):
        return _from_array(obj, obj)
    if type(obj).__name__ == "PyCapsule":
        raise UnsupportedInput(
            "a bare DLPack capsule needs the native core, which validates it; pass the object that "
            "made it"
        )
    if hasattr(type(obj), "__dlpack__"):
        return _from_producer(obj, never_copy)
    return None


def _from_array(array: Array, origin: object) -> Source:
    array = array.view()  # with a shape of its own: another thread may assign the array's
    source = Source(array, origin, shape=array.shape, strides=array.strides)
    source.dtype = _torch.dtypes().get(array.dtype.name)
    if source.dtype is None:
        return source
    size = array.dtype.itemsize
    if array.size and any(
        n > 1 and (s < 0 or s % size) for n, s in zip(array.shape, array.strides, strict=True)
    ):
        source.facts |= Fact.STRIDES
    if array.size and not _is_reachable(array):
        raise BufferError(
            "the ndarray has elements outside the address space; check what as_strided was given"
        )
    if not array.dtype.isnative:
        source.facts |= Fact.BYTE_ORDER
    if array.size and array.ctypes.data % size:
        source.facts |= Fact.ALIGNMENT
    if not array.flags.writeable:
        source.facts |= Fact.READ_ONLY
    return source


def _is_reachable(array: Array) -> bool:
    spans = [(n - 1) * s for n, s in zip(array.shape, array.strides, strict=True)]
    address = array.ctypes.data
    low = address + sum(span for span in spans if span < 0)
    high = address + sum(span for span in spans if span > 0) + array.itemsize
    return bool(low >= 0 and high < 1 << 63)


def _from_producer(obj: Any, never_copy: bool) -> Source | None:
    place = _export.place_of(obj)
    if place is None:
        return None
    capsule = _export.export(obj, place, never_copy, _capsule.is_versioned(place.kind))
    if capsule is None:
        return None
    content = _capsule.Content(capsule)
    facts = Fact.READ_ONLY * _sources.is_immutable(type(obj))
    facts |= Fact.PRODUCER_COPY * bool(content.flags & _capsule.FLAG_IS_COPIED)
    if content.kind == _capsule.CUDA:
        facts |= Fact.READ_ONLY * bool(content.flags & _capsule.FLAG_READ_ONLY)
        facts |= Fact.STRIDES * content.is_reversed
        return Source(None, obj, f"cuda:{content.device}", int(facts), capsule=capsule)
    try:
        exporter: Any = _capsule.Exporter(capsule)
        array = np.from_dlpack(exporter)
    except (RuntimeError, BufferError, ValueError) as error:
        if content.dtype in _capsule.BEYOND_NUMPY:
            return None
        raise BufferError(f"the DLPack tensor is malformed: {error}") from error
    source = _from_array(array, obj)
    if content.legacy:  # says nothing of permission, so NumPy assumes the worst
        source.facts &= ~Fact.READ_ONLY
    source.facts |= facts
    return source


def _element_strides(array: Array, keep: bool) -> tuple[int, ...]:
    """Strides in elements that torch can have; those of the array where `keep` and possible."""
    strides: list[int] = []
    contiguous = 1
    size = array.dtype.itemsize
    for length, stride in zip(reversed(array.shape), reversed(array.strides), strict=True):
        usable = keep and array.size and stride >= 0 and stride % size == 0
        strides.append(stride // size if usable else contiguous)
        contiguous *= max(length, 1)
    return tuple(reversed(strides))


def _is_dense(array: Array) -> bool:
    expected = array.dtype.itemsize
    axes = [(s, n) for s, n in zip(array.strides, array.shape, strict=True) if n > 1]
    for stride, length in sorted(axes):
        if stride != expected:
            return False
        expected *= length
    return True


def _on_memory(array: Array, dtype: torch.dtype, owner: object = None) -> torch.Tensor:
    """A tensor on an array in native byte order; ml_dtypes' elements go over as their bits.

    Keeps the array, and what it was found in.
    """
    if not array.size:
        return _fresh.empty(array.shape, dtype)
    strides = tuple(s * array.dtype.itemsize for s in _element_strides(array, keep=True))
    bits = array if _sources.is_numpys_own(array.dtype) else array.view(f"u{array.dtype.itemsize}")
    tensor: torch.Tensor = torch.from_numpy(np.asarray(_Memory(bits, strides, owner)))
    return tensor if tensor.dtype == dtype else tensor.view(dtype)


def share(source: Source, /) -> torch.Tensor:
    """A tensor on the source's memory."""
    if source.capsule is not None:
        return torch.utils.dlpack.from_dlpack(source.capsule)
    assert source.array is not None
    assert source.dtype is not None
    return _on_memory(source.array, source.dtype, source.origin)


def copy(source: Source, dtype: torch.dtype, /) -> torch.Tensor:
    """A new CPU tensor with the source's elements, cast to `dtype`."""
    assert source.array is not None
    assert source.dtype is not None
    array = source.array
    strides = _element_strides(array, keep=_is_dense(array))
    tensor = _fresh.empty(array.shape, dtype, strides)
    if source.facts & (Fact.STRIDES | Fact.BYTE_ORDER | Fact.ALIGNMENT):
        array = np.array(array, dtype=array.dtype.newbyteorder("="), order="C", subok=False)
    return _torch.fill(tensor, _on_memory(array, source.dtype))


def array(tensor: torch.Tensor, /) -> Array:
    """An ndarray on a plain CPU tensor's memory, which it keeps from being resized.

    Its base is an alias of the tensor that no one else has, so `set_` or ``.data =`` on the tensor
    leaves the array's memory alone.

    Raises:
        BufferError: A mode of torch's makes something else.
    """
    alias = tensor.detach()
    made: Any = alias.numpy()
    if type(made) is not np.ndarray or (made.size and made.ctypes.data != alias.data_ptr()):
        raise BufferError(NO_ARRAY)
    return made


def watch_copies(change: int, /) -> None:
    """Nothing to count here: every copy passes the guard."""


def set_worker_count(count: int, /) -> None:
    """Copies are torch's and NumPy's own here; `torch.set_num_threads` is theirs."""


def worker_count() -> int:
    """As `torch.get_num_threads` says."""
    return torch.get_num_threads()


def pinned_stats() -> dict[str, int]:
    """Nothing is page-locked here but by torch; the keys are those of the native core."""
    amounts = ("allocations", "allocated_bytes", "active_requests", "active_bytes")
    times = ("host_alloc_time", "host_free_time")
    keys = [
        f"{name}.{part}" for name in amounts for part in ("current", "peak", "allocated", "freed")
    ]
    keys += [f"{name}.{part}" for name in times for part in ("total", "max", "min", "count", "avg")]
    return dict.fromkeys([*keys, "num_host_alloc", "num_host_free"], 0)
