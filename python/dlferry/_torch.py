"""The one door to torch: what dlferry asks of it, and nowhere else.

torch is imported on the first call, never by ``import dlferry``.
"""

from __future__ import annotations

import importlib
from contextlib import AbstractContextManager
from types import ModuleType
from typing import TYPE_CHECKING, Any, TypeGuard

from dlferry._errors import DriverUnavailable

if TYPE_CHECKING:
    import torch as torch
else:

    class _LazyModule:
        """torch, imported when it is first used; its classes and modules are kept."""

        _module: Any = None  # to ask for it each time would cost a microsecond

        def __getattr__(self, name: str) -> object:
            if self._module is None:
                self._module = importlib.import_module("torch")
            value = getattr(self._module, name)
            if isinstance(value, (type, ModuleType)):  # functions may be replaced
                setattr(self, name, value)
            return value

    torch = _LazyModule()

DTYPE_NAMES = (
    "bool", "uint8", "int8", "uint16", "int16", "uint32", "int32", "uint64", "int64",
    "float16", "bfloat16", "float32", "float64", "complex32", "complex64", "complex128",
    "float8_e4m3fn", "float8_e4m3fnuz", "float8_e5m2", "float8_e5m2fnuz", "float8_e8m0fnu",
)  # fmt: skip
"""The dtypes of ``csrc/tensor/dtype.cpp``, by torch's names."""


def is_tensor(obj: object) -> TypeGuard[torch.Tensor]:
    """Whether `obj` is a tensor by its type, whatever its ``__class__`` says."""
    return issubclass(type(obj), torch.Tensor)


_dtypes: dict[str, torch.dtype] = {}


def dtypes() -> dict[str, torch.dtype]:
    """The dtypes that dlferry moves and this torch has, by name."""
    if not _dtypes:
        # In one step, or another thread would see a part of it.
        _dtypes.update({name: getattr(torch, name) for name in DTYPE_NAMES if hasattr(torch, name)})
    return _dtypes


def dtype_name(dtype: torch.dtype) -> str:
    """torch's name without the module: ``"float32"``."""
    return str(dtype).removeprefix("torch.")


def from_capsule(capsule: object, dtype: torch.dtype) -> torch.Tensor:
    """A tensor on a legacy capsule's memory, for a torch without the C exchange table.

    Args:
        capsule: One that describes its one-byte elements as uint8, whatever they are: such a torch
            does not import float8.
        dtype: What the elements are.
    """
    tensor: torch.Tensor = torch.utils.dlpack.from_dlpack(capsule)
    return tensor if tensor.dtype == dtype else tensor.view(dtype)


def without_transforms() -> AbstractContextManager[object]:
    """Around what is not for the transforms of torch.func that are under way."""
    functorch = importlib.import_module("torch._functorch.pyfunctorch")
    return functorch.temporarily_clear_interpreter_stack()  # type: ignore[no-any-return]


def device(spec: Any) -> torch.device:
    """A device as torch understands it, with the index of an accelerator filled in.

    Args:
        spec: A `torch.device`, a name such as ``"cuda:1"``, or the index of an accelerator.

    Raises:
        TypeError: `spec` is something else.
        ValueError: torch knows no such device.
        DriverUnavailable: It is a CUDA device, and torch has none.
    """
    if type(spec) is bool or not isinstance(spec, (str, int, torch.device)):
        raise TypeError(
            f"device must be a torch.device, a name such as 'cpu' or an index, not {spec!r}"
        )
    try:
        found = torch.device(spec)
    except RuntimeError as error:
        raise ValueError(f"device={spec!r} is none that torch knows: {error}") from error
    if found.type == "cpu":
        return torch.device("cpu")
    if found.type == "cuda":
        index: int | None = found.index
        require_cuda(index)
        if index is None:
            found = torch.device("cuda", torch.cuda.current_device())
    return found


def uses_cuda() -> bool:
    """Whether torch has used CUDA in this process, and so can; asked in a tenth of the time."""
    cuda: Any = torch.cuda
    return bool(cuda.is_initialized())


def require_cuda(index: int | None = None) -> None:
    """Raise `DriverUnavailable` where torch cannot use CUDA, or a device, with what is missing."""
    if index is None and uses_cuda():
        return
    if torch.cuda._is_in_bad_fork():  # where `is_available` may still say yes
        raise DriverUnavailable(
            "CUDA cannot be used: it does not survive a fork, and this process was forked from one "
            "that had used it; start worker processes with the 'spawn' method, or pass device='cpu'"
        )
    if torch.cuda.is_available():
        if index is None or index < (count := torch.cuda.device_count()):
            return
        raise DriverUnavailable(
            f"there is no cuda:{index}: torch finds {count} CUDA device(s), numbered from 0; see "
            "`nvidia-smi` and CUDA_VISIBLE_DEVICES"
        )
    if torch.version.cuda is None and torch.version.hip is None:
        missing = f"this torch ({torch.__version__}) was built without CUDA; install a CUDA build"
    else:
        missing = "torch finds no CUDA device or driver; see `nvidia-smi` and CUDA_VISIBLE_DEVICES"
    raise DriverUnavailable(f"CUDA cannot be used: {missing}, or pass device='cpu'")


