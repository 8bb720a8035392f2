"""asarray of tensors: identity, clones, casts, gradients, and the kinds of CPU tensor."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from kinds import ML_TO_TORCH, TORCH_DTYPES, cast, name, quantized
from regions import assert_fresh, assert_same_values, overlaps, same_memory

import dlferry


class Tagged(torch.Tensor):
    """A plain subclass."""


def conj() -> torch.Tensor:
    return torch.tensor([1 + 2j, 3 - 4j]).conj()


def negated() -> torch.Tensor:
    t = torch.tensor([1 + 2j, 3 - 4j]).conj().imag
    assert t.is_neg()
    return t


DENSE_TENSORS: dict[str, Any] = {
    "plain": lambda: torch.arange(6.0).reshape(2, 3),
    "scalar": lambda: torch.tensor(3.5),
    "empty": lambda: torch.empty(0, 3),
    "leaf": lambda: torch.ones(2, 3, requires_grad=True),
    "non-leaf": lambda: torch.ones(2, 3, requires_grad=True) * 2,
    "parameter": lambda: torch.nn.Parameter(torch.ones(2, 3)),
    "frozen parameter": lambda: torch.nn.Parameter(torch.ones(2, 3), requires_grad=False),
    "subclass": lambda: torch.arange(6.0).as_subclass(Tagged),
    "conj": conj,
    "negated": negated,
    "both bits": lambda: torch._neg_view(conj()),
    "expanded": lambda: torch.arange(3.0).expand(4, 3),
    "transposed": lambda: torch.arange(6.0).reshape(2, 3).t(),
    "sliced": lambda: torch.arange(24.0).reshape(4, 6)[1:, ::2],
    "offset": lambda: torch.arange(6.0)[2:],
    "channels last": lambda: torch.rand(2, 3, 4, 5).to(memory_format=torch.channels_last),
    "bfloat16": lambda: torch.ones(3, dtype=torch.bfloat16),
    "complex32": lambda: cast(torch.ones(3), torch.complex32),
    "uint64": lambda: torch.tensor([2**64 - 1], dtype=torch.uint64),
    "inference": lambda: torch.inference_mode()(lambda: torch.ones(3))(),
}
OTHER_TENSORS: dict[str, Any] = {
    "sparse": lambda: torch.eye(3).to_sparse(),
    "meta": lambda: torch.empty(2, 3, device="meta"),
    "quantized": quantized,
}


@pytest.fixture(params=DENSE_TENSORS)
def dense(request: pytest.FixtureRequest, rng: Any) -> torch.Tensor:
    return DENSE_TENSORS[request.param]()


@pytest.mark.parametrize("copy", [None, False])
@pytest.mark.parametrize("device", [None, "cpu", "cpu:0", torch.device("cpu", 0)])
def test_same_dtype_and_device_is_the_same_object(
    dense: torch.Tensor, copy: bool | None, device: Any
) -> None:
    assert dlferry.asarray(dense, copy=copy, device=device) is dense
    assert dlferry.asarray(dense, copy=copy, device=device, dtype=dense.dtype) is dense


@pytest.mark.parametrize("kind", OTHER_TENSORS)
@pytest.mark.parametrize("copy", [None, False])
def test_tensors_without_plain_memory_pass_through(kind: str, copy: bool | None) -> None:
    t = OTHER_TENSORS[kind]()
    assert dlferry.asarray(t, copy=copy) is t
    assert dlferry.asarray(t, dtype=t.dtype, device=t.device, copy=copy) is t


@pytest.mark.parametrize("kind", OTHER_TENSORS)
def test_tensors_without_plain_memory_are_copied_by_torch(kind: str) -> None:
    t = OTHER_TENSORS[kind]()
    result = dlferry.asarray(t, copy=True)
    assert result is not t
    assert (result.layout, result.device, result.dtype) == (t.layout, t.device, t.dtype)
    assert result.shape == t.shape


def test_a_copy_is_a_clone(dense: torch.Tensor) -> None:
    before = dense.requires_grad
    result = dlferry.asarray(dense, copy=True)
    assert result is not dense
    assert isinstance(result, torch.Tensor)
    assert_fresh(result, dense)
    assert_same_values(result, dense)
    assert result.requires_grad == dense.requires_grad == before


@pytest.mark.parametrize("kind", ["transposed", "channels last", "plain"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_a_copy_keeps_the_strides_of_a_dense_source(kind: str, dtype: torch.dtype) -> None:
    t = DENSE_TENSORS[kind]()
    assert dlferry.asarray(t, dtype=dtype, copy=True).stride() == t.stride()


@pytest.mark.parametrize("kind", ["sliced", "offset"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_a_copy_of_a_sparse_grid_is_contiguous(kind: str, dtype: torch.dtype) -> None:
    t = DENSE_TENSORS[kind]()
    assert dlferry.asarray(t, dtype=dtype, copy=True).is_contiguous()


@pytest.mark.parametrize("source", TORCH_DTYPES, ids=name)
@pytest.mark.parametrize("target", TORCH_DTYPES, ids=name)
def test_casts_are_torchs(source: torch.dtype, target: torch.dtype) -> None:
    t = cast(torch.tensor([[1.0, 2.0], [4.0, 8.0]]), source)
    result = dlferry.asarray(t, dtype=target)
    assert_same_values(result, cast(t, target))
    assert (result is t) == (source == target)


@pytest.mark.parametrize("kind", ["conj", "negated", "both bits"])
def test_casts_see_the_lazy_bits(kind: str) -> None:
    t = DENSE_TENSORS[kind]()
    wide = torch.complex128 if t.is_complex() else torch.float64
    result = dlferry.asarray(t, dtype=wide)
    assert_fresh(result, t)
    assert torch.equal(result, t.to(wide))


# --- gradients ---


@pytest.mark.parametrize(
    "request_", [{"copy": True}, {"dtype": torch.float64}, {"dtype": torch.complex64}]
)
@pytest.mark.parametrize("leaf", [True, False])
def test_copies_and_casts_stay_differentiable(request_: dict[str, Any], leaf: bool) -> None:
    x = torch.tensor([1.0, 2.0, 3.0], requires_grad=True)
    y = dlferry.asarray(x if leaf else x * 3, **request_)
    assert y.requires_grad and y.grad_fn is not None
    (y * y.conj()).real.sum().backward()
    assert torch.equal(x.grad, 2 * x.detach() * (1 if leaf else 9))


@pytest.mark.parametrize("copy", [None, False, True])
def test_requires_grad_false_detaches_the_result_only(copy: bool | None) -> None:
    x = torch.ones(3, requires_grad=True)
    for source in (x, x * 2, torch.nn.Parameter(torch.ones(3))):
        result = dlferry.asarray(source, copy=copy, requires_grad=False)
        assert not result.requires_grad and result.grad_fn is None
        assert source.requires_grad
        assert same_memory(result, source) == (copy is not True)


@pytest.mark.parametrize("copy", [None, False, True])
def test_requires_grad_true_marks_the_result_only(copy: bool | None) -> None:
    t = torch.ones(3)
    result = dlferry.asarray(t, copy=copy, requires_grad=True)
    assert result.requires_grad and not t.requires_grad
    assert overlaps(result, t) == (copy is not True)
    result.sum().backward()
    assert torch.equal(result.grad, torch.ones(3)) and t.grad is None


def test_requires_grad_that_already_holds_changes_nothing() -> None:
    x = torch.ones(3, requires_grad=True)
    y = x * 2
    t = torch.ones(3)
    assert dlferry.asarray(x, requires_grad=True) is x
    assert dlferry.asarray(y, requires_grad=True) is y
    assert dlferry.asarray(t, requires_grad=False) is t


def test_requires_grad_with_a_cast() -> None:
    t = torch.arange(3)
    result = dlferry.asarray(t, dtype=torch.float32, requires_grad=True)
    assert result.requires_grad and result.is_leaf
    x = torch.ones(3, requires_grad=True)
    assert not dlferry.asarray(x, dtype=torch.float64, requires_grad=False).requires_grad
    assert x.requires_grad


@pytest.mark.parametrize("source", [torch.arange(3), [1, 2], 3, torch.arange(3).numpy()])
def test_whole_numbers_cannot_require_grad(source: Any) -> None:
    with pytest.raises((ValueError, RuntimeError), match="floating point"):
        dlferry.asarray(source, requires_grad=True)


def test_no_grad_mode_is_respected() -> None:
    x = torch.ones(3, requires_grad=True)
    with torch.no_grad():
        assert dlferry.asarray(x) is x
        assert dlferry.asarray(x, dtype=torch.float64).grad_fn is None


def test_a_result_shares_the_version_counter_of_its_source() -> None:
    """In-place writes through a detached result are seen by autograd's own check."""
    w = torch.ones(3, requires_grad=True)
    x = torch.ones(3)
    loss = (w * x).sum()
    dlferry.asarray(x, requires_grad=True).detach().add_(1)
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        loss.backward()


