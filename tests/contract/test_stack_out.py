"""stack(out=): an existing tensor is written, whole or not at all."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

import dlferry


def arrays() -> list[Any]:
    return [np.arange(6, dtype=np.float32).reshape(2, 3) + i for i in range(4)]


@pytest.mark.parametrize("dtype", [None, torch.float32])
@pytest.mark.parametrize("device", [None, "cpu", torch.device("cpu")])
@pytest.mark.parametrize("wrap", [np.asarray, torch.from_numpy, np.ndarray.tolist])
def test_out_is_written_and_returned(dtype: Any, device: Any, wrap: Any) -> None:
    out = torch.full((4, 2, 3), -1.0)
    parts = [wrap(a) for a in arrays()]
    assert dlferry.stack(parts, dtype=dtype, device=device, out=out) is out
    assert np.array_equal(out.numpy(), np.stack(arrays()))


def layouts() -> dict[str, torch.Tensor]:
    return {
        "slice": torch.zeros(8, 2, 3)[2:6],
        "inner slice": torch.zeros(4, 2, 6)[..., ::2],
        "transposed": torch.zeros(3, 2, 4).permute(2, 1, 0),
        "channels last": torch.zeros(4, 3, 2).transpose(1, 2),
        "bfloat16": torch.zeros(4, 2, 3, dtype=torch.bfloat16),
        "double": torch.zeros(4, 2, 3, dtype=torch.float64),
        "complex": torch.zeros(4, 2, 3, dtype=torch.complex64),
        "conjugate": torch.zeros(4, 2, 3, dtype=torch.complex64).conj(),
    }


@pytest.mark.parametrize("layout", layouts())
def test_any_layout_and_wider_dtype_is_written(layout: str) -> None:
    out = layouts()[layout]
    assert dlferry.stack(arrays(), out=out) is out
    assert np.array_equal(out.to(torch.complex128).resolve_conj().numpy(), np.stack(arrays()))


def test_nothing_around_out_is_written() -> None:
    whole = torch.full((6, 2, 3), -1.0)
    dlferry.stack(arrays(), out=whole[1:5])
    assert bool((whole[0] == -1).all()) and bool((whole[5] == -1).all())


@pytest.mark.parametrize(
    "out", [torch.zeros(4, 2), torch.zeros(4, 3, 2), torch.zeros(5, 2, 3), torch.zeros(())]
)
def test_another_shape_is_refused(out: torch.Tensor) -> None:
    with pytest.raises(ValueError, match="shape"):
        dlferry.stack(arrays(), out=out)
    assert not out.any()


@pytest.mark.parametrize(
    ("out_dtype", "dtype"),
    [
        (torch.int64, None), (torch.bool, None), (torch.uint8, None),
        (torch.float32, torch.float64), (torch.int64, torch.float32),
    ],
)  # fmt: skip
def test_another_dtype_is_refused(out_dtype: torch.dtype, dtype: Any) -> None:
    out = torch.zeros(4, 2, 3, dtype=out_dtype)
    with pytest.raises(ValueError, match="dtype"):
        dlferry.stack(arrays(), dtype=dtype, out=out)
    assert not out.any()


def test_dtype_of_out_given_converts() -> None:
    out = torch.zeros(4, 2, 3, dtype=torch.uint8)
    dlferry.stack(arrays(), dtype=torch.uint8, out=out)
    assert np.array_equal(out.numpy(), np.stack(arrays()))


@pytest.mark.parametrize("out", [np.zeros((4, 2, 3), np.float32), [0], 1.0, "out"])
def test_only_a_tensor_will_do(out: Any) -> None:
    with pytest.raises(TypeError):
        dlferry.stack(arrays(), out=out)


def test_another_device_is_refused() -> None:
    out = torch.zeros(4, 2, 3)
    with pytest.raises(ValueError, match="device"):
        dlferry.stack(arrays(), device="meta", out=out)
    far = torch.zeros(4, 2, 3, device="meta")
    assert dlferry.stack(arrays(), out=far) is far


def test_elements_that_share_memory_are_refused() -> None:
    row = torch.zeros(1, 2, 3)
    with pytest.raises(ValueError, match="share memory"):
        dlferry.stack(arrays(), out=row.expand(4, 2, 3))
    assert not row.any()


@pytest.mark.parametrize("bad", [[1.0, 2.0, 1e40], [1.0, 2.0, None], [1.0, 2.0, [3.0]]])
def test_a_refused_leaf_leaves_out_as_it_was(bad: list[Any]) -> None:
    out = torch.full((3,), 7.0)
    with pytest.raises((OverflowError, ValueError, dlferry.UnsupportedInput)):
        dlferry.stack(bad, out=out)
    assert out.tolist() == [7, 7, 7]
    rows = torch.full((2, 3), 7.0)
    with pytest.raises((OverflowError, ValueError, dlferry.UnsupportedInput)):
        dlferry.stack([np.ones(3, np.float32), bad], out=rows)
    assert bool((rows == 7).all())


def test_out_may_overlap_the_arrays() -> None:
    out = torch.arange(6.0).reshape(2, 3)
    rows = out.flip(0).clone()
    dlferry.stack([out[1], out[0]], out=out)
    assert torch.equal(out, rows)
    dlferry.stack([out.numpy()[0, ::-1], out.numpy()[1, ::-1]], out=out)
    assert torch.equal(out, rows.flip(1))


def test_autograd_and_out_exclude_each_other() -> None:
    x = torch.ones(3, requires_grad=True)
    out = torch.zeros(2, 3)
    with pytest.raises(ValueError, match="autograd"):
        dlferry.stack([x, x], out=out)
    with pytest.raises(ValueError, match="autograd"):
        dlferry.stack([x.detach()] * 2, out=torch.zeros(2, 3, requires_grad=True))
    assert not out.any()
    with torch.no_grad():
        dlferry.stack([x, x], out=out)
    assert out.tolist() == [[1, 1, 1], [1, 1, 1]] and not out.requires_grad


@pytest.mark.parametrize("wrap", [np.asarray, np.ndarray.tolist])
def test_autograd_learns_that_out_has_changed(wrap: Any) -> None:
    out = torch.ones(4, 2, 3)
    x = torch.ones(4, 2, 3, requires_grad=True)
    y = (x * out).sum()
    dlferry.stack([wrap(a) for a in arrays()], out=out)
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        y.backward()


def test_out_of_inference_mode_is_written_there_alone() -> None:
    with torch.inference_mode():
        out = torch.zeros(2, 2)
        assert dlferry.stack([np.ones(2, np.float32)] * 2, out=out) is out
    with pytest.raises(ValueError, match="inference"):
        dlferry.stack([np.zeros(2, np.float32)] * 2, out=out)
    assert bool((out == 1).all())
