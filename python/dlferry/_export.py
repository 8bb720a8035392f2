"""Asking an object for its memory through DLPack, so that the work on it comes before ours.

A producer is told a stream, and has that stream wait for what it has queued on the memory. Which
stream that is gets decided here, for both cores; the native one asks by itself for memory of types
that it knows from the host.
"""

from __future__ import annotations

import operator
from typing import Any, NamedTuple

from dlferry import _torch, _torch_cuda
from dlferry._errors import CudaError

CPU, CUDA, CUDA_HOST, CUDA_MANAGED = 1, 2, 3, 13
"""DLPack's numbers of devices."""

LEGACY_STREAM = 1
"""How DLPack writes the null stream; 0 it forbids. No stream at all means this one, too."""

STREAM_CAPTURE_UNSUPPORTED = 900


class Place(NamedTuple):
    """Where memory is, as its producer says."""

    kind: int
    device: int
    """Its number; without a meaning for memory that the host may read."""


def place_of(obj: Any) -> Place | None:
    """Where the memory of `obj` is; on the CPU where it does not say, and None when it declines.

    Raises:
        BufferError: What it says is malformed.
    """
    if not hasattr(type(obj), "__dlpack_device__"):
        return Place(CPU, 0)
    try:
        answer = obj.__dlpack_device__()
    except Exception as error:
        if _declines(error):
            return None
        raise
    try:
        kind, device = answer
        return Place(operator.index(kind), operator.index(device))
    except (TypeError, ValueError) as error:
        raise BufferError(
            f"{type(obj).__name__}.__dlpack_device__ returned {answer!r}, not a pair of numbers"
        ) from error


def exported(obj: object, never_copy: bool) -> object | None:
    """What `export` gives, wherever the memory is; for the native core."""
    place = place_of(obj)
    return None if place is None else export(obj, place, never_copy)


def export(obj: Any, place: Place, never_copy: bool, versioned: bool = True) -> object | None:
    """The capsule of `obj`, ordered after its work; None when it declines to export.

    Memory of a device is for the current stream. Memory that the host reads is ready to be read.

    Raises:
        DriverUnavailable: It is on a CUDA device, and torch cannot use that.
        CudaError: The host would have to wait, and the current stream is being captured.
    """
    keywords: dict[str, Any] = {"max_version": (1, 3)} if versioned else {}
    if never_copy:
        keywords["copy"] = False
    if place.kind == CUDA:
        return _for_device(obj, place.device, keywords)
    if place.kind in (CUDA_HOST, CUDA_MANAGED) and _torch_cuda.is_available():
        return _for_host(obj, place, keywords)
    return _asked(obj, keywords)[0]


def _for_device(obj: object, device: int, keywords: dict[str, Any]) -> object | None:
    _torch.require_cuda(device)
    current = _torch_cuda.current_stream(device) or LEGACY_STREAM
    capsule, was_told = _asked(obj, keywords, current)
    if not was_told:
        _torch_cuda.follow(device, current, LEGACY_STREAM)
    return capsule


def _for_host(obj: object, place: Place, keywords: dict[str, Any]) -> object | None:
    """In the standard a stream waits for the producer, and no host: so it waits for a stream.

    For one without work: the current one would take as long as whatever is queued on it. Its
    device does not matter, as DLPack gives this memory none, and streams wait for each other across
    devices. Whoever asks without a stream and reads at once, as NumPy does, may come too early.
    Producers of page-locked memory that refuse a stream, as torch does, have no work on it. For
    those of managed memory that is the null stream, as for every one that is not told a stream.
    """
    device = _torch_cuda.current_device()
    if _torch_cuda.is_capturing():
        raise CudaError(
            "The current stream is being captured into a graph, and meanwhile the host cannot wait "
            f"for the work on the memory of a {type(obj).__name__}: convert it before the capture",
            "cuStreamIsCapturing",
            STREAM_CAPTURE_UNSUPPORTED,
        )
    stream = _torch_cuda.idle_stream(device)
    try:
        capsule, was_told = _asked(obj, keywords, stream)
    except Exception:  # noqa: BLE001  # because of the stream, or it comes again
        capsule, was_told = None, False
    if capsule is None:
        capsule, was_told = _asked(obj, keywords)
    if capsule is not None and (was_told or place.kind == CUDA_MANAGED):
        _torch_cuda.synchronize(device, stream if was_told else LEGACY_STREAM)
    return capsule


def _asked(
    obj: Any, keywords: dict[str, Any], stream: int | None = None
) -> tuple[object | None, bool]:
    """The capsule or None, by the keywords of DLPack 1, then those of its time before that.

    Also whether the producer was told the stream.
    """
    told = {} if stream is None else {"stream": stream}
    for attempt in (keywords | told, told, {}):
        try:
            capsule = obj.__dlpack__(**attempt)
        except Exception as error:
            if attempt and type(error) is TypeError:
                continue  # about the call, it seems
            if _declines(error):
                break
            raise
        if capsule is None:
            raise BufferError(f"{type(obj).__name__}.__dlpack__ returned None, not a capsule")
        return capsule, "stream" in attempt
    return None, True


def _declines(error: Exception) -> bool:
    """Whether a producer says "not like this".

    By one of the two classes that the protocol names, by a TypeError of its own, or as XLA says
    that something is not supported.
    """
    if isinstance(error, (BufferError, NotImplementedError)):
        return True
    if type(error) in (TypeError, RuntimeError):
        return False
    is_xlas = isinstance(error, RuntimeError) and str(error).startswith("UNIMPLEMENTED:")
    return is_xlas or isinstance(error, TypeError)
