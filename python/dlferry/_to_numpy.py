"""The general route of `to_numpy`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, cast

import numpy as np

from dlferry import _convert, _guard, _layout, _modes, _move, _sequence, _sources, _torch
from dlferry._errors import UnsupportedInput
from dlferry._native import core
from dlferry._policy import Decision, Fact, Subject, refusal
from dlferry._torch import torch

if TYPE_CHECKING:
    from numpy.typing import DTypeLike

Array = np.ndarray[Any, Any]


def to_numpy(
    x: object,
    /,
    *,
    dtype: DTypeLike | torch.dtype | None = None,
    copy: bool | None = None,
    out: Array | None = None,
) -> Array:
    """Return a tensor as an ndarray, without a copy wherever its memory can be shared.

    A gradient is detached; a tensor on a device is moved to the host; conjugate and negative bits
    are resolved.

    Args:
        x: A tensor of any shape; an ndarray; or anything that `asarray` takes.
        dtype: NumPy's or torch's; by default the tensor's own. bfloat16 and the float8 family
            become arrays of ml_dtypes, where that package is installed.
        copy: ``False`` shares the memory or raises; ``True`` never shares; ``None`` shares where it
            can.
        out: An ndarray of the same shape to write into, cast to its dtype; it is returned.

    Returns:
        An array that owns the tensor's storage, and marks it as not resizable, as `Tensor.numpy`
        does: no later `resize_`, `set_` or ``.data =`` of the tensor can leave it dangling. It can
        be written, and the tensor then changes too.

    Raises:
        CopyRequired: ``copy=False``, and something must be moved, converted or resolved.
        UnsupportedInput: The tensor is sparse, quantized, meta or fake; or NumPy has no such dtype.
        ValueError: `out` has another shape, is read-only, masked, or of elements that share memory;
            or it contradicts `dtype` or `copy`.
        OverflowError: A Python number is outside the dtype.

    Example:
        >>> import torch, dlferry
        >>> dlferry.to_numpy(torch.tensor([1.0, 2.0]))
        array([1., 2.], dtype=float32)
    """
    if copy is not None and not isinstance(copy, bool):
        raise TypeError(f"copy must be True, False or None, not {copy!r}")
    wanted = None if dtype is None else numpy_dtype(dtype)
    if out is not None:
        _check_out(out, wanted, copy)
        return _written(x, out)
    if isinstance(x, np.ndarray):
        return _from_array(x, wanted, copy)
    if _torch.is_tensor(x):
        return from_tensor(x, wanted, copy)
    is_sequence = _sequence.is_sequence(x)
    tensor = _of_numbers(x, wanted, copy) if is_sequence else _convert.asarray(x, copy=copy)
    if is_sequence and wanted is not None and wanted != _own_dtype(tensor.dtype, wanted):
        return from_tensor(tensor, wanted, True)  # the copy of numbers that the caller asked for
    # What `asarray` copied is not copied again.
    return from_tensor(tensor, wanted, None if copy else copy)


def _of_numbers(x: object, wanted: np.dtype[Any] | None, copy: bool | None) -> torch.Tensor:
    """A sequence on the host, at once in the dtype that is wanted where torch has that."""
    dtype = None if wanted is None else _torch.dtypes().get(wanted.name)
    try:
        return _convert.asarray(x, dtype=dtype, device="cpu", copy=copy)
    except TypeError:
        if dtype is None or dtype.is_complex:
            raise
        # Complex numbers, of which NumPy takes the real parts.
        return _convert.asarray(x, dtype=torch.complex128, device="cpu", copy=copy)


def _written(x: object, out: Array) -> Array:
    """`out`, with the elements of `x` cast into it."""
    _modes.refuse_fakes()
    if _torch.is_tensor(x):
        _own_dtype(x.dtype, out.dtype)
        _check_readable(x)
        source = core.ingest(out, False) if type(out) is np.ndarray else None
        tensor = x.detach()
    else:
        source = None
        if _sequence.is_sequence(x):
            tensor = _of_numbers(x, out.dtype, None)
        else:
            tensor = _convert.asarray(x, readonly="share")
    if out.shape != tuple(tensor.shape):
        raise ValueError(f"out has shape {out.shape}, and the input has {tuple(tensor.shape)}")
    if source is not None and source.dtype is not None and not source.facts:
        _move.read_into(core.share(source), tensor)
    else:  # a layout or dtype that no tensor can have
        np.copyto(out, _astype(_readable(tensor), out.dtype))
    return out


def _check_out(out: object, wanted: np.dtype[Any] | None, copy: bool | None) -> None:
    if not isinstance(out, np.ndarray):
        raise TypeError(f"out must be an ndarray, not {type(out).__name__}")
    if copy is False:
        raise ValueError("out= is copied into; leave copy=False out")
    if not out.flags.writeable:
        raise ValueError("out is read-only")
    if np.ma.is_masked(out):
        raise ValueError("out is masked, and would go on hiding what is written; pass out.data")
    if _layout.repeats(out):
        raise ValueError("out has elements that share memory, as from broadcast_to or as_strided")
    if wanted is not None and wanted != out.dtype:
        raise ValueError(f"dtype={wanted} contradicts the dtype {out.dtype} of out")


def _from_array(array: Array, wanted: np.dtype[Any] | None, copy: bool | None) -> Array:
    dtype = array.dtype if wanted is None else wanted
    decision = Decision(*core.decide(int(Fact.DTYPE * (dtype != array.dtype)), copy, "share"))
    subject = Subject("an ndarray", array.dtype, "cpu", wanted_dtype=dtype)
    if decision.action == "refuse":
        raise refusal(decision.reasons, subject)
    _guard.check(decision, subject, array.size * dtype.itemsize)
    if decision.action == "share":
        return array
    return array.astype(dtype) if dtype == array.dtype else _astype(array, dtype)


def _astype(array: Array, dtype: np.dtype[Any]) -> Array:
    """The array in another dtype, cast by NumPy as torch casts: in silence, and by real parts."""
    if array.dtype.kind == "c" and (dtype.kind in "iufmM" or not _sources.is_numpys_own(dtype)):
        array = array.real
    with np.errstate(all="ignore"):
        return array.astype(dtype, copy=False)


def numpy_dtype(dtype: Any) -> np.dtype[Any]:
    """NumPy's dtype of a torch dtype, or of whatever NumPy itself takes for one.

    Raises:
        UnsupportedInput: NumPy lacks it; ml_dtypes' are found where that package is installed.
        TypeError: No dtype at all.
    """
    if not isinstance(dtype, torch.dtype):
        return cast("np.dtype[Any]", np.dtype(dtype))
    name = _torch.dtype_name(dtype)
    if name in _sequence.NUMPY_NAMES:
        return np.dtype(name)
    if name == "bfloat16" or name.startswith("float8_"):
        try:
            import ml_dtypes

            return cast("np.dtype[Any]", np.dtype(getattr(ml_dtypes, name)))
        except (ImportError, AttributeError):
            raise UnsupportedInput(
                f"NumPy has no {name}; install ml_dtypes, or pass dtype=np.float32"
            ) from None
    raise UnsupportedInput(f"NumPy has no dtype like {dtype}; pass dtype= to convert")


def from_tensor(tensor: torch.Tensor, wanted: np.dtype[Any] | None, copy: bool | None) -> Array:
    """An array on the memory of a tensor, or of a copy of it."""
    _check_readable(tensor)
    _modes.refuse_fakes()
    own = _own_dtype(tensor.dtype, wanted)
    dtype = wanted or own
    is_own = own is not None and own == dtype  # to NumPy, None is a dtype: float64
    facts = Fact.DTYPE * (not is_own) | Fact.DEVICE * (tensor.device.type != "cpu")
    facts |= Fact.CONJUGATE * tensor.is_conj() | Fact.NEGATIVE * tensor.is_neg()
    decision = Decision(*core.decide(int(facts), copy, "share"))
    subject = Subject(
        "a tensor", tensor.dtype, str(tensor.device), wanted_dtype=dtype, wanted_device="cpu"
    )
    if decision.action == "refuse":
        raise refusal(decision.reasons, subject)
    _guard.check(decision, subject, tensor.numel() * cast("np.dtype[Any]", dtype).itemsize)
    host = tensor.detach()
    if host._is_zerotensor():  # which has no memory
        if copy is False:
            raise UnsupportedInput(
                "a ZeroTensor has no memory to share; let it be copied with copy=None or True"
            )
        host = torch.zeros_like(host, memory_format=torch.contiguous_format)
    if host.device.type != "cpu":
        host = _move.moved(host, torch.device("cpu"), host.dtype)
    host = host.resolve_conj().resolve_neg()
    if decision.action == "copy" and is_own and host.data_ptr() == tensor.data_ptr():
        host = host.clone()
    return _cast(host, own, dtype)


def _own_dtype(dtype: torch.dtype, wanted: np.dtype[Any] | None) -> np.dtype[Any] | None:
    """NumPy's dtype of the tensor; None where NumPy has none and another one is wanted."""
    try:
        return numpy_dtype(dtype)
    except UnsupportedInput:
        if wanted is None:
            raise
        return None