# --- devices that only torch knows ---


def test_other_devices_go_through_torch() -> None:
    t = torch.ones(2, 3)
    result = dlferry.asarray(t, device="meta")
    assert result.device.type == "meta" and result.shape == t.shape and result.dtype == t.dtype
    wide = dlferry.asarray(t, device="meta", dtype=torch.float64)
    assert wide.device.type == "meta" and wide.dtype == torch.float64


def test_the_default_device_does_not_move_tensors() -> None:
    t = torch.ones(3)
    torch.set_default_device("meta")
    assert dlferry.asarray(t) is t
    assert dlferry.asarray(t, copy=True).device.type == "cpu"
    assert dlferry.asarray(t, dtype=torch.float64).device.type == "cpu"
    assert dlferry.asarray(t, requires_grad=True).device.type == "cpu"


@pytest.mark.parametrize("dtype", list(ML_TO_TORCH.values()), ids=name)
def test_eight_and_sixteen_bit_floats_are_copied_bit_for_bit(dtype: torch.dtype) -> None:
    raw = torch.arange(256, dtype=torch.uint8).view(dtype)
    result = dlferry.asarray(raw, copy=True)
    assert torch.equal(result.view(torch.uint8), torch.arange(256, dtype=torch.uint8))
    assert_fresh(result, raw)
