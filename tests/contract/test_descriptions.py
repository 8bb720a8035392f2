"""`__array_interface__` and `__array__`: memory that is described, or handed out as an ndarray."""

from __future__ import annotations

import gc
import weakref
from typing import Any

import numpy as np
import pytest
import torch
from kinds import NUMPY_TO_TORCH, name, reference, sample
from regions import assert_fresh, assert_same_values, overlaps, same_memory

import dlferry


class Described:
    """Has an `__array_interface__`, on its type or on itself."""

    def __init__(self, interface: Any, owner: object = None) -> None:
        self.owner = owner
        self.__array_interface__ = interface


class Property:
    def __init__(self, array: np.ndarray[Any, Any]) -> None:
        self.array = array

    @property
    def __array_interface__(self) -> dict[str, Any]:
        return self.array.__array_interface__


def described(array: np.ndarray[Any, Any], **changes: Any) -> Described:
    return Described({**array.__array_interface__, **changes}, array)


@pytest.mark.parametrize("kind", NUMPY_TO_TORCH, ids=name)
@pytest.mark.parametrize("make", [described, Property])
@pytest.mark.parametrize("copy", [None, False])
def test_described_memory_is_shared(kind: Any, make: Any, copy: bool | None) -> None:
    a = sample(kind)
    t = dlferry.asarray(make(a), copy=copy)
    assert same_memory(t, a)
    assert_same_values(t, reference(a))
    assert not overlaps(dlferry.asarray(make(a), copy=True), a)


@pytest.mark.parametrize("index", [np.s_[::2, 1:], np.s_[:0], np.s_[1, 1], np.s_[::-1]])
def test_described_layouts(index: Any) -> None:
    a = np.asarray(sample(np.float32, (4, 6))[index])
    t = dlferry.asarray(Property(a))
    assert np.array_equal(t.numpy(), a)
    assert same_memory(t, a) == all(s >= 0 for s in a.strides)


def test_described_byte_order() -> None:
    assert dlferry.asarray(Property(np.arange(3, dtype=">i4"))).tolist() == [0, 1, 2]


def test_described_read_only_memory() -> None:
    a = sample(np.float32)
    a.flags.writeable = False
    assert_fresh(dlferry.asarray(Property(a)), a)
    assert same_memory(dlferry.asarray(Property(a), readonly="share", copy=False), a)
    with pytest.raises(dlferry.CopyRequired) as caught:
        dlferry.asarray(Property(a), copy=False)
    assert caught.value.reasons == ("read-only",)


def test_data_may_be_a_buffer_which_stays_exported() -> None:
    data = bytearray(range(12))
    x = Described({"shape": (2, 2), "typestr": "<i2", "data": data, "offset": 4, "version": 3})
    t = dlferry.asarray(x, copy=False)
    assert t.tolist() == np.frombuffer(data, "<i2", 4, 4).reshape(2, 2).tolist()
    del x
    with pytest.raises(BufferError):
        data.clear()
    del t
    gc.collect()
    data.clear()


def test_bytes_made_for_each_call_are_the_producers_copy() -> None:
    class Image:  # as PIL's
        @property
        def __array_interface__(self) -> dict[str, Any]:
            return {"shape": (3,), "typestr": "|u1", "data": bytes([1, 2, 3]) * 1, "version": 3}

        def __init__(self) -> None:
            self.made: list[bytes] = []

    assert dlferry.asarray(Image()).tolist() == [1, 2, 3]

    class Fresh(Image):
        @property
        def __array_interface__(self) -> dict[str, Any]:
            return {"shape": (3,), "typestr": "|u1", "data": bytearray([1, 2, 3]), "version": 3}

    with pytest.raises(dlferry.CopyRequired) as caught:
        dlferry.asarray(Fresh(), copy=False)
    assert caught.value.reasons == ("producer copy",)


