"""Arrays from to_numpy stay on live memory, whatever later happens to the tensor."""

from __future__ import annotations

import gc
import weakref
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch

import dlferry

SIZE = 1 << 16


def fresh() -> torch.Tensor:
    return torch.arange(SIZE, dtype=torch.float32)


def overwrite_freed_memory() -> list[torch.Tensor]:
    """Allocates and fills blocks of the size in use here, so that a freed one is written over."""
    gc.collect()
    blocks = [torch.full((SIZE,), -1.0) for _ in range(16)]
    del blocks
    return [torch.full((n,), -2.0) for n in (SIZE, SIZE // 2, SIZE, SIZE * 2)]


def assert_intact(a: np.ndarray[Any, Any]) -> None:
    kept = overwrite_freed_memory()
    assert np.array_equal(a, np.arange(SIZE, dtype=a.dtype))
    assert len(kept) == 4


def set_other(t: torch.Tensor) -> None:
    t.set_(torch.zeros(SIZE))


def set_storage(t: torch.Tensor) -> None:
    t.set_(torch.zeros(SIZE).untyped_storage(), 0, (SIZE,), (1,))


def set_nothing(t: torch.Tensor) -> None:
    t.set_()


def assign_data(t: torch.Tensor) -> None:
    t.data = torch.zeros(3)


CHANGES: list[Callable[[torch.Tensor], None]] = [set_other, set_storage, set_nothing, assign_data]
EXPORTS: dict[str, Callable[[torch.Tensor], np.ndarray[Any, Any]]] = {
    "array": dlferry.to_numpy,
    "copy=False": lambda t: dlferry.to_numpy(t, copy=False),
    "detached": lambda t: dlferry.to_numpy(t.detach()),
    "through asarray": lambda t: dlferry.to_numpy(dlferry.asarray(t)),
    "view of a view": lambda t: dlferry.to_numpy(t.view(2, -1).t())[:, :].T.reshape(-1),
}


def test_swapping_the_tensor_for_another() -> None:
    t = fresh()
    a = dlferry.to_numpy(t)
    torch.utils.swap_tensors(t, torch.zeros(3))
    assert_intact(a)


@pytest.mark.parametrize("change", CHANGES, ids=lambda f: f.__name__)
def test_replacing_the_memory_behind_a_dlpack_alias(change: Any) -> None:
    t = fresh()
    a = dlferry.to_numpy(dlferry.from_dlpack(t))
    change(t)
    assert_intact(a)


@pytest.mark.parametrize("change", CHANGES, ids=lambda f: f.__name__)
@pytest.mark.parametrize("export", EXPORTS)
def test_replacing_the_tensors_memory(change: Any, export: str) -> None:
    t = fresh()
    a = EXPORTS[export](t)
    change(t)
    assert_intact(a)
    del t
    assert_intact(a)


@pytest.mark.parametrize("size", [0, 1, SIZE * 4])
@pytest.mark.parametrize("export", EXPORTS)
def test_resizing_the_tensor(size: int, export: str) -> None:
    t = fresh()
    a = EXPORTS[export](t)
    if size > SIZE:
        with pytest.raises(RuntimeError, match="resiz"):
            t.resize_(size)
    else:
        t.resize_(size)
    assert_intact(a)


@pytest.mark.parametrize("export", EXPORTS)
def test_the_storage_is_no_longer_resizable(export: str) -> None:
    t = fresh()
    assert t.untyped_storage().resizable()
    a = EXPORTS[export](t)
    assert not t.untyped_storage().resizable()
    with pytest.raises(RuntimeError):
        t.untyped_storage().resize_(0)
    assert_intact(a)


def test_a_copy_leaves_the_storage_alone() -> None:
    t = fresh()
    a = dlferry.to_numpy(t, copy=True)
    b = dlferry.to_numpy(t, out=np.empty(SIZE, np.float32))
    assert t.untyped_storage().resizable()
    t.resize_(SIZE * 2).zero_()
    assert_intact(a)
    assert_intact(b)


@pytest.mark.parametrize("convert", ["half", "double", "to_empty"])
def test_converting_a_module(convert: str) -> None:
    module = torch.nn.Linear(256, SIZE // 256, bias=False)
    with torch.no_grad():
        module.weight.copy_(fresh().view_as(module.weight))
    a = dlferry.to_numpy(module.weight).reshape(-1)
    module.to_empty(device="cpu") if convert == "to_empty" else getattr(module, convert)()
    assert_intact(a)


def test_the_array_outlives_the_tensor() -> None:
    for make in (fresh, lambda: fresh().requires_grad_(), lambda: torch.nn.Parameter(fresh())):
        t = make()
        a = dlferry.to_numpy(t)
        view = a[:]
        del t, a
        assert_intact(view)


def test_the_tensor_outlives_the_array() -> None:
    t = fresh()
    a = dlferry.to_numpy(t)
    del a
    overwrite_freed_memory()
    assert torch.equal(t, torch.arange(SIZE, dtype=torch.float32))


def test_the_array_does_not_keep_the_tensor_object() -> None:
    """The array owns the storage: the Python tensor may go, and with it its gradient."""
    t = fresh().requires_grad_()
    t.grad = torch.zeros(SIZE)
    grad = weakref.ref(t.grad)
    a = dlferry.to_numpy(t)
    del t
    gc.collect()
    assert grad() is None
    assert_intact(a)


def test_two_arrays_of_one_tensor_die_in_either_order() -> None:
    for order in (0, 1):
        t = fresh()
        arrays = [dlferry.to_numpy(t), dlferry.to_numpy(t[:])]
        del t
        arrays.pop(order)
        assert_intact(arrays[0])


def test_the_memory_is_freed_with_the_last_owner() -> None:
    source = np.arange(SIZE, dtype=np.float32)
    owner = weakref.ref(source)
    t = dlferry.asarray(source)
    a = dlferry.to_numpy(t)
    del source
    del t
    gc.collect()
    assert owner() is not None
    assert_intact(a)
    del a
    gc.collect()
    assert owner() is None


def test_a_module_moves_away_and_back() -> None:
    """`.data =` with the array in between: the array keeps the values that it had."""
    p = torch.nn.Parameter(fresh())
    a = dlferry.to_numpy(p)
    p.data = p.data.double()
    p.data.zero_()
    p.data = p.data.float()
    assert_intact(a)


def test_a_tensor_over_an_array_can_be_set_elsewhere() -> None:
    source = np.arange(SIZE, dtype=np.float32)
    t = dlferry.asarray(source)
    alias = t[:]
    t.set_(torch.zeros(3))
    del source
    kept = overwrite_freed_memory()
    assert torch.equal(alias, fresh()) and len(kept) == 4


def test_a_tensor_over_an_array_cannot_grow_out_of_it() -> None:
    source = np.arange(SIZE, dtype=np.float32)
    t = dlferry.asarray(source)
    alias = t[:]
    try:
        t.resize_(SIZE * 4)
    except RuntimeError:
        pass
    assert np.array_equal(source, np.arange(SIZE))
    assert torch.equal(alias[:SIZE], fresh())
