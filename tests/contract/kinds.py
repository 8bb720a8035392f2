"""The dtypes of the contract's table."""

from __future__ import annotations

import importlib.util
import warnings
from typing import Any

import numpy as np
import torch

# NumPy's own dtypes with a torch dtype of the same bits.
NUMPY_TO_TORCH: dict[Any, torch.dtype] = {
    np.bool_: torch.bool,
    np.int8: torch.int8,
    np.int16: torch.int16,
    np.int32: torch.int32,
    np.int64: torch.int64,
    np.uint8: torch.uint8,
    np.uint16: torch.uint16,
    np.uint32: torch.uint32,
    np.uint64: torch.uint64,
    np.float16: torch.float16,
    np.float32: torch.float32,
    np.float64: torch.float64,
    np.complex64: torch.complex64,
    np.complex128: torch.complex128,
}

# The same for the ml_dtypes package, which `make test` has, and the Python of `make test-gpu` may
# lack.
ML_TO_TORCH: dict[Any, torch.dtype] = {}
if importlib.util.find_spec("ml_dtypes"):
    import ml_dtypes

    ML_TO_TORCH = {
        ml_dtypes.bfloat16: torch.bfloat16,
        ml_dtypes.float8_e4m3fn: torch.float8_e4m3fn,
        ml_dtypes.float8_e4m3fnuz: torch.float8_e4m3fnuz,
        ml_dtypes.float8_e5m2: torch.float8_e5m2,
        ml_dtypes.float8_e5m2fnuz: torch.float8_e5m2fnuz,
        ml_dtypes.float8_e8m0fnu: torch.float8_e8m0fnu,
    }

ALL_TO_TORCH: dict[Any, torch.dtype] = {**NUMPY_TO_TORCH, **ML_TO_TORCH}
TORCH_DTYPES: list[torch.dtype] = list(ALL_TO_TORCH.values())
FOREIGN_ORDER = [
    np.int16, np.int32, np.int64, np.uint16, np.uint32, np.uint64,
    np.float16, np.float32, np.float64, np.complex64, np.complex128,
]  # fmt: skip


def name(kind: Any) -> str:
    """A short parameter id for a NumPy type or a torch dtype."""
    return str(kind).removeprefix("torch.") if isinstance(kind, torch.dtype) else kind.__name__


def sample(kind: Any, shape: tuple[int, ...] = (3, 4)) -> np.ndarray[Any, Any]:
    """Distinct-looking values which every dtype of the table holds exactly: powers of two."""
    size = int(np.prod(shape))
    values = np.array([1, 2, 4, 8], np.float64)[np.arange(size) % 4].reshape(shape)
    return values.astype(kind)


def reference(array: np.ndarray[Any, Any]) -> torch.Tensor:
    """A tensor with the array's values, made without the library under test."""
    native = np.array(array, dtype=array.dtype.newbyteorder("="), order="C", copy=True)
    dtype = ALL_TO_TORCH[native.dtype.type]
    flat = torch.frombuffer(bytearray(native.tobytes()), dtype=dtype) if native.size else None
    return torch.empty(native.shape, dtype=dtype) if flat is None else flat.reshape(native.shape)


def quantized() -> torch.Tensor:
    """A quantized tensor, made without torch's note that they are going away."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return torch._make_per_tensor_quantized_tensor(torch.ones(3, dtype=torch.int8), 0.5, 0)


def cast(t: torch.Tensor, dtype: torch.dtype) -> torch.Tensor:
    """torch's own cast, without its warning about imaginary parts."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return t.to(dtype)