def test_the_owner_lives_as_long_as_the_tensor() -> None:
    x = Property(sample(np.float32))
    alive = weakref.ref(x)
    t = dlferry.asarray(x)
    del x
    gc.collect()
    assert alive() is not None
    del t
    gc.collect()
    assert alive() is None


MALFORMED: dict[str, Any] = {
    "no dict": 7,
    "empty": {},
    "no typestr": {"shape": (3,), "data": (64, False)},
    "no shape": {"typestr": "<f4", "data": (64, False)},
    "no such typestr": {"shape": (3,), "typestr": "<f3", "data": (64, False)},
    "null data": {"shape": (3,), "typestr": "<f4", "data": (0, False)},
    "negative address": {"shape": (3,), "typestr": "<f4", "data": (-64, False)},
    "negative length": {"shape": (-3,), "typestr": "<f4", "data": (64, False)},
    "float length": {"shape": (3.0,), "typestr": "<f4", "data": (64, False)},
    "strides of another rank": {
        "shape": (3,), "typestr": "<f4", "strides": (4, 4), "data": (64, False),
    },
    "a string for an address": {"shape": (3,), "typestr": "<f4", "data": ("0x40", False)},
    "half a pair": {"shape": (3,), "typestr": "<f4", "data": (64,)},
    "a buffer that is too small": {"shape": (3,), "typestr": "<f4", "data": bytes(11)},
    "a buffer left behind by its offset": {
        "shape": (3,), "typestr": "<f4", "data": bytes(12), "offset": 4,
    },
    "strides out of the buffer": {
        "shape": (3,), "typestr": "<f4", "data": bytes(12), "strides": (8,),
    },
    "no buffer": {"shape": (3,), "typestr": "<f4", "data": 64},
    "no data and no buffer": {"shape": (3,), "typestr": "<f4"},
}  # fmt: skip


@pytest.mark.parametrize("case", MALFORMED)
@pytest.mark.parametrize("copy", [None, True, False])
def test_a_malformed_description_is_a_buffer_error(case: str, copy: bool | None) -> None:
    with pytest.raises(BufferError) as caught:
        dlferry.asarray(Described(MALFORMED[case]), copy=copy)
    assert not isinstance(caught.value, dlferry.CopyRequired)


def test_a_mask_does_not_vanish() -> None:
    a = sample(np.float32)
    with pytest.raises(dlferry.UnsupportedInput, match="mask"):
        dlferry.asarray(described(a, mask=described(a != 0)))


def test_strings_and_objects_are_unsupported() -> None:
    for a in (np.array(["ab"]), np.array([None]), np.zeros(2, "i4, f4")):
        with pytest.raises(dlferry.UnsupportedInput):
            dlferry.asarray(Property(a))


def test_a_class_with_a_description_is_no_array() -> None:
    with pytest.raises(dlferry.UnsupportedInput):
        dlferry.asarray(Property)


# --- __array__ ---


class Keeper:
    """Hands out the array that it keeps; knows nothing of `copy`, as before NumPy 2."""

    def __init__(self, array: Any) -> None:
        self.array = array

    def __array__(self, dtype: Any = None) -> Any:
        return self.array


class Modern(Keeper):
    def __array__(self, dtype: Any = None, copy: bool | None = None) -> Any:
        return self.array.copy() if copy else self.array


class Reader(Keeper):
    """Can only copy, and says so."""

    reads = 0
    dtype = np.dtype(np.float32)

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> Any:
        if copy is False:
            raise ValueError("cannot avoid a copy")
        self.reads += 1
        return self.array.copy()


class OldReader(Keeper):
    """Can only copy, and does not say so."""

    def __array__(self, dtype: Any = None) -> Any:
        return self.array.copy()


class Liar(Keeper):
    def __array__(self, dtype: Any = None, copy: bool | None = None) -> Any:
        return self.array.copy()


@pytest.mark.parametrize("make", [Keeper, Modern])
@pytest.mark.parametrize("copy", [None, False])
def test_the_array_behind_is_shared(make: Any, copy: bool | None) -> None:
    a = sample(np.float32)
    assert same_memory(dlferry.asarray(make(a), copy=copy), a)
    assert same_memory(dlferry.asarray(make(a[:, ::2]), copy=copy), a[:, ::2])
    assert not overlaps(dlferry.asarray(make(a), copy=True), a)


