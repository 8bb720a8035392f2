"""The inputs of the table, generated from a few lists."""

from __future__ import annotations

import array
import ctypes
import mmap
import tempfile
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import torch
from forge import ArrayProducer
from kinds import ALL_TO_TORCH, FOREIGN_ORDER, ML_TO_TORCH, NUMPY_TO_TORCH, name, quantized, sample
from regions import misaligned
from rows import UNSUPPORTED, Row

Array = np.ndarray[Any, Any]


def itself(x: Any) -> Any:
    return x


def facts(*names: str) -> frozenset[str]:
    return frozenset(names)


def frozen(a: Array) -> Array:
    a.flags.writeable = False
    return a


def with_gaps(a: Array) -> Array:
    """The same elements, an odd number of bytes apart."""
    packed = np.zeros(a.shape, [("x", a.dtype), ("gap", "u1")])
    packed["x"] = a
    return packed["x"]


def repeated(a: Array) -> Array:
    return np.ndarray((5, 4), a.dtype, a, strides=(0, a.strides[1]))


# --- ndarrays: layout -> (how it is made, facts, reasons to differ) ---

Layout = tuple[Callable[[Array], Array], frozenset[str], tuple[str, ...]]

LAYOUTS: dict[str, Layout] = {
    "contiguous": (itself, facts(), ()),
    "transposed": (lambda a: a.T, facts(), ()),
    "every other column": (lambda a: a[1:, ::2], facts(), ()),
    "0-d": (lambda a: a[1, 2, ...], facts(), ("torch-copies-0-d", "torch-casts-no-0-d")),
    "empty": (lambda a: a[:0], facts(), ()),
    "repeated": (repeated, facts(), ()),
    "one row, reversed": (lambda a: a[2:][::-1], facts(), ("torch-refuses-negative-strides",)),
    "reversed": (lambda a: a[::-1], facts("strides"), ("torch-refuses-negative-strides",)),
    "read-only": (frozen, facts("read-only"), ("torch-shares-read-only",)),
    "read-only, mirrored": (
        lambda a: frozen(a[:, ::-1]),
        facts("strides", "read-only"),
        ("torch-refuses-negative-strides",),
    ),
}
WIDE_LAYOUTS: dict[str, Layout] = {
    "misaligned": (misaligned, facts("alignment"), ("torch-shares-misaligned",)),
    "with gaps": (with_gaps, facts("strides"), ("torch-refuses-odd-strides",)),
}
FOREIGN = {
    "foreign": (itself, facts("byte order"), ("torch-refuses-foreign-order",)),
    "foreign, reversed": (
        lambda a: a[::-1],
        facts("byte order", "strides"),
        ("torch-refuses-foreign-order", "torch-refuses-negative-strides"),
    ),
}


def ndarrays() -> Iterator[Row]:
    for kind, dtype in ALL_TO_TORCH.items():
        layouts = dict(LAYOUTS)
        layouts |= WIDE_LAYOUTS if np.dtype(kind).itemsize > 1 else {}
        for layout, (arranged, known, why) in layouts.items():
            if kind in ML_TO_TORCH:
                why = ("torch-lacks-ml-dtypes",)  # noqa: PLW2901
            make = lambda kind=kind, arranged=arranged: arranged(sample(kind))  # noqa: E731
            yield Row(f"ndarray {name(kind)}, {layout}", make, dtype, known, None, itself, why=why)
    for kind in FOREIGN_ORDER:
        swapped = np.dtype(kind).newbyteorder(">")
        for layout, (arranged, known, why) in FOREIGN.items():
            make = lambda swapped=swapped, arranged=arranged: arranged(  # noqa: E731
                sample(kind_of(swapped)).astype(swapped)
            )
            dtype = ALL_TO_TORCH[kind]
            yield Row(f"ndarray {name(kind)}, {layout}", make, dtype, known, None, itself, why=why)


def kind_of(dtype: np.dtype[Any]) -> Any:
    return dtype.newbyteorder("=").type


