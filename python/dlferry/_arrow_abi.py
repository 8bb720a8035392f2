"""The structures of Arrow's C data interface, and who releases them.

See https://arrow.apache.org/docs/format/CDataInterface.html. A structure is moved out of its
capsule, as a consumer should, and released once, by whatever thread lets go of it last.
"""

from __future__ import annotations

import ctypes
from collections.abc import Iterator
from typing import Any


class Schema(ctypes.Structure):
    """ArrowSchema: the type of a column."""

    format: bytes
    metadata: int | None
    flags: int
    n_children: int
    children: Any
    dictionary: Any
    release: Any


class Array(ctypes.Structure):
    """ArrowArray: the memory of a column."""

    length: int
    null_count: int
    offset: int
    n_buffers: int
    n_children: int
    buffers: Any
    children: Any
    dictionary: Any
    release: Any


class Stream(ctypes.Structure):
    """ArrowArrayStream: a column in chunks, made one by one."""

    get_schema: Any
    get_next: Any
    get_last_error: Any
    release: Any


def _fields(kind: type[ctypes.Structure], *fields: tuple[str, Any]) -> None:
    release = ctypes.CFUNCTYPE(None, ctypes.POINTER(kind))
    kind._fields_ = [*fields, ("release", release), ("private_data", ctypes.c_void_p)]


_fields(
    Schema,
    ("format", ctypes.c_char_p),
    ("name", ctypes.c_char_p),
    ("metadata", ctypes.c_void_p),
    ("flags", ctypes.c_int64),
    ("n_children", ctypes.c_int64),
    ("children", ctypes.POINTER(ctypes.POINTER(Schema))),
    ("dictionary", ctypes.POINTER(Schema)),
)
_fields(
    Array,
    ("length", ctypes.c_int64),
    ("null_count", ctypes.c_int64),
    ("offset", ctypes.c_int64),
    ("n_buffers", ctypes.c_int64),
    ("n_children", ctypes.c_int64),
    ("buffers", ctypes.POINTER(ctypes.c_void_p)),
    ("children", ctypes.POINTER(ctypes.POINTER(Array))),
    ("dictionary", ctypes.POINTER(Array)),
)
_fields(
    Stream,
    ("get_schema", ctypes.CFUNCTYPE(ctypes.c_int, ctypes.POINTER(Stream), ctypes.POINTER(Schema))),
    ("get_next", ctypes.CFUNCTYPE(ctypes.c_int, ctypes.POINTER(Stream), ctypes.POINTER(Array))),
    ("get_last_error", ctypes.CFUNCTYPE(ctypes.c_char_p, ctypes.POINTER(Stream))),
)

_pointer = ctypes.PYFUNCTYPE(ctypes.c_void_p, ctypes.py_object, ctypes.c_char_p)(
    ("PyCapsule_GetPointer", ctypes.pythonapi)
)


class Owned:
    """A structure of which this is the one owner; it is released when this goes."""

    def __init__(self, struct: Any) -> None:
        self.struct = struct

    @classmethod
    def moved_from(cls, capsule: object, kind: Any, name: str) -> Owned:
        """The structure in a capsule, which is empty from now on.

        Raises:
            BufferError: It is no such capsule, or somebody else has taken the structure.
        """
        try:
            source = kind.from_address(_pointer(capsule, name.encode()))
        except ValueError as error:
            raise BufferError(f"not an Arrow capsule of the name {name}: {capsule!r}") from error
        if not source.release:
            raise BufferError(f"the Arrow structure in {capsule!r} has been released already")
        owned = cls(kind.from_buffer_copy(source))
        # Written as bytes: a null function pointer cannot be assigned.
        ctypes.memset(ctypes.addressof(source) + kind.release.offset, 0, kind.release.size)
        return owned

    # Bound here, because this may run when the names of modules are gone.
    def __del__(self, byref: Any = ctypes.byref) -> None:
        release = self.struct.release
        if release:
            release(byref(self.struct))


def extension_name(schema: Schema) -> str | None:
    """The name of the extension type, from the metadata: pairs of strings with their lengths."""
    if not schema.metadata:
        return None
    position = schema.metadata

    def number() -> int:
        nonlocal position
        value = ctypes.c_int32.from_address(position).value
        position += 4
        return value

    def text() -> bytes:
        nonlocal position
        length = number()
        value = ctypes.string_at(position, length)
        position += length
        return value

    pairs = {text(): text() for _ in range(number())}
    name = pairs.get(b"ARROW:extension:name")
    return None if name is None else name.decode()


def schema_of(stream: Owned) -> Owned:
    """The type of the chunks of a stream."""
    schema = Owned(Schema())
    _check(stream, stream.struct.get_schema(ctypes.byref(stream.struct), schema.struct))
    return schema


def chunks_of(stream: Owned) -> Iterator[Owned]:
    """The arrays of a stream, each of which outlives it."""
    while True:
        chunk = Owned(Array())
        _check(stream, stream.struct.get_next(ctypes.byref(stream.struct), chunk.struct))
        if not chunk.struct.release:
            return
        yield chunk


def _check(stream: Owned, status: int) -> None:
    if status:
        text = stream.struct.get_last_error(ctypes.byref(stream.struct))
        reason = f"error {status}" if text is None else text.decode(errors="replace")
        raise BufferError(f"the Arrow stream failed: {reason}")
