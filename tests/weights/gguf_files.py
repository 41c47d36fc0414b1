"""GGUF files written byte by byte, so that any of their bytes can be a lie."""

from __future__ import annotations

import struct
from collections.abc import Mapping, Sequence
from math import prod

from bascule.base.dtypes import BLOCKS, BlockType
from bascule.weights.gguf import GgufHeader, parse_gguf

U8, I8, U16, I16, U32, I32, F32, BOOL, STRING, ARRAY, U64, I64, F64 = range(13)


def string(text: str | bytes, nbytes: int | None = None) -> bytes:
    """A string, of a claimed length if one is given."""
    raw = text if isinstance(text, bytes) else text.encode()
    return struct.pack("<Q", len(raw) if nbytes is None else nbytes) + raw


def array(code: int, items: list[bytes], count: int | None = None) -> bytes:
    return struct.pack("<IQ", code, len(items) if count is None else count) + b"".join(items)


def key(name: str | bytes, code: int, value: bytes) -> bytes:
    return string(name) + struct.pack("<I", code) + value


def tensor(
    name: str | bytes,
    dimensions: list[int],
    kind: int = 0,
    offset: int = 0,
    n_dimensions: int | None = None,
) -> bytes:
    """A row of the tensor table; `dimensions` as they stand in the file, the adjacent one first."""
    n_dimensions = len(dimensions) if n_dimensions is None else n_dimensions
    table = b"".join(struct.pack("<Q", d % 2**64) for d in dimensions)
    return string(name) + struct.pack("<I", n_dimensions) + table + struct.pack("<IQ", kind, offset)


def gguf_file(
    keys: list[bytes],
    tensors: list[bytes],
    data: bytes = b"",
    *,
    version: int = 3,
    magic: bytes = b"GGUF",
    n_keys: int | None = None,
    n_tensors: int | None = None,
    alignment: int = 32,
) -> bytes:
    counts = (
        len(tensors) if n_tensors is None else n_tensors,
        len(keys) if n_keys is None else n_keys,
    )
    head = magic + struct.pack("<IQQ", version, *counts) + b"".join(keys) + b"".join(tensors)
    return head + bytes(-len(head) % alignment) + data


def nbytes_of(type: BlockType, shape: Sequence[int]) -> int:
    """Bytes of a tensor in a file, which nothing fills up."""
    return prod(shape) // BLOCKS[type].n_elements * BLOCKS[type].nbytes


def model_file(
    tensors: Mapping[str, tuple[BlockType, tuple[int, ...], bytes]], keys: Sequence[bytes] = ()
) -> bytes:
    """A file of these tensors (type, row-major shape, bytes), one after the other."""
    table, data = list[bytes](), b""
    for name, (type, shape, raw) in tensors.items():
        assert len(raw) == nbytes_of(type, shape)
        table.append(tensor(name, list(reversed(shape)), int(type), len(data)))
        data += raw + bytes(-len(raw) % 32)
    return gguf_file([key("general.architecture", STRING, string("llama")), *keys], table, data)


def sound_file() -> bytes:
    """A small file with all that a header can hold."""
    numbers = [
        key("n.u8", U8, b"\xff"),
        key("n.i8", I8, b"\xff"),
        key("n.u16", U16, b"\xfe\xff"),
        key("n.i16", I16, b"\xfe\xff"),
        key("n.u32", U32, struct.pack("<I", 2**32 - 1)),
        key("n.i32", I32, struct.pack("<i", -3)),
        key("n.f32", F32, struct.pack("<f", 0.5)),
        key("n.u64", U64, struct.pack("<Q", 2**64 - 1)),
        key("n.i64", I64, struct.pack("<q", -(2**63))),
        key("n.f64", F64, struct.pack("<d", 1e300)),
    ]
    others = [
        key("general.architecture", STRING, string("llama")),
        key("general.alignment", U32, struct.pack("<I", 64)),
        key("yes", BOOL, b"\1"),
        key("no", BOOL, b"\0"),
        key("empty", STRING, string("")),
        key("tokens", ARRAY, array(STRING, [string("a"), string("ü€🙂"), string("")])),
        key("scores", ARRAY, array(F32, [struct.pack("<f", x) for x in (0, -1.5, 2)])),
        key("flags", ARRAY, array(BOOL, [b"\1", b"\0", b"\1"])),
        key("none", ARRAY, array(I32, [])),
        key("nested", ARRAY, array(ARRAY, [array(U8, [b"\1", b"\2"]), array(STRING, [])])),
    ]
    tensors = [
        tensor("token_embd.weight", [64, 3], kind=3, offset=0),
        tensor("blk.0.bias", [5], kind=0, offset=128),
        tensor("cube", [2, 3, 4, 1], kind=1, offset=192),
    ]
    return gguf_file(numbers + others, tensors, bytes(range(240)), alignment=64)


def parse(data: bytes) -> GgufHeader:
    result = parse_gguf(data, len(data), "f.gguf")
    assert isinstance(result, GgufHeader)
    return result
