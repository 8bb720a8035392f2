"""The one door to torch: what dlferry asks of it, and nowhere else.

torch is imported on the first call, never by ``import dlferry``.
"""

from __future__ import annotations

import functools
from typing import TYPE_CHECKING, Any, TypeGuard, cast

from dlferry._errors import DriverUnavailable

if TYPE_CHECKING:
    import torch

DTYPE_NAMES = (
    "bool", "uint8", "int8", "uint16", "int16", "uint32", "int32", "uint64", "int64",
    "float16", "bfloat16", "float32", "float64", "complex32", "complex64", "complex128",
    "float8_e4m3fn", "float8_e4m3fnuz", "float8_e5m2", "float8_e5m2fnuz", "float8_e8m0fnu",
)  # fmt: skip
"""The dtypes of ``csrc/tensor/dtype.cpp``, by torch's names."""


@functools.cache
def module() -> Any:
    """The torch module itself, imported on the first call."""
    import torch

    return torch


def is_tensor(obj: object) -> TypeGuard[torch.Tensor]:
    """Whether `obj` is a tensor by its type, whatever its ``__class__`` says."""
    return issubclass(type(obj), module().Tensor)


@functools.cache
def dtypes() -> dict[str, torch.dtype]:
    """The dtypes that dlferry moves and this torch has, by name."""
    torch = module()
    return {name: getattr(torch, name) for name in DTYPE_NAMES if hasattr(torch, name)}


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
    tensor: torch.Tensor = module().utils.dlpack.from_dlpack(capsule)
    return tensor if tensor.dtype == dtype else tensor.view(dtype)


def names_for_core() -> dict[str, Any]:
    """What the core needs of torch, by the names it looks up."""
    torch = module()
    return {
        "Tensor": torch.Tensor,
        "cpu": torch.device("cpu"),
        "empty_strided": torch.empty_strided,
        "from_capsule": from_capsule,
        "exchange_table": getattr(torch.Tensor, "__dlpack_c_exchange_api__", None),
        "dtypes": dtypes(),
    }


def device(spec: object) -> torch.device:
    """A device as torch understands it, with the index of an accelerator filled in.

    Args:
        spec: A `torch.device`, a name such as ``"cuda:1"``, or the index of an accelerator.

    Raises:
        TypeError: `spec` is something else.
        ValueError: torch knows no such device.
        DriverUnavailable: It is a CUDA device, and torch has none.
    """
    torch = module()
    if isinstance(spec, bool) or not isinstance(spec, (str, int, torch.device)):
        raise TypeError(
            f"device must be a torch.device, a name such as 'cpu' or an index, not {spec!r}"
        )
    try:
        found = torch.device(spec)
    except RuntimeError as error:
        raise ValueError(f"device={spec!r} is none that torch knows: {error}") from error
    if found.type == "cpu":
        return cast("torch.device", torch.device("cpu"))
    if found.type == "cuda":
        require_cuda()
        if found.index is None:
            found = torch.device("cuda", torch.cuda.current_device())
    return cast("torch.device", found)


def require_cuda() -> None:
    """Raise `DriverUnavailable` where torch cannot use CUDA, with what is missing."""
    torch = module()
    if torch.cuda.is_available():
        return
    if not torch.backends.cuda.is_built():
        missing = f"this torch ({torch.__version__}) was built without CUDA; install a CUDA build"
    else:
        missing = "torch finds no CUDA device or driver; see `nvidia-smi` and CUDA_VISIBLE_DEVICES"
    raise DriverUnavailable(f"CUDA cannot be used: {missing}, or pass device='cpu'")


def default_device() -> torch.device:
    """Where torch puts new tensors: what `torch.set_default_device` or a context says."""
    return cast("torch.device", module().get_default_device())


def converted(tensor: torch.Tensor, device: torch.device, dtype: torch.dtype) -> torch.Tensor:
    """A copy of `tensor` by torch itself, so that it stays differentiable.

    The real part of complex elements is taken where `dtype` is real, without a warning.
    """
    if tensor.is_complex() and not dtype.is_complex and dtype != module().bool:
        tensor = tensor.real
    return tensor.to(device=device, dtype=dtype, copy=True)


def fill(out: torch.Tensor, source: torch.Tensor) -> torch.Tensor:
    """Copy the elements of `source` into `out`, cast; returns `out`."""
    if source.is_complex() and not out.is_complex() and out.dtype != module().bool:
        source = source.real
    return out.copy_(source)


def from_device_array(obj: object) -> torch.Tensor:
    """A tensor on the memory of a DLPack object that lives on a CUDA device, by torch's importer.

    Raises:
        DriverUnavailable: torch cannot use CUDA.
    """
    require_cuda()
    return cast("torch.Tensor", module().from_dlpack(obj))


def is_readable(tensor: torch.Tensor) -> bool:
    """Whether the tensor has elements in memory of its own: not fake, functional or batched."""
    torch = module()
    if torch._C._functorch.is_functorch_wrapped_tensor(tensor):
        return False
    if torch._is_functional_tensor(tensor):
        return False
    # Subclasses that see every dispatched operation stand for something else: FakeTensor, DTensor.
    return type(tensor).__torch_dispatch__ is torch.Tensor.__torch_dispatch__


def kind(tensor: torch.Tensor) -> str:
    """What sort of tensor this is, for an error: ``"sparse_coo"``, ``"quantized"``, ``"meta"``."""
    if tensor.is_quantized:
        return "quantized"
    if tensor.is_meta:
        return "meta"
    return str(tensor.layout).removeprefix("torch.")
