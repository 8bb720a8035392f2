"""JAX arrays: immutable, exported by capsules that cannot say so."""

from __future__ import annotations

import gc
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import torch

import dlferry

DTYPES: dict[Any, torch.dtype] = {
    jnp.bool_: torch.bool,
    jnp.int8: torch.int8,
    jnp.int16: torch.int16,
    jnp.int32: torch.int32,
    jnp.uint8: torch.uint8,
    jnp.uint16: torch.uint16,
    jnp.uint32: torch.uint32,
    jnp.float16: torch.float16,
    jnp.bfloat16: torch.bfloat16,
    jnp.float32: torch.float32,
    jnp.complex64: torch.complex64,
    jnp.float8_e4m3fn: torch.float8_e4m3fn,
    jnp.float8_e5m2: torch.float8_e5m2,
}
CONVERTERS = [dlferry.asarray, dlferry.from_dlpack]


def array(dtype: Any = jnp.float32, shape: tuple[int, ...] = (3, 4)) -> jax.Array:
    size = int(np.prod(shape))
    values = np.array([1, 2, 4, 8])[np.arange(size) % 4].reshape(shape)
    return jax.block_until_ready(jnp.asarray(values).astype(dtype))


def address(x: jax.Array) -> int:
    return x.unsafe_buffer_pointer()


def values(t: torch.Tensor) -> Any:
    return t.to(torch.complex64).tolist()


@pytest.mark.parametrize("dtype", DTYPES, ids=lambda d: d.dtype.name)
def test_every_dtype_is_shared_when_asked(dtype: Any) -> None:
    x = array(dtype)
    t = dlferry.asarray(x, readonly="share", copy=False)
    assert t.dtype == DTYPES[dtype] and t.data_ptr() == address(x)
    assert values(t) == np.asarray(x).astype(np.complex64).tolist()


@pytest.mark.parametrize("dtype", DTYPES, ids=lambda d: d.dtype.name)
def test_and_copied_by_default(dtype: Any) -> None:
    x = array(dtype)
    t = dlferry.asarray(x)
    assert t.dtype == DTYPES[dtype] and t.data_ptr() != address(x)
    before = np.array(x)
    t.view(torch.uint8).zero_()
    assert np.array_equal(np.asarray(x), before)


@pytest.mark.parametrize("convert", CONVERTERS)
def test_the_policy_of_read_only_memory(convert: Any) -> None:
    x = array()
    assert convert(x).data_ptr() != address(x)
    assert convert(x, readonly="share").data_ptr() == address(x)
    for kwargs in ({"copy": False}, {"readonly": "error"}):
        with pytest.raises(dlferry.CopyRequired) as caught:
            convert(x, **kwargs)
        assert caught.value.reasons == ("read-only",)


@pytest.mark.parametrize("shape", [(), (0,), (0, 3), (1,), (2, 3, 4)])
def test_shapes(shape: tuple[int, ...]) -> None:
    x = array(jnp.float32, shape)
    t = dlferry.asarray(x, readonly="share")
    assert tuple(t.shape) == shape
    assert np.array_equal(t.numpy(), np.asarray(x))


def test_a_computed_array_is_awaited() -> None:
    x = jnp.ones((512, 512)) @ jnp.ones((512, 512))
    assert dlferry.asarray(x, readonly="share").sum() == 512**3


def test_the_array_lives_as_long_as_the_tensor() -> None:
    t = dlferry.asarray(array(), readonly="share")
    gc.collect()
    assert values(t) == np.asarray(array()).astype(np.complex64).tolist()


@pytest.mark.parametrize("dtype", [jnp.float32, jnp.bfloat16, jnp.int8])
def test_round_trip(dtype: Any) -> None:
    x = array(dtype)
    t = dlferry.asarray(x, readonly="share")
    back = jax.dlpack.from_dlpack(t)
    assert back.dtype == x.dtype and jnp.array_equal(back, x)
    assert address(back) == address(x)
    a = dlferry.to_numpy(t)
    assert a.dtype == x.dtype and np.array_equal(a, np.asarray(x))


def test_a_cast_and_grad() -> None:
    assert dlferry.asarray(array(jnp.int8), dtype=torch.float64).dtype == torch.float64
    assert dlferry.asarray(array(), requires_grad=True).requires_grad


def test_lists_of_jax_arrays() -> None:
    t = dlferry.asarray([array(), array()])
    assert t.shape == (2, 3, 4) and t.dtype == torch.float32


@pytest.mark.parametrize("dtype", [jnp.int4, jnp.uint4])
def test_elements_of_less_than_a_byte_are_unsupported(dtype: Any) -> None:
    with pytest.raises(dlferry.UnsupportedInput, match="int4"):
        dlferry.asarray(array(dtype))


def test_a_deleted_array_is_an_error() -> None:
    x = array()
    x.delete()
    with pytest.raises((RuntimeError, TypeError)):  # whichever of its methods is asked first
        dlferry.asarray(x)


def test_a_key_says_what_to_do() -> None:
    with pytest.raises(TypeError, match="key_data"):
        dlferry.asarray(jax.random.key(0))


def test_a_tracer_is_no_array() -> None:
    def f(x: Any) -> Any:
        return dlferry.asarray(x)

    with pytest.raises(Exception, match="[Tt]race"):
        jax.jit(f)(array())
