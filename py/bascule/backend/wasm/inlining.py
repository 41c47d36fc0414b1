"""Parse compiled functions, to inline them in another function's body.

A call costs as much as ten vector instructions, and each one builds its constants again: V8 takes
three instructions for one. Inlined, they are built once, before the loop.

Source: WebAssembly Core Specification 2.0, chapter 5.4.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from bascule.backend.wasm.reading import Reader

_LOCALS = (0x20, 0x21, 0x22)
_I32_CONST, _I64_CONST = 0x41, 0x42
# Comparisons, arithmetic and conversions: instructions without immediates.
_PLAIN = range(0x45, 0xC5)
_END, _VECTOR = 0x0B, 0xFD
_V128_CONST, _SHUFFLE = 12, 13
_LANE = range(21, 35)
_MEMORY = (*range(12), *range(84, 94))


@dataclass(frozen=True, slots=True)
class Piece:
    """Verbatim instructions, or one that names a local or makes a constant.

    `local`: the code of local.get, local.set or local.tee, and the local. `constant`: 16 bytes.
    """

    code: bytes = b""
    local: tuple[int, int] | None = None
    constant: bytes | None = None


@dataclass(frozen=True, slots=True)
class Body:
    """A function without control flow: the types of its further locals, and its code."""

    locals: Sequence[int]
    pieces: Sequence[Piece]


def parse_function(code: bytes) -> Body | None:
    """Return a function's body in pieces; None if it branches, calls or loads."""
    reader = Reader(code)
    types: list[int] = []
    for _ in range(reader.number()):
        count = reader.number()
        types += [reader.byte()] * count
    pieces: list[Piece] = []
    while True:
        before = reader.at
        byte = reader.byte()
        if byte == _END:
            return None if reader.has_more else Body(types, pieces)
        if byte in _LOCALS:
            pieces.append(Piece(local=(byte, reader.number())))
            continue
        if byte in (_I32_CONST, _I64_CONST):
            reader.number()
        elif byte == _VECTOR:
            operation = reader.number()
            if operation == _V128_CONST:
                pieces.append(Piece(constant=reader.take(16)))
                continue
            if operation in _MEMORY:
                return None
            reader.take(16 if operation == _SHUFFLE else 1 if operation in _LANE else 0)
        elif byte not in _PLAIN:
            return None
        pieces.append(Piece(code=code[before : reader.at]))