def default_device() -> torch.device:
    """Where torch puts new tensors: what `torch.set_default_device` or a context says."""
    return torch.get_default_device()


def converted(tensor: torch.Tensor, device: torch.device, dtype: torch.dtype) -> torch.Tensor:
    """A copy of `tensor` by torch itself, so that it stays differentiable.

    The real part of complex elements is taken where `dtype` is real, without a warning.

    Raises:
        DriverUnavailable: The process was forked, and one of the two is a CUDA device.
    """
    _refuse_in_fork(tensor, device)
    if tensor.is_complex() and not dtype.is_complex and dtype != torch.bool:
        tensor = tensor.real
    return tensor.to(device=device, dtype=dtype, copy=True)


def moved(tensor: torch.Tensor, device: torch.device, dtype: torch.dtype) -> torch.Tensor:
    """The tensor on a device, by torch itself and differentiable; from the host without waiting."""
    _refuse_in_fork(tensor, device)
    if tensor.is_complex() and not dtype.is_complex and dtype != torch.bool:
        tensor = tensor.real
    return tensor.to(device=device, dtype=dtype, non_blocking=device.type != "cpu")


def _refuse_in_fork(tensor: torch.Tensor, device: torch.device) -> None:
    if "cuda" in (tensor.device.type, device.type) and torch.cuda._is_in_bad_fork():
        require_cuda()


def fill(out: torch.Tensor, source: torch.Tensor) -> torch.Tensor:
    """Copy the elements of `source` into `out`, cast; returns `out`. They may overlap."""
    if source.dtype != out.dtype:  # torch would negate what it has cast
        source = source.resolve_conj().resolve_neg()
    if source.is_complex() and not out.is_complex() and out.dtype != torch.bool:
        source = source.real
    return out.copy_(source.clone() if _overlap(out, source) else source)


def _overlap(one: torch.Tensor, other: torch.Tensor) -> bool:
    """Whether two plain tensors touch a common range of memory, which `copy_` would garble."""
    if one.device != other.device or not (_has_memory(one) and _has_memory(other)):
        return False
    (begin, end), (start, stop) = _extent(one), _extent(other)
    return begin < stop and start < end


def _has_memory(tensor: torch.Tensor) -> bool:
    return tensor.layout == torch.strided and not tensor.is_meta and is_readable(tensor)


def _extent(tensor: torch.Tensor) -> tuple[int, int]:
    """The addresses of the first byte and past the last one."""
    begin = tensor.data_ptr()
    if tensor.numel() == 0:
        return begin, begin
    last = sum((n - 1) * step for n, step in zip(tensor.shape, tensor.stride(), strict=True))
    return begin, begin + (last + 1) * tensor.dtype.itemsize


def wrote(tensor: torch.Tensor) -> None:
    """Tell autograd that the elements of a tensor have changed, or are about to."""
    torch.autograd.graph.increment_version(tensor)


def is_readable(tensor: torch.Tensor) -> bool:
    """Whether the tensor has elements in memory of its own: not fake, functional or batched."""
    if torch._C._functorch.is_functorch_wrapped_tensor(tensor):
        return False
    if torch._is_functional_tensor(tensor):
        return False
    # Subclasses that see every dispatched operation stand for something else: FakeTensor, DTensor.
    return type(tensor).__torch_dispatch__ is torch.Tensor.__torch_dispatch__


def is_strided(tensor: torch.Tensor) -> bool:
    """Whether the tensor is a block of plain elements: not sparse, quantized or nested."""
    return tensor.layout == torch.strided and not (tensor.is_quantized or tensor.is_nested)


def kind(tensor: torch.Tensor) -> str:
    """What sort of tensor this is, for an error: ``"sparse_coo"``, ``"quantized"``, ``"meta"``."""
    if tensor.is_quantized:
        return "quantized"
    if tensor.is_nested:
        return "nested"
    if tensor.is_meta:
        return "meta"
    return str(tensor.layout).removeprefix("torch.")


def collating() -> Any:
    """torch's module that makes batches of samples, with its functions and their table."""
    return importlib.import_module("torch.utils.data._utils.collate")