def other_ndarrays() -> Iterator[Row]:
    masked = np.ma.MaskedArray(np.arange(3.0), [False, True, False])
    yield Row(
        "masked",
        lambda: masked.copy(),
        error=UNSUPPORTED,
        why=("torch-drops-mask", "torch-other-error-class"),
    )
    f8 = torch.float64
    for title, make, elements in [
        ("unmasked", lambda: np.ma.MaskedArray(np.arange(3.0)), lambda a: a.data),
        ("matrix", lambda: np.arange(6.0).reshape(2, 3).view(np.matrix), itself),
        (
            "record field",
            lambda: np.zeros(3, [("a", "i8"), ("b", "f8")]).view(np.recarray).b,
            itself,
        ),
        ("writable file", writable_file, itself),
    ]:
        yield Row(title, make, f8, facts(), None, elements)
    yield Row(
        "read-only file", read_only_file, torch.uint8, facts("read-only", "mapped file"), None,
        itself, why=("torch-shares-read-only",),
    )  # fmt: skip
    for title, make in {
        "longdouble": lambda: np.ones(2, np.longdouble),
        "clongdouble": lambda: np.ones(2, np.clongdouble),
        "times": lambda: np.array(["2020-01-01"], "M8[s]"),
        "spans": lambda: np.array([3], "m8[us]"),
    }.items():
        yield Row(title, make, None, facts("convertible"), UNSUPPORTED, why=("torch-lacks-it",))
    for title, make in {
        "strings": lambda: np.array(["a"]),
        "bytes strings": lambda: np.array([b"a"]),
        "objects": lambda: np.array([None]),
        "records": lambda: np.zeros(2, "i4,f4"),
        "void": lambda: np.zeros(2, "V3"),
        "texts": lambda: np.array(["a"], np.dtypes.StringDType()),
    }.items():
        yield Row(title, make, error=UNSUPPORTED)


def read_only_file() -> Any:
    with some_file() as file:
        return np.memmap(file, np.uint8, "r")


def writable_file() -> Any:
    with some_file() as file:
        return np.memmap(file, np.float64, "r+", shape=(1,))


def some_file() -> Any:
    file = tempfile.TemporaryFile()  # noqa: SIM115  # its users close it
    file.write(b"12345678")
    file.flush()
    return file


def scalars() -> Iterator[Row]:
    for kind, dtype in ALL_TO_TORCH.items():
        why = ("torch-scalar-error-class", "torch-casts-no-0-d")
        if kind in ML_TO_TORCH:
            why = (*why, "torch-lacks-ml-dtypes")
        make = lambda kind=kind: sample(kind)[1, 2]  # noqa: E731
        yield Row(f"scalar {name(kind)}", make, dtype, facts("sequence"), None, np.asarray, why=why)


# --- buffers ---


def mapped(read_only: bool) -> Any:
    access = mmap.ACCESS_READ if read_only else mmap.ACCESS_WRITE
    with some_file() as file:
        return mmap.mmap(file.fileno(), 8, access=access)


def reversed_view() -> memoryview:
    return memoryview(array.array("d", [1, 2]))[::-1]


def foreign_view() -> memoryview:
    return memoryview(np.arange(3, dtype=">f8"))


def buffers() -> Iterator[Row]:
    why = ("torch-misreads-buffers",)
    for code in "bBhHiIlLqQfd":
        make = lambda code=code: array.array(code, [1, 2, 4])  # noqa: E731
        dtype = ALL_TO_TORCH[np.dtype(np.dtype(code).str).type]
        yield Row(f"array.array {code}", make, dtype, facts(), None, np.asarray, why=why)
    for kind, dtype in NUMPY_TO_TORCH.items():
        make = lambda kind=kind: memoryview(sample(kind))  # noqa: E731
        yield Row(f"memoryview {name(kind)}", make, dtype, facts(), None, np.asarray, why=why)
    u1, f8 = torch.uint8, torch.float64
    for title, make, dtype, known in [
        ("bytearray", lambda: bytearray(b"abc"), u1, facts()),
        ("empty bytearray", bytearray, u1, facts()),
        ("bytes", lambda: b"abc", u1, facts("read-only")),
        ("read-only memoryview", lambda: memoryview(b"abc"), u1, facts("read-only")),
        ("sliced memoryview", lambda: memoryview(bytearray(9))[::2], u1, facts()),
        ("reversed memoryview", reversed_view, f8, facts("strides")),
        ("cast memoryview", lambda: memoryview(bytearray(12)).cast("B", (3, 4)), u1, facts()),
        ("0-d memoryview", lambda: memoryview(np.array(2.0)), f8, facts()),
        ("transposed memoryview", lambda: memoryview(np.arange(6.0).reshape(2, 3).T), f8, facts()),
        ("foreign memoryview", foreign_view, f8, facts("byte order")),
        ("ctypes int", lambda: (ctypes.c_int32 * 3)(1, 2, 3), torch.int32, facts()),
        ("ctypes double", lambda: (ctypes.c_double * 3)(1, 2, 3), f8, facts()),
        ("ctypes grid", lambda: (ctypes.c_uint8 * 3 * 2)(), u1, facts()),
        ("mmap", lambda: mapped(False), u1, facts()),
        ("read-only mmap", lambda: mapped(True), u1, facts("read-only", "mapped file")),
    ]:  # fmt: skip
        elements = lambda x: np.frombuffer(x, np.uint8) if type(x) is bytes else np.asarray(x)  # noqa: E731
        yield Row(title, make, dtype, known, None, elements, why=why)


