"""Bare DLPack capsules, sound and malformed, and how often each deleter runs."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import ml_dtypes
import numpy as np
import pytest
import torch
from forge import (
    BFLOAT,
    BOOL,
    COMPLEX,
    CUDA,
    FLOAT,
    INT,
    OPAQUE,
    UINT,
    Export,
    Producer,
    is_used,
)
from kinds import ML_TO_TORCH, NUMPY_TO_TORCH, name, reference, sample
from regions import assert_fresh, assert_same_values, overlaps, same_memory
from torch.utils.dlpack import to_dlpack

import dlferry

CONVERTERS = [dlferry.asarray, dlferry.from_dlpack]
ML_CODES = {
    ml_dtypes.bfloat16: BFLOAT,
    ml_dtypes.float8_e4m3fn: 10,
    ml_dtypes.float8_e4m3fnuz: 11,
    ml_dtypes.float8_e5m2: 12,
    ml_dtypes.float8_e5m2fnuz: 13,
    ml_dtypes.float8_e8m0fnu: 14,
}


@pytest.fixture(params=CONVERTERS, ids=lambda f: f.__name__)
def convert(request: pytest.FixtureRequest) -> Any:
    return request.param


@pytest.fixture(params=[True, False], ids=["versioned", "legacy"])
def versioned(request: pytest.FixtureRequest) -> bool:
    return bool(request.param)


# --- without the core ---


@pytest.mark.fallback
def test_a_bare_capsule_needs_the_core(convert: Any, versioned: bool) -> None:
    export = Export(versioned=versioned)
    capsule = export.capsule()
    with pytest.raises(dlferry.UnsupportedInput, match="(?i)capsule"):
        convert(capsule)
    assert not is_used(capsule) and export.count() == 0
    del capsule
    assert export.count() == 1


# --- sound capsules ---


@pytest.mark.native
@pytest.mark.parametrize("kind", NUMPY_TO_TORCH, ids=name)
def test_every_dtype_is_shared(convert: Any, versioned: bool, kind: Any) -> None:
    a = sample(kind)
    for copy in (None, False):
        t = convert(Export(a, versioned).capsule(), copy=copy)
        assert same_memory(t, a)
        assert_same_values(t, reference(a))


@pytest.mark.native
@pytest.mark.parametrize("kind", ML_CODES, ids=name)
def test_small_floats_are_shared(convert: Any, versioned: bool, kind: Any) -> None:
    a = sample(kind)
    export = Export(a, versioned).set_dtype(ML_CODES[kind], a.itemsize * 8)
    for x in (export.capsule(), Producer(export)):
        t = convert(x)
        assert t.dtype == ML_TO_TORCH[kind] and same_memory(t, a)
        assert_same_values(t, reference(a))


@pytest.mark.native
def test_a_capsule_is_consumed_once(convert: Any, versioned: bool) -> None:
    export = Export(versioned=versioned)
    capsule = export.capsule()
    t = convert(capsule)
    assert is_used(capsule)
    del capsule
    assert export.count() == 0
    with pytest.raises(BufferError):
        again = export.capsule()
        first = convert(again)
        assert torch.equal(first, t)
        convert(again)
    del first, again
    assert export.count() == 1
    del t
    assert export.count() == 2


@pytest.mark.native
def test_a_copy_frees_the_capsules_memory_at_once(convert: Any, versioned: bool) -> None:
    export = Export(versioned=versioned)
    capsule = export.capsule()
    t = convert(capsule, copy=True)
    del capsule
    assert export.count() == 1
    assert_fresh(t, export.array)
    assert t.tolist() == [[0, 1, 2], [3, 4, 5]]


@pytest.mark.native
def test_a_cast_frees_the_capsules_memory_at_once(versioned: bool) -> None:
    export = Export(versioned=versioned)
    t = dlferry.asarray(export.capsule(), dtype=torch.float64)
    assert export.count() == 1
    assert t.tolist() == [[0, 1, 2], [3, 4, 5]]


@pytest.mark.native
def test_a_refused_copy_leaves_nothing_behind(versioned: bool) -> None:
    export = Export(versioned=versioned)
    with pytest.raises(dlferry.CopyRequired):
        dlferry.asarray(export.capsule(), dtype=torch.float64, copy=False)
    assert export.count() == 1


@pytest.mark.native
def test_a_deleter_may_be_null(convert: Any, versioned: bool) -> None:
    export = Export(versioned=versioned)
    export.managed.deleter = type(export.managed.deleter)()
    t = convert(export.capsule())
    u = convert(export.capsule(), copy=True)
    assert torch.equal(t, u)
    del t, u
    assert export.count() == 0


@pytest.mark.native
def test_torchs_own_capsule(convert: Any) -> None:
    t = torch.arange(6.0).reshape(2, 3)
    result = convert(to_dlpack(t))
    assert same_memory(result, t)
    del t
    assert result.tolist() == [[0, 1, 2], [3, 4, 5]]


@pytest.mark.native
def test_numpys_own_capsule(convert: Any) -> None:
    a = np.arange(6.0)
    assert same_memory(convert(a.__dlpack__(max_version=(1, 0))), a)
    assert same_memory(convert(a.__dlpack__()), a)


@pytest.mark.native
@pytest.mark.parametrize("minor", [0, 3, 99])
def test_minor_versions_are_compatible(convert: Any, minor: int) -> None:
    export = Export()
    export.managed.minor = minor
    assert overlaps(convert(export.capsule()), export.array)


@pytest.mark.native
def test_sixty_four_axes_are_the_most(convert: Any, versioned: bool) -> None:
    export = Export(np.arange(3.0), versioned).set_shape((1,) * 63 + (3,))
    assert convert(export.capsule()).ndim == 64


@pytest.mark.native
def test_an_empty_capsule_with_wild_strides(convert: Any, versioned: bool) -> None:
    export = Export(np.empty(0), versioned).set_shape((0, 3), (2**62, -5))
    export.tensor.data = None
    assert tuple(convert(export.capsule()).shape) == (0, 3)


# --- malformed capsules ---

Spoil = Callable[[Export], Any]


def dtype(code: int, width: int, lanes: int = 1) -> Spoil:
    return lambda e: e.set_dtype(code, width, lanes)


def device(kind: int, index: int = 0) -> Spoil:
    def spoil(e: Export) -> None:
        e.tensor.device.type, e.tensor.device.id = kind, index

    return spoil


def field(**values: Any) -> Spoil:
    def spoil(e: Export) -> None:
        for key, value in values.items():
            setattr(e.tensor, key, value)

    return spoil


def shape(shape: tuple[int, ...], strides: tuple[int, ...] | None = None) -> Spoil:
    return lambda e: e.set_shape(shape, strides)


# What torch does not have.
MALFORMED: dict[str, Spoil] = {
    "unknown dtype code": dtype(42, 32),
    "opaque": dtype(OPAQUE, 64),
    "int24": dtype(INT, 24),
    "float80": dtype(FLOAT, 80),
    "float8 as float": dtype(FLOAT, 8),
    "complex16": dtype(COMPLEX, 16),
    "two lanes": dtype(FLOAT, 32, 2),
    "no lanes": dtype(FLOAT, 32, 0),
    "no bits": dtype(INT, 0),
    "int4": dtype(INT, 4),
    "uint4": dtype(UINT, 4),
    "uint1": dtype(UINT, 1),
    "bool1": dtype(BOOL, 1),
    "unknown device": device(99),
    "device zero": device(0),
    "negative device": device(-1),
    "opencl": device(4),
    "extension device": device(12),
    "65 axes": shape((1,) * 65),
    "a million axes": field(ndim=10**6),
}
# What cannot exist, or would be read where nothing is.
HOSTILE: dict[str, Spoil] = {
    "negative axes": field(ndim=-1),
    "most negative axes": field(ndim=-(2**31)),
    "null shape": field(shape=None),
    "negative length": shape((2, -3), (3, 1)),
    "negative length, null strides": shape((-1,)),
    "null data": field(data=None),
    "null data with an offset": field(data=None, byte_offset=64),
    "too many elements": shape((2**40, 2**40)),
    "too many bytes": shape((2**62,), (1,)),
    "extent overflow": shape((2,), (2**62,)),
    "extent overflow below": shape((2,), (-(2**62),)),
    "extents overflow together": shape((3, 3), (2**60, 2**60)),
    "lowest stride": shape((2,), (-(2**63),)),
    "byte offset overflow": field(byte_offset=2**64 - 4),
    "byte offset beyond the address space": field(byte_offset=2**63),
}


@pytest.mark.native
@pytest.mark.parametrize("copy", [None, True, False])
@pytest.mark.parametrize("case", [*MALFORMED, *HOSTILE])
def test_a_malformed_capsule_is_a_buffer_error(
    convert: Any, versioned: bool, case: str, copy: bool | None
) -> None:
    export = Export(versioned=versioned)
    {**MALFORMED, **HOSTILE}[case](export)
    capsule = export.capsule()
    with pytest.raises(BufferError) as caught:
        convert(capsule, copy=copy)
    assert str(caught.value)
    assert not isinstance(caught.value, dlferry.CopyRequired)
    del capsule, caught  # a traceback keeps the capsule alive
    assert export.count() == 1


@pytest.mark.parametrize("case", [*MALFORMED, *HOSTILE])
def test_a_malformed_export_is_a_buffer_error(convert: Any, versioned: bool, case: str) -> None:
    export = Export(versioned=versioned)
    {**MALFORMED, **HOSTILE}[case](export)
    with pytest.raises(BufferError):
        convert(Producer(export))
    assert export.count() == export.capsules


@pytest.mark.parametrize("major", [2, 3, 2**32 - 1])
def test_another_major_version_is_deleted_unread(convert: Any, major: int) -> None:
    export = Export()
    export.managed.major = major
    export.tensor.data = export.tensor.shape = None
    export.tensor.ndim = -7
    with pytest.raises(BufferError, match="version"):
        convert(Producer(export))
    assert export.count() == export.capsules


@pytest.mark.native
@pytest.mark.parametrize("major", [0, 2])
def test_another_major_version_in_a_bare_capsule(convert: Any, major: int) -> None:
    export = Export()
    export.managed.major = major
    capsule = export.capsule()
    with pytest.raises(BufferError, match="version"):
        convert(capsule)
    del capsule
    assert export.count() == 1


@pytest.mark.parametrize("label", [b"tensor", b"used_dltensor", b"used_dltensor_versioned"])
def test_a_capsule_of_another_name(convert: Any, label: bytes) -> None:
    export = Export(versioned=b"versioned" in label)
    with pytest.raises((BufferError, dlferry.UnsupportedInput)):
        convert(export.capsule(label))
    assert export.count() == 0


@pytest.mark.native
@pytest.mark.skipif(torch.cuda.is_available(), reason="the answer needs a machine without CUDA")
def test_device_memory_without_a_device(convert: Any, versioned: bool) -> None:
    export = Export(versioned=versioned)
    device(CUDA)(export)
    with pytest.raises((dlferry.DriverUnavailable, BufferError)):
        convert(export.capsule())
    assert export.count() == 1


@pytest.mark.native
def test_memory_is_not_read_before_it_is_validated(convert: Any) -> None:
    export = Export()
    export.tensor.data = 8
    export.set_shape((2**61,), (1,))
    with pytest.raises(BufferError):
        convert(export.capsule(), copy=True)