@pytest.mark.parametrize("make", [Reader, OldReader, Liar])
def test_an_array_made_for_the_call_cannot_be_shared(make: Any) -> None:
    a = sample(np.float32)
    t = dlferry.asarray(make(a))
    assert_same_values(t, reference(a))
    assert not overlaps(t, a)
    with pytest.raises(dlferry.CopyRequired) as caught:
        dlferry.asarray(make(a), copy=False)
    assert caught.value.reasons == ("producer copy",)
    with pytest.raises(dlferry.CopyRequired) as caught:
        dlferry.asarray(make(a), copy=False, dtype=torch.int64)
    assert caught.value.reasons == ("dtype", "producer copy")


def test_a_reader_is_not_read_to_be_refused() -> None:
    x = Reader(sample(np.float32))
    with pytest.raises(dlferry.CopyRequired):
        dlferry.asarray(x, copy=False)
    assert x.reads == 0
    dlferry.asarray(x)
    assert x.reads == 1


def test_read_only_and_masked_arrays_behind() -> None:
    a = sample(np.float32)
    a.flags.writeable = False
    assert_fresh(dlferry.asarray(Keeper(a)), a)
    assert same_memory(dlferry.asarray(Keeper(a), readonly="share"), a)
    with pytest.raises(dlferry.UnsupportedInput, match="mask"):
        dlferry.asarray(Keeper(np.ma.array([1, 2], mask=[0, 1])))


def test_a_mapped_file_behind_asks_first(tmp_path: Any) -> None:
    np.arange(12.0).tofile(tmp_path / "x")
    x = Keeper(np.memmap(tmp_path / "x", np.float64, "r"))
    with pytest.raises(dlferry.CopyRequired, match="mapped file"):
        dlferry.asarray(x)
    assert same_memory(dlferry.asarray(x, readonly="share"), x.array)


class Failing:
    def __init__(self, error: Exception) -> None:
        self.error = error

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> Any:
        raise self.error


@pytest.mark.parametrize("error", [RuntimeError("broken"), KeyError("broken"), OSError("broken")])
@pytest.mark.parametrize("copy", [None, False])
def test_errors_propagate(error: Exception, copy: bool | None) -> None:
    with pytest.raises(type(error), match="broken"):
        dlferry.asarray(Failing(error), copy=copy)


@pytest.mark.parametrize("kind", [ValueError, TypeError])
def test_value_and_type_errors_propagate_too(kind: type[Exception]) -> None:
    with pytest.raises(kind, match="broken"):
        dlferry.asarray(Failing(kind("broken")))


@pytest.mark.parametrize("error", [BufferError(), NotImplementedError()])
def test_a_declined_array_hands_over(error: Exception) -> None:
    with pytest.raises(dlferry.UnsupportedInput, match="none of the protocols"):
        dlferry.asarray(Failing(error))


@pytest.mark.parametrize("result", [None, [1, 2], 7])
def test_something_else_than_an_array_is_malformed(result: Any) -> None:
    with pytest.raises(BufferError, match="ndarray"):
        dlferry.asarray(Keeper(result))


def test_the_first_protocol_counts() -> None:
    class Both(Keeper):
        __array_interface__ = property(lambda self: np.ones(3).__array_interface__)
        ones = np.ones(3)

    Both.__array_interface__ = property(lambda self: self.ones.__array_interface__)  # type: ignore[misc]
    assert dlferry.asarray(Both(np.zeros(3))).tolist() == [1, 1, 1]


def test_arrays_behind_inside_lists() -> None:
    t = dlferry.asarray([Keeper(np.ones(2, np.int16)), Property(np.zeros(2, np.int16))])
    assert t.dtype == torch.int16 and t.tolist() == [[1, 1], [0, 0]]
