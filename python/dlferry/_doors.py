"""What the core calls of torch: for ``csrc/python/doors``, which knows it by these names."""

from __future__ import annotations

from typing import Any

from dlferry import _torch
from dlferry._torch import torch


def names_for_core() -> dict[str, Any]:
    """What the core needs of torch, by the names it looks up."""
    return {
        "Tensor": torch.Tensor,
        "UntypedStorage": torch.UntypedStorage,
        "cpu": torch.device("cpu"),
        "empty_strided": torch.empty_strided,
        "from_capsule": _torch.from_capsule,
        "is_neg": torch.Tensor.is_neg,
        "is_conj": torch.Tensor.is_conj,
        "is_inference": torch.Tensor.is_inference,
        "detach": torch.Tensor.detach,
        "numpy": torch.Tensor.numpy,
        "untyped_storage": torch.Tensor.untyped_storage,
        "resizable": torch.UntypedStorage.resizable,
        "new_empty": torch.Tensor.new_empty,
        "has_function_mode": torch._C._is_torch_function_mode_enabled,
        "dispatch_mode_count": torch._C._len_torch_dispatch_stack,
        "is_tracing": torch._C._is_tracing,
        "get_default_dtype": torch.get_default_dtype,
        "increment_version": torch.autograd.graph.increment_version,
        "forward_ad": torch.autograd.forward_ad,
        "exchange_table": getattr(torch.Tensor, "__dlpack_c_exchange_api__", None),
        "dtypes": _torch.dtypes(),
    }
