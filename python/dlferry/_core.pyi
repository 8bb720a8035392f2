from collections.abc import Callable, Iterable, Sequence
from typing import Any, Literal, final

import numpy as np
import torch
from numpy.typing import DTypeLike
from torch.types import Device

# The public builtins. Documented in `_convert.py`, `_to_numpy.py` and `_stack.py`, whose text they
# show.

def asarray(
    obj: object,
    /,
    *,
    dtype: torch.dtype | None = None,
    device: Device = None,
    copy: bool | None = None,
    requires_grad: bool | None = None,
    readonly: Literal["copy", "share", "error"] = "copy",
) -> torch.Tensor: ...
def from_dlpack(
    x: object,
    /,
    *,
    device: Device = None,
    copy: bool | None = None,
    readonly: Literal["copy", "share", "error"] = "copy",
) -> torch.Tensor: ...
def to_numpy(
    x: object,
    /,
    *,
    dtype: DTypeLike | torch.dtype | None = None,
    copy: bool | None = None,
    out: np.ndarray[Any, Any] | None = None,
) -> np.ndarray[Any, Any]: ...
def stack(
    arrays: Sequence[Any],
    /,
    *,
    dtype: torch.dtype | None = None,
    device: Device = None,
    out: torch.Tensor | None = None,
) -> torch.Tensor: ...

# The mechanisms that the general routes are written on; `_fallback.py` has the same ones.

@final
class Source:
    @property
    def dtype(self) -> torch.dtype | None: ...
    @property
    def device(self) -> str: ...
    @property
    def shape(self) -> tuple[int, ...]: ...
    @property
    def strides(self) -> tuple[int, ...]: ...
    @property
    def facts(self) -> int: ...
    @property
    def origin(self) -> object: ...

def ingest(obj: object, never_copy: bool, /) -> Source | None: ...
def share(source: Source, /) -> torch.Tensor: ...
def copy(source: Source, dtype: torch.dtype, /) -> torch.Tensor: ...
def array(tensor: torch.Tensor, /) -> np.ndarray[Any, Any]: ...
def decide(
    facts: int, copy: bool | None, readonly: str, /
) -> tuple[Literal["share", "copy", "refuse"], int, bool]: ...
def set_worker_count(count: int, /) -> None: ...
def worker_count() -> int: ...
def watch_copies(change: int, /) -> None: ...
def install(
    *,
    torch_names: Callable[[], dict[str, Any]],
    asarray: Callable[..., torch.Tensor],
    from_dlpack: Callable[..., torch.Tensor],
    to_numpy: Callable[..., np.ndarray[Any, Any]],
    is_mapped_file: Callable[[object], bool],
    is_immutable: Callable[[type], bool],
    exported: Callable[[object, bool], object | None],
    stack: Callable[..., torch.Tensor],
    leaf: Callable[[object, torch.dtype | None], torch.Tensor | None],
    promoted: Callable[[Iterable[torch.dtype]], torch.dtype],
    float_limit: Callable[[torch.dtype], float],
    hidden_empty: Callable[
        [tuple[int, ...], tuple[int, ...], torch.dtype | None, torch.device | None], torch.Tensor
    ],
) -> None: ...

# The link to the GPU. `_fallback.py` has `pinned_stats` of it.

INLINE_BYTES: int
ALIGNMENT: int
LITTLE_BYTES: int

@final
class Transfer:
    def done(self) -> bool: ...
    def wait(self, stream: int, /) -> None: ...
    def synchronize(self, timeout: float | None = None, /) -> bool: ...
    def wait_until_read(self) -> None: ...
    def cancel(self) -> bool: ...

@final
class PinnedRange:
    def __init__(
        self, data: int, nbytes: int, read_only: bool, device: int, owner: object, /
    ) -> None: ...

@final
class KnownRange:
    def __init__(self, data: int, nbytes: int, /) -> None: ...

def goes_inline(
    leaves: Iterable[tuple[Source | torch.Tensor, int, torch.dtype, Sequence[int] | None]],
    packed: bool,
    /,
) -> bool: ...
def start_transfer(
    direction: Literal["h2d", "d2h"],
    leaves: Iterable[tuple[Source | torch.Tensor, int, torch.dtype, Sequence[int] | None]],
    *,
    device: int,
    stream: int,
    packed: bool,
    ordered: bool,
    on_stream: bool,
    keep_host: object,
    keep_device: object,
) -> Transfer | None: ...

@final
class Arrays:
    @property
    def shape(self) -> tuple[int, ...]: ...
    @property
    def dtype(self) -> torch.dtype: ...
    @property
    def dtypes(self) -> list[torch.dtype]: ...

def arrays_of(sequence: object, dtype: torch.dtype | None, /) -> Arrays | None: ...
def little_to_device(
    array: object,
    dtype: torch.dtype | None,
    device: int,
    stream: int,
    allocate: Callable[[tuple[int, ...], torch.dtype, int, int], torch.Tensor],
    /,
) -> torch.Tensor | None: ...
def start_stack(
    arrays: Arrays,
    address: int,
    dtype: torch.dtype,
    *,
    device: int,
    stream: int,
    on_stream: bool,
    keep_device: object,
) -> Transfer | None: ...

@final
class Batch:
    @property
    def numbers(self) -> list[int]: ...
    @property
    def dtypes(self) -> list[torch.dtype]: ...
    def place(
        self, wires: dict[torch.dtype, torch.dtype], /
    ) -> tuple[int, list[tuple[int, int, int, tuple[int, ...], torch.dtype, torch.dtype]]]: ...

def batch_of(leaves: list[object], most_bytes: int, /) -> Batch | None: ...
def start_batch(
    batch: Batch,
    address: int,
    *,
    device: int,
    stream: int,
    on_stream: bool,
    keep_device: object,
) -> Transfer | None: ...
def copy_stream(device: int, direction: Literal["h2d", "d2h"], /) -> int: ...
def check_stream(device: int, stream: int, /) -> None: ...
def close_transfers(timeout: float, for_good: bool, /) -> bool: ...
def drop_finished() -> None: ...
def unfinished_count() -> int: ...
def is_pinned(data: int, nbytes: int, /) -> bool: ...
def pinned_stats() -> dict[str, int]: ...
def staging_reason() -> str | None: ...
def install_cuda(
    *,
    cuda_error: type[Exception],
    driver_unavailable: type[Exception],
    cancelled: type[BaseException],
    ordinary_memory: Callable[[str], object],
) -> None: ...
def require_driver() -> None: ...
def relax_captures() -> None: ...
def driver_state(load: bool, /) -> tuple[int | None, str | None]: ...
def set_driver_library(path: str, /) -> None: ...
def set_staging_bytes(count: int, /) -> None: ...
