"""Parse the header of a GGUF file as hostile input.

Format, versions 2 and 3, little-endian (https://github.com/ggml-org/ggml/blob/master/docs/gguf.md):
magic, version, two counts; the metadata, typed key by key; the tensor table; then, from the next
multiple of the alignment, the tensors' bytes. Only the standard library: runs in a page.
"""

from __future__ import annotations

import struct
import sys
from array import array
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from math import prod
from typing import NamedTuple

from bascule.base.dtypes import BLOCKS, UNREAD_TYPES, BlockType
from bascule.weights.gguf_reader import (
    INNER_ARRAY_ITEMS,
    MAX_HEADER_NBYTES,
    HeaderTooShort,
    Reader,
    fault,
    quoted,
)

MAGIC = b"GGUF"
DEFAULT_ALIGNMENT = 32
# Enough for a vocabulary of 49k tokens.
FIRST_READ_NBYTES = 2 << 20
_VERSIONS = (2, 3)
_MAX_KEYS = 1 << 16
_MAX_TENSORS = 1 << 16
_MAX_DEPTH = 4
_MAX_KEY_NBYTES = 65_535
_MAX_TENSOR_NAME_NBYTES = 64
_MAX_DIMENSIONS = 4
_MAX_ELEMENTS = 1 << 53
# The smallest size of a key or a tensor entry: a name of one byte, and a value of one byte or one
# dimension.
_MIN_KEY_NBYTES = 8 + 1 + 4 + 1
_MIN_TENSOR_NBYTES = 8 + 1 + 4 + 8 + 4 + 8

_BOOL, _STRING, _ARRAY, _UINT32 = 7, 8, 9, 4
# Value type -> its name and its struct and array code (None: it has a reader of its own).
_VALUE_TYPES: dict[int, tuple[str, str | None]] = {
    0: ("uint8", "B"),
    1: ("int8", "b"),
    2: ("uint16", "H"),
    3: ("int16", "h"),
    4: ("uint32", "I"),
    5: ("int32", "i"),
    6: ("float32", "f"),
    7: ("bool", None),
    8: ("string", None),
    9: ("array", None),
    10: ("uint64", "Q"),
    11: ("int64", "q"),
    12: ("float64", "d"),
}

# An array of numbers is an array.array; one of strings, booleans or arrays is a tuple.
Value = bool | int | float | str | Sequence["Value"]


@dataclass(frozen=True, slots=True)
class GgufTensor:
    """One tensor; `shape` is row-major, `start` counts bytes of the file."""

    name: str
    type: BlockType
    shape: tuple[int, ...]
    start: int
    nbytes: int


@dataclass(frozen=True, slots=True)
class GgufHeader:
    """Everything before a file's weights; tensors start at byte `data_start` or later."""

    version: int
    alignment: int
    metadata: Mapping[str, Value]
    tensors: Mapping[str, GgufTensor]
    data_start: int


@dataclass(frozen=True, slots=True)
class NeedMore:
    """The header is longer than what was passed: at least the first `nbytes` are needed."""

    nbytes: int


async def read_gguf_header(
    read: Callable[[int, int], Awaitable[bytes]], file_nbytes: int, place: str
) -> GgufHeader:
    """Read a file's header in growing ranges; `read(offset, nbytes)` returns those bytes.

    Each byte is read once, and at most MAX_HEADER_NBYTES of them. ModelFileError as `parse_gguf`.
    """
    data = b""
    wanted = min(FIRST_READ_NBYTES, file_nbytes)
    while True:
        more = await read(len(data), wanted - len(data))
        data += more
        result = parse_gguf(data, file_nbytes, place)
        if isinstance(result, GgufHeader):
            return result
        if not more:
            raise fault(place, "file", f"{file_nbytes:,} bytes", f"{len(data):,}")
        wanted = result.nbytes


