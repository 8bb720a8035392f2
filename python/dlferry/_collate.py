"""`collate`: samples -> a batch, as torch's `default_collate` makes it, stacked by dlferry.

torch walks through the containers; the functions for what lies in them are ours.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from dlferry import _convert, _stacked, _torch
from dlferry._native import NATIVE, core
from dlferry._stacked import REFUSALS
from dlferry._torch import torch

if TYPE_CHECKING:
    Function = Callable[..., Any]
    Functions = Mapping[Any, Function]

_asarray = core.asarray if NATIVE else _convert.asarray

PLAIN = frozenset({bool, int, float})


def collate(samples: Sequence[Any]) -> Any:
    """Make a batch of samples: a ``collate_fn`` for `torch.utils.data.DataLoader`.

    The result is what `torch.utils.data.default_collate` gives, in the same containers: a mapping
    of batches for mappings, a list for tuples and lists, a named tuple for named tuples; tensors
    and ndarrays gain a leading axis; floats become float64, ints int64 and bools bool; strings and
    bytes stay as they are. Functions that you put into torch's ``default_collate_fn_map`` are used.
    Arrays are stacked in one pass over their memory, without a tensor for each, by several threads
    where the batch is large.

    It differs from `default_collate` in that

    * arrays of any layout are taken: negative strides, foreign byte orders, misaligned and
      read-only ones (without a warning), and the dtypes of ml_dtypes;
    * uint16, uint32 and uint64 are promoted with other dtypes, as NumPy promotes them, and NumPy
      scalars may be uint64 or of several dtypes;
    * arrays and tensors of several dtypes are promoted in the workers of a DataLoader as they are
      elsewhere;
    * a masked array with a masked element is refused, since a batch has no mask;
    * stacks of ndarrays are always contiguous, and on the CPU whatever torch's default device is.

    Args:
        samples: One element for each sample, all of the same structure and the same shapes.

    Returns:
        The batch, on memory of its own. In a worker of a DataLoader, stacks lie in shared memory,
        so that they reach the main process without another copy, and one thread makes them. CUDA
        is not touched.

    Raises:
        RuntimeError: Arrays or sequences of different sizes; sparse or nested tensors.
        TypeError: A sample holds something else than arrays, numbers, strings and containers.
        ValueError: A Python integer is beyond int64.
        KeyError: A mapping lacks a key of the first one.
        IndexError: There are no samples.

    Example:
        >>> import numpy as np, dlferry
        >>> samples = [{"image": np.zeros((3, 8, 8), np.uint8), "label": i} for i in range(4)]
        >>> batch = dlferry.collate(samples)
        >>> batch["image"].shape, batch["label"]
        (torch.Size([4, 3, 8, 8]), tensor([0, 1, 2, 3]))
    """
    torchs = _torch.collating()
    ours = _own_functions()
    functions = {
        kind: ours.get(id(function), function)
        for kind, function in torchs.default_collate_fn_map.items()
    }
    return torchs.collate(samples, collate_fn_map=functions)


@functools.cache
def _own_functions() -> dict[int, Function]:
    """Ours, by the identity of the functions of torch's that they stand in for."""
    torchs = _torch.collating()
    ours = {
        torchs.collate_tensor_fn: _tensors,
        torchs.collate_numpy_array_fn: _arrays,
        torchs.collate_numpy_scalar_fn: _scalars,
        torchs.collate_float_fn: _floats,
        torchs.collate_int_fn: _integers,
    }
    return {id(theirs): own for theirs, own in ours.items()}


def _tensors(batch: Sequence[Any], *, collate_fn_map: Functions) -> torch.Tensor:
    if {*map(type, batch)} == {torch.Tensor}:  # subclasses have their own idea of a stack
        stacked = _stacked.of_tensors(batch)
        if stacked is not None:
            return stacked
    made: torch.Tensor = _torch.collating().collate_tensor_fn(batch, collate_fn_map=collate_fn_map)
    return made


def _arrays(batch: Sequence[Any], *, collate_fn_map: Functions) -> Any:
    kinds = {*map(type, batch)}
    if collate_fn_map.get(torch.Tensor) is _tensors and all(
        issubclass(kind, np.ndarray) for kind in kinds
    ):
        stacked = _stacked.of_arrays(batch)
        if stacked is not None:
            return stacked
    torchs = _torch.collating()
    if batch[0].dtype.kind in "SUO":
        return torchs.collate_numpy_array_fn(batch, collate_fn_map=collate_fn_map)  # which refuses
    tensors = [
        _asarray(sample, readonly="share")
        if isinstance(sample, np.ndarray)
        else torch.as_tensor(sample)
        for sample in batch
    ]
    return torchs.collate(tensors, collate_fn_map=collate_fn_map)


def _scalars(batch: Sequence[Any], *, collate_fn_map: Functions) -> torch.Tensor:
    theirs = functools.partial(
        _torch.collating().collate_numpy_scalar_fn, collate_fn_map=collate_fn_map
    )
    # Whichever is faster has the first word; torch does not promote scalars of several dtypes.
    first, second = (_asarray, theirs) if NATIVE else (theirs, _asarray)
    try:
        made: torch.Tensor = first(batch)
    except REFUSALS:
        made = second(batch)
    return made


def _floats(batch: Sequence[Any], *, collate_fn_map: Functions) -> torch.Tensor:
    made = _of_numbers(batch, torch.float64)
    if made is None:
        made = _torch.collating().collate_float_fn(batch, collate_fn_map=collate_fn_map)
    return made


def _integers(batch: Sequence[Any], *, collate_fn_map: Functions) -> torch.Tensor:
    made = _of_numbers(batch, None)
    if made is None:
        made = _torch.collating().collate_int_fn(batch, collate_fn_map=collate_fn_map)
    return made


def _is_real(sample: object) -> bool:
    if isinstance(sample, (np.ndarray, np.generic)):
        return sample.dtype.kind in "biuf"
    return type(sample) in PLAIN


def _of_numbers(batch: Sequence[Any], dtype: torch.dtype | None) -> torch.Tensor | None:
    """Real numbers of Python and NumPy; None where torch has to say what is wrong, or else."""
    is_plain = PLAIN.issuperset(map(type, batch))
    if is_plain and not NATIVE:
        return None  # without the core, torch is the faster one
    if not is_plain and not all(map(_is_real, batch)):
        return None
    try:
        return _asarray(batch, dtype=dtype)
    except REFUSALS:
        return None