# --- DLPack ---


def producers() -> Iterator[Row]:
    why = ("torch-aliases-dlpack-copies", "torch-does-not-alias-dlpack")
    for kind, dtype in NUMPY_TO_TORCH.items():
        make = lambda kind=kind: ArrayProducer(sample(kind))  # noqa: E731
        yield Row(f"DLPack {name(kind)}", make, dtype, facts(), None, shown, why=why)
        make = lambda kind=kind: ArrayProducer(frozen(sample(kind)))  # noqa: E731
        reasons = (*why, "torch-shares-read-only")
        known = facts("read-only")
        yield Row(f"DLPack {name(kind)}, read-only", make, dtype, known, None, shown, why=reasons)
        make = lambda kind=kind: ArrayProducer(sample(kind)[::-1])  # noqa: E731
        known = facts("strides")
        yield Row(f"DLPack {name(kind)}, reversed", make, dtype, known, None, shown, aborts=True)
        make = lambda kind=kind: Capsule(sample(kind))  # noqa: E731
        yield Row(
            f"capsule {name(kind)}", make, dtype, facts(), None, shown, given, why, native=True
        )
    for title, arranged in {
        "transposed": lambda a: a.T,
        "0-d": lambda a: a[1, 2, ...],
        "empty": lambda a: a[:0],
        "repeated": repeated,
    }.items():
        make = lambda arranged=arranged: ArrayProducer(arranged(sample(np.float32)))  # noqa: E731
        yield Row(f"DLPack {title}", make, torch.float32, facts(), None, shown, why=why)


class Capsule:
    """An array of which a new capsule is converted: see `shown` and `given`."""

    def __init__(self, array: Array) -> None:
        self.array = array


def shown(x: Any) -> Any:
    return x.array


def given(x: Any) -> Any:
    return x.array.__dlpack__()


# --- tensors ---


def tensors() -> Iterator[Row]:
    is_tensor = facts("tensor")
    for dtype in ALL_TO_TORCH.values():
        make = lambda dtype=dtype: torch.tensor([[1, 2], [4, 8]]).to(dtype)  # noqa: E731
        yield Row(f"tensor {name(dtype)}", make, dtype, is_tensor, None, itself)
    f4, c8 = torch.float32, torch.complex64
    for title, make, dtype in [
        ("expanded", lambda: torch.ones(1, 3).expand(2, 3), f4),
        ("transposed", lambda: torch.ones(2, 3).t(), f4),
        ("empty", lambda: torch.ones(0, 3), f4),
        ("0-d", lambda: torch.tensor(2.5), f4),
        ("conjugate", lambda: torch.tensor([1 + 2j]).conj(), c8),
        ("negative", lambda: torch.tensor([1 + 2j]).conj().imag, f4),
        ("leaf", lambda: torch.ones(3, requires_grad=True), f4),
        ("with history", lambda: torch.ones(3, requires_grad=True) * 2, f4),
        ("parameter", lambda: torch.nn.Parameter(torch.ones(3)), f4),
        ("inference", inference_tensor, f4),
    ]:
        yield Row(f"tensor, {title}", make, dtype, is_tensor, None, itself)
    for title, make, known in [
        ("sparse", lambda: torch.eye(3).to_sparse(), is_tensor),
        ("meta", lambda: torch.ones(3, device="meta"), is_tensor),
        ("quantized", quantized, facts("tensor", "torch casts it to nothing")),
    ]:
        yield Row(f"tensor, {title}", make, make().dtype, known)


def inference_tensor() -> torch.Tensor:
    with torch.inference_mode():
        return torch.ones(3)