def parse_gguf(data: bytes, file_nbytes: int, place: str) -> GgufHeader | NeedMore:
    """Parse the header of a file of `file_nbytes` bytes that begins with `data`.

    Returns NeedMore if the header is longer than `data`; it asks for at least twice as much, so
    each byte is parsed about twice in all. Never NeedMore if `data` is the whole file.
    ModelFileError unless the header is sound, at most MAX_HEADER_NBYTES long, and its tensors lie
    inside the file without overlapping; `place` names the file in the message.
    """
    if len(data) > file_nbytes:
        raise fault(place, "file", f"at most {file_nbytes:,} bytes", f"{len(data):,}")
    try:
        return _parse(Reader(data, file_nbytes, place))
    except HeaderTooShort as short:
        doubled = min(2 * len(data), file_nbytes, MAX_HEADER_NBYTES)
        return NeedMore(max(short.nbytes, doubled))


def _parse(reader: Reader) -> GgufHeader:
    version = _version(reader)
    n_tensors = reader.count("number of tensors", _MAX_TENSORS, _MIN_TENSOR_NBYTES)
    n_keys = reader.count("number of metadata keys", _MAX_KEYS, _MIN_KEY_NBYTES)
    metadata, alignment = _metadata(reader, n_keys)
    table = [_entry(reader, index) for index in range(n_tensors)]
    data_start = -(-reader.at // alignment) * alignment
    tensors: dict[str, GgufTensor] = {}
    for entry in table:
        if entry.name in tensors:
            raise reader.fault(f"tensor {quoted(entry.name)}", "a name of its own", "it twice")
        tensors[entry.name] = _tensor(reader, entry, alignment, data_start)
    _check_overlap(reader, tensors)
    return GgufHeader(version, alignment, metadata, tensors, data_start)


def _version(reader: Reader) -> int:
    big_endian = "Bascule reads little-endian files: take the file that is not for big-endian use."
    magic = reader.take(4, "magic")
    if magic == MAGIC[::-1]:
        raise reader.fault("magic", "a little-endian file", "a big-endian one", big_endian)
    if magic != MAGIC:
        hint = "Is this a GGUF file? Its first four bytes say no; fetch it again if it should be."
        raise reader.fault("magic", repr(MAGIC), repr(magic), hint)
    version = reader.u32("version")
    swapped = int.from_bytes(version.to_bytes(4, "little"), "big")
    if 1 <= swapped <= _VERSIONS[-1]:
        result = f"a big-endian one of version {swapped}"
        raise reader.fault("version", "a little-endian file", result, big_endian)
    if version not in _VERSIONS:
        hint = "Convert the model again with a current llama.cpp, or use a newer Bascule."
        raise reader.fault("version", "2 or 3", f"{version:,}", hint)
    return version


def _metadata(reader: Reader, n_keys: int) -> tuple[dict[str, Value], int]:
    """Return all keys with their values, and the alignment."""
    metadata: dict[str, Value] = {}
    alignment = DEFAULT_ALIGNMENT
    for index in range(n_keys):
        key = reader.name(f"metadata key {index:,}", _MAX_KEY_NBYTES)
        where = f"metadata {quoted(key)}"
        if key in metadata:
            raise reader.fault(where, "a key of its own", "it twice")
        code = reader.u32(where)
        value = _value(reader, code, where, depth=0)
        metadata[key] = value
        if key == "general.alignment":
            alignment = _alignment(reader, code, value, where)
    return metadata, alignment


def _alignment(reader: Reader, code: int, value: Value, where: str) -> int:
    if code != _UINT32 or not isinstance(value, int):
        raise reader.fault(where, "type uint32", f"type {_VALUE_TYPES[code][0]}")
    if value < 8 or value & (value - 1):
        raise reader.fault(where, "a power of two from 8", f"{value:,}")
    return value


def _value(reader: Reader, code: int, where: str, depth: int) -> Value:
    if code == _STRING:
        return reader.text(reader.u64(where), where)
    if code == _BOOL:
        return _bools(reader, 1, where)[0]
    if code == _ARRAY:
        return _array(reader, where, depth + 1)
    return _numbers(reader, code, 1, where)[0]


def _array(reader: Reader, where: str, depth: int) -> Sequence[Value]:
    if depth > _MAX_DEPTH:
        raise reader.fault(where, f"arrays nested at most {_MAX_DEPTH} deep", "more")
    code = reader.u32(where)
    count = reader.u64(where)
    if code == _STRING:
        reader.check_room(count * 8, where)
        reader.count_items(count, where)
        return reader.strings(count, where)
    if code == _BOOL:
        reader.count_items(count, where)
        return _bools(reader, count, where)
    if code == _ARRAY:
        reader.check_room(count * 12, where)
        reader.count_items(count * INNER_ARRAY_ITEMS, where)
        return tuple(_array(reader, where, depth + 1) for _ in range(count))
    return _numbers(reader, code, count, where)


def _bools(reader: Reader, count: int, where: str) -> tuple[bool, ...]:
    raw = reader.take(count, where)
    if raw.count(0) + raw.count(1) != count:
        raise reader.fault(where, "booleans of 0 or 1", f"{max(raw)}")
    return tuple(map(bool, raw))


def _numbers(reader: Reader, code: int, count: int, where: str) -> array[int] | array[float]:
    name, letter = _VALUE_TYPES.get(code, ("", None))
    if letter is None:
        raise reader.fault(where, "a value type from 0 to 12", f"{code:,}")
    numbers: array[int] | array[float] = array(letter)
    numbers.frombytes(reader.take(count * struct.calcsize(f"<{letter}"), f"{where} of {name}"))
    if sys.byteorder == "big":
        numbers.byteswap()
    return numbers


class _Entry(NamedTuple):
    """A row of the tensor table; `offset` is relative to the start of the data."""

    name: str
    shape: tuple[int, ...]
    type: int
    offset: int


def _entry(reader: Reader, index: int) -> _Entry:
    name = reader.name(f"name of tensor {index:,}", _MAX_TENSOR_NAME_NBYTES)
    where = f"tensor {quoted(name)}"
    n_dimensions = reader.u32(where)
    if not 1 <= n_dimensions <= _MAX_DIMENSIONS:
        raise reader.fault(where, f"1 to {_MAX_DIMENSIONS} dimensions", f"{n_dimensions:,}")
    # The file lists the innermost dimension first.
    shape = tuple(reversed([reader.u64(where) for _ in range(n_dimensions)]))
    return _Entry(name, shape, type=reader.u32(where), offset=reader.u64(where))


def _tensor(reader: Reader, entry: _Entry, alignment: int, data_start: int) -> GgufTensor:
    name, shape, kind, offset = entry
    where = f"tensor {quoted(name)}"
    if kind not in BLOCKS:
        hint = "Use a file of another quantization, such as Q4_K_M, Q8_0 or F16."
        result = UNREAD_TYPES.get(kind, "unknown")
        known = ", ".join(t.name for t in BLOCKS)
        raise reader.fault(where, f"a type of {known}", f"type {kind:,} ({result})", hint)
    block = BLOCKS[BlockType(kind)]
    if min(shape) < 1:
        raise reader.fault(where, "dimensions from 1", f"shape {shape}")
    count = prod(shape)
    if count > _MAX_ELEMENTS:
        raise reader.fault(where, f"at most {_MAX_ELEMENTS:,} elements", f"shape {shape}")
    if shape[-1] % block.n_elements:
        expected = f"rows of a multiple of {block.n_elements} elements for {BlockType(kind).name}"
        raise reader.fault(where, expected, f"rows of {shape[-1]:,}")
    if offset % alignment:
        raise reader.fault(where, f"an offset that is a multiple of {alignment:,}", f"{offset:,}")
    start, nbytes = data_start + offset, count // block.n_elements * block.nbytes
    if start + nbytes > reader.file_nbytes:
        expected = f"its end within the file's {reader.file_nbytes:,} bytes"
        raise reader.fault(where, expected, f"bytes {start:,} to {start + nbytes:,}")
    return GgufTensor(name, BlockType(kind), shape, start, nbytes)


def _check_overlap(reader: Reader, tensors: Mapping[str, GgufTensor]) -> None:
    end, before = 0, ""
    for tensor in sorted(tensors.values(), key=lambda t: t.start):
        if tensor.start < end:
            expected = f"its start from byte {end:,} on, where {quoted(before)} ends"
            raise reader.fault(f"tensor {quoted(tensor.name)}", expected, f"byte {tensor.start:,}")
        end, before = tensor.start + tensor.nbytes, tensor.name
