"""Arrow's C structures made by hand, right and wrong, with a count of release calls."""

from __future__ import annotations

import ctypes
from collections.abc import Sequence
from typing import Any

import numpy as np

FORMATS = {
    "int8": "c", "int16": "s", "int32": "i", "int64": "l", "uint8": "C", "uint16": "S",
    "uint32": "I", "uint64": "L", "float16": "e", "float32": "f", "float64": "g", "bool": "b",
}  # fmt: skip


class Schema(ctypes.Structure):
    _fields_ = [
        ("format", ctypes.c_char_p),
        ("name", ctypes.c_char_p),
        ("metadata", ctypes.c_char_p),
        ("flags", ctypes.c_int64),
        ("n_children", ctypes.c_int64),
        ("children", ctypes.c_void_p),
        ("dictionary", ctypes.c_void_p),
        ("release", ctypes.c_void_p),
        ("private_data", ctypes.c_void_p),
    ]


class Array(ctypes.Structure):
    _fields_ = [
        ("length", ctypes.c_int64),
        ("null_count", ctypes.c_int64),
        ("offset", ctypes.c_int64),
        ("n_buffers", ctypes.c_int64),
        ("n_children", ctypes.c_int64),
        ("buffers", ctypes.c_void_p),
        ("children", ctypes.c_void_p),
        ("dictionary", ctypes.c_void_p),
        ("release", ctypes.c_void_p),
        ("private_data", ctypes.c_void_p),
    ]


class Stream(ctypes.Structure):
    _fields_ = [
        ("get_schema", ctypes.c_void_p),
        ("get_next", ctypes.c_void_p),
        ("get_last_error", ctypes.c_void_p),
        ("release", ctypes.c_void_p),
        ("private_data", ctypes.c_void_p),
    ]


_capsule = ctypes.PYFUNCTYPE(ctypes.py_object, ctypes.c_void_p, ctypes.c_char_p, ctypes.c_void_p)(
    ("PyCapsule_New", ctypes.pythonapi)
)
_Release = ctypes.CFUNCTYPE(None, ctypes.c_void_p)
_Get = ctypes.CFUNCTYPE(ctypes.c_int, ctypes.c_void_p, ctypes.c_void_p)
_Say = ctypes.CFUNCTYPE(ctypes.c_void_p, ctypes.c_void_p)

_kept: list[Any] = []
"""What the structures point to; the callbacks may run at any time."""


class Column:
    """Chunks of one type, as `__arrow_c_array__` and the stream below export them.

    Args:
        arrays: One-dimensional ndarrays; booleans are packed into bits.
        offset: How many elements precede those of each chunk in its buffers.
        valid: The validity of every element of a chunk, or None.
        **fields: Overrides of the structures' fields, or `format`.
    """

    def __init__(
        self,
        arrays: Sequence[np.ndarray[Any, Any]],
        *,
        offset: int = 0,
        valid: Sequence[bool] | None = None,
        **fields: Any,
    ) -> None:
        self.arrays = list(arrays)
        self.offset = offset
        self.valid = valid
        self.fields = fields
        self.released = {"schema": 0, "array": 0, "stream": 0}
        self.error = 0
        self.capsules: list[object] = []

    def _count(self, kind: str, structure: type[ctypes.Structure]) -> int | None:
        def release(address: int) -> None:
            fields = structure.from_address(address)
            assert fields.release, f"the {kind} is released twice"  # type: ignore[attr-defined]
            fields.release = None  # type: ignore[attr-defined]
            self.released[kind] += 1

        callback = _Release(release)
        _kept.append(callback)
        return ctypes.cast(callback, ctypes.c_void_p).value

    def schema(self) -> Schema:
        kind = self.arrays[0].dtype.name if self.arrays else "float32"
        form = self.fields.get("format", FORMATS.get(kind, "n"))
        schema = Schema(
            format=form.encode(),
            metadata=self.fields.get("metadata"),
            release=self._count("schema", Schema),
        )
        _kept.append((schema, form))
        return schema

    def array(self, data: np.ndarray[Any, Any]) -> Array:
        length = len(data) - self.offset
        if data.dtype == bool:
            data = np.packbits(data, bitorder="little")
        valid = None
        if self.valid is not None:
            valid = np.packbits(np.array(self.valid), bitorder="little")
        buffers = (ctypes.c_void_p * 2)(
            None if valid is None else valid.ctypes.data, self.fields.get("data", data.ctypes.data)
        )
        _kept.append((data, valid, buffers))
        array = Array(
            length=length,
            null_count=self.fields.get("null_count", 0 if valid is None else -1),
            offset=self.offset,
            n_buffers=self.fields.get("n_buffers", 2),
            buffers=ctypes.addressof(buffers),
            release=self._count("array", Array),
        )
        _kept.append(array)
        return array

    def capsule(self, structure: ctypes.Structure, name: bytes) -> object:
        # Without a destructor: what the consumer does not release stays.
        _kept.append((structure, name))
        return _capsule(ctypes.addressof(structure), name, None)

    def pair(self) -> tuple[object, object]:
        return (
            self.capsule(self.schema(), b"arrow_schema"),
            self.capsule(self.array(self.arrays[0]), b"arrow_array"),
        )

    def stream(self) -> object:
        rest = list(self.arrays)

        def get_schema(_: int, out: int) -> int:
            ctypes.memmove(out, ctypes.byref(self.schema()), ctypes.sizeof(Schema))
            return self.fields.get("schema_error", 0)

        def get_next(_: int, out: int) -> int:
            if self.error and not rest:
                return self.error
            array = self.array(rest.pop(0)) if rest else Array()
            ctypes.memmove(out, ctypes.byref(array), ctypes.sizeof(Array))
            return 0

        text = ctypes.create_string_buffer(b"out of chunks")
        callbacks = _Get(get_schema), _Get(get_next), _Say(lambda _: ctypes.addressof(text))
        _kept.append(callbacks)
        addresses = [ctypes.cast(callback, ctypes.c_void_p).value for callback in callbacks]
        structure = Stream(*addresses, self._count("stream", Stream))
        return self.capsule(structure, b"arrow_array_stream")


class ArrowArray(Column):
    """Exports its first chunk as an array."""

    def __arrow_c_array__(self, requested_schema: object = None) -> tuple[object, object]:
        return self.pair()


class ArrowStream(Column):
    """Exports all chunks as a stream."""

    def __arrow_c_stream__(self, requested_schema: object = None) -> object:
        return self.stream()