def _cast(host: torch.Tensor, own: np.dtype[Any] | None, dtype: Any) -> Array:
    """A plain CPU tensor as an array of `dtype`."""
    if own is not None and own == dtype:
        return _array(host, dtype)
    target = _torch.dtypes().get(dtype.name)
    if target is not None:
        array = _array(_torch.converted(host, host.device, target), dtype.newbyteorder("="))
    else:
        array = _readable(host)
    return _astype(array, dtype)


def _readable(tensor: torch.Tensor) -> Array:
    """An array with the elements, to be read by NumPy: of a dtype of its own, and as they are."""
    if _torch.dtype_name(tensor.dtype) not in _sequence.NUMPY_NAMES:
        widest = torch.complex128 if tensor.is_complex() else torch.float64
        tensor = _torch.converted(tensor, tensor.device, widest)
    return from_tensor(tensor, None, True)


def _array(host: torch.Tensor, dtype: np.dtype[Any] | None) -> Array:
    """The array on a tensor's memory; elements that are ml_dtypes' go over as their bits."""
    if dtype is None or _sources.is_numpys_own(dtype):
        return core.array(host)
    bits = {1: torch.uint8, 2: torch.uint16}[dtype.itemsize]
    return core.array(host.view(bits)).view(dtype)


def _check_readable(tensor: torch.Tensor) -> None:
    if not _torch.is_strided(tensor) or tensor.is_meta:
        raise UnsupportedInput(
            f"a {_torch.kind(tensor)} tensor has no elements that an array could show; pass a "
            "dense one, as from tensor.to_dense() or tensor.dequantize()"
        )
    if not _torch.is_readable(tensor):
        raise UnsupportedInput(
            f"a {type(tensor).__name__} that wraps another tensor (fake, functional or batched) "
            "has no memory of its own; pass the tensor inside"
        )
