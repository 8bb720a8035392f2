"""Columns of fixed-width numbers from Arrow's C data interface, shared where possible.

Arrow memory is immutable. One block of numbers is shared; several, and booleans, which Arrow packs
into bits, become `Pieces`, to be copied.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, NamedTuple

import numpy as np

from dlferry import _torch
from dlferry._arrow_abi import Array as ArrowArray
from dlferry._arrow_abi import Owned, Schema, Stream, chunks_of, extension_name, schema_of
from dlferry._errors import UnsupportedInput
from dlferry._foreign import ARROW, Array, Foreign, Pieces, array_at
from dlferry._policy import Fact

NUMBERS = {
    "c": "i1", "s": "i2", "i": "i4", "l": "i8", "C": "u1", "S": "u2", "I": "u4", "L": "u8",
    "e": "f2", "f": "f4", "g": "f8",
}  # fmt: skip
TIMES = {
    "tdD": ("i4", "date32"), "tdm": ("i8", "date64"), "tts": ("i4", "time32"),
    "ttm": ("i4", "time32"), "ttu": ("i8", "time64"), "ttn": ("i8", "time64"),
    "ts": ("i8", "timestamp"), "tD": ("i8", "duration"),
}  # fmt: skip
"""Integers that count days or fractions of seconds, by the beginning of the format."""
REFUSED = {
    "n": ("null", "there is nothing in it"),
    "z": ("binary", "make arrays of its bytes"),
    "Z": ("large_binary", "make arrays of its bytes"),
    "vz": ("binary_view", "make arrays of its bytes"),
    "w": ("fixed_size_binary", "view its buffer as uint8"),
    "u": ("string", "parse the strings first"),
    "U": ("large_string", "parse the strings first"),
    "vu": ("string_view", "parse the strings first"),
    "d": ("decimal", "cast it to float64 first"),
    "ti": ("interval", "convert it to a duration first"),
    "+l": ("list", "flatten it, or make it a fixed-size list"),
    "+L": ("large_list", "flatten it, or make it a fixed-size list"),
    "+v": ("list_view", "flatten it, or make it a fixed-size list"),
    "+s": ("struct", "pass one of its columns, or what its to_numpy() gives"),
    "+m": ("map", "pass its keys or its items"),
    "+u": ("union", "pass one of its children"),
    "+r": ("run_end_encoded", "decode it first"),
}
"""The other types, by the beginning of the format: the name, and what to do."""
BLOCK = 1 << 16
"""How many booleans are expanded at a time, so that the temporary array stays in the cache."""


class Kind(NamedTuple):
    """The type of a column, as far as a tensor can have it."""

    dtype: np.dtype[Any]
    packed: bool = False
    """Booleans, eight to a byte."""
    widths: tuple[int, ...] = ()
    """The lengths of the inner axes: those of fixed-size lists."""


class Chunk(NamedTuple):
    """The innermost elements of one Arrow array: so many from element `start` of a buffer."""

    owner: Owned
    address: int
    start: int
    elements: int

    @property
    def length(self) -> int:
        """How many elements the Arrow array itself has, each perhaps a fixed-size list."""
        length: int = self.owner.struct.length
        return length


def memory_of(obj: Any, counts: bool) -> Foreign | None:
    """The memory of an object with `__arrow_c_array__` or `__arrow_c_stream__`; None without.

    Args:
        obj: The object.
        counts: Whether dates and times are taken, as the integers that they are stored as.

    Raises:
        UnsupportedInput: There are nulls, or the type is not one of fixed-width numbers.
        BufferError: The export is malformed, or its stream fails.
    """
    name, exported = _exported(obj)
    if name is None:
        return None
    if name == "__arrow_c_stream__":
        stream = Owned.moved_from(exported, Stream, "arrow_array_stream")
        schema, arrays = schema_of(stream), chunks_of(stream)
    else:
        if not isinstance(exported, tuple) or len(exported) != 2:
            raise BufferError(f"__arrow_c_array__ returned {exported!r}, not a pair of capsules")
        schema = Owned.moved_from(exported[0], Schema, "arrow_schema")
        arrays = iter([Owned.moved_from(exported[1], ArrowArray, "arrow_array")])
    kind = _kind(schema.struct, counts)
    return _joined([_chunk(array, kind) for array in arrays if array.struct.length], kind)


def _exported(obj: Any) -> tuple[str | None, Any]:
    """The first protocol that does not decline, and what it returned."""
    for name in ARROW:
        if hasattr(type(obj), name):
            try:
                return name, getattr(obj, name)()
            except (BufferError, NotImplementedError):
                continue
    return None, None


def _kind(schema: Schema, counts: bool) -> Kind:
    if schema.dictionary:
        raise _unsupported("dictionary", "decode it, or pass its indices")
    extension = extension_name(schema)
    if extension is not None:
        raise _unsupported(f"extension<{extension}>", "pass its storage, or its to_numpy()")
    form = schema.format.decode()
    if form == "b":
        return Kind(np.dtype(bool), packed=True)
    if form in NUMBERS:
        return Kind(np.dtype(NUMBERS[form]))
    if form.startswith("+w:") and schema.n_children == 1:
        inner = _kind(schema.children[0].contents, counts)
        return inner._replace(widths=(int(form[3:]), *inner.widths))
    beginnings = [form[:length] for length in (3, 2, 1)]
    for code, name in (TIMES[form] for form in beginnings if form in TIMES):
        if counts:
            return Kind(np.dtype(code))
        raise _unsupported(name, f"pass dtype=torch.int{int(code[1]) * 8} for the raw count")
    for name, remedy in (REFUSED[form] for form in beginnings if form in REFUSED):
        raise _unsupported(name, remedy)
    raise _unsupported(repr(form), "pass fixed-width numbers")


def _unsupported(name: str, remedy: str) -> UnsupportedInput:
    return UnsupportedInput(
        f"an Arrow array of type {name} has no elements that torch has a dtype for; {remedy}"
    )


def _chunk(owner: Owned, kind: Kind) -> Chunk:
    """The elements of an array, none of them null."""
    array, start, count = owner.struct, owner.struct.offset, owner.struct.length
    _refuse_nulls(array, start, count)
    for width in kind.widths:
        if array.n_children != 1:
            raise BufferError("an Arrow fixed-size list without its child")
        array = array.children[0].contents
        start, count = start * width + array.offset, count * width
        _refuse_nulls(array, start, count)
    if array.n_buffers != 2:
        raise BufferError(f"an Arrow array of numbers with {array.n_buffers} buffers, not 2")
    return Chunk(owner, array.buffers[1] or 0, start, count)


def _refuse_nulls(array: ArrowArray, start: int, count: int) -> None:
    if array.null_count == 0 or array.n_buffers == 0 or not array.buffers[0]:
        return
    valid = _bits(array.buffers[0], start, count, None)
    if not all(block.all() for block in valid):
        raise UnsupportedInput(
            "an Arrow array with nulls: a tensor has no missing values, and they must not vanish; "
            "fill them (fill_null) or leave them out (drop_null) first"
        )


def _bits(address: int, start: int, count: int, owner: object) -> Iterator[Array]:
    """Packed bits as booleans, block by block."""
    size = (start + count + 7) // 8
    packed = array_at(address, np.dtype(np.uint8), (size,), readonly=True, owner=owner)
    for first in range(start, start + count, BLOCK):
        last = min(first + BLOCK, start + count)
        block = np.unpackbits(packed[first // 8 : (last + 7) // 8], bitorder="little")
        yield block[first % 8 : first % 8 + last - first].view(bool)


def _numbers(chunk: Chunk, kind: Kind, shape: tuple[int, ...]) -> Array:
    address = chunk.address and chunk.address + chunk.start * kind.dtype.itemsize
    return array_at(address, kind.dtype, shape, readonly=True, owner=chunk.owner)


def _joined(chunks: list[Chunk], kind: Kind) -> Foreign:
    shape = (sum(chunk.length for chunk in chunks), *kind.widths)
    if not chunks:
        return Foreign(np.empty(shape, kind.dtype))
    if len(chunks) == 1 and not kind.packed:
        return Foreign(_numbers(chunks[0], kind, shape))
    facts = Fact.READ_ONLY | Fact.SUB_BYTE * kind.packed | Fact.CHUNKS * (len(chunks) > 1)

    def arrays() -> Iterator[Array]:
        for chunk in chunks:
            if kind.packed:
                yield from _bits(chunk.address, chunk.start, chunk.elements, chunk.owner)
            else:
                yield _numbers(chunk, kind, (chunk.elements,))

    dtype = _torch.dtypes()[kind.dtype.name]
    return Foreign(Pieces(dtype, shape, (), int(facts), arrays))
