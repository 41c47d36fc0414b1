"""Assemble WebAssembly from instructions: a module with one generated function.

    function = Function(locals={"x": "v128"}, body="local.get $x  f32x4.sqrt  local.set $x")

Only instructions of the table below, numbers and names of locals are accepted: any other word is a
KeyError, never bytes. The module is a side module for Emscripten's loader (dylink.0), so Pyodide
links it into Python's own memory.

Source: WebAssembly Core Specification 2.0, chapter 5; DynamicLinking.md of its tool-conventions.
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import chain

from bascule.backend.wasm.inlining import parse_function

TYPES = {"i32": 0x7F, "i64": 0x7E, "f64": 0x7C, "v128": 0x7B}
_FUNCTION, _EMPTY = 0x60, 0x40


def unsigned(value: int) -> bytes:
    """Encode an unsigned number (LEB128)."""
    result = bytearray()
    while value > 0x7F:
        result.append(value & 0x7F | 0x80)
        value >>= 7
    return bytes((*result, value))


def signed(value: int) -> bytes:
    """Encode a signed number (LEB128)."""
    result = bytearray()
    while not -64 <= value < 64:
        result.append(value & 0x7F | 0x80)
        value >>= 7
    return bytes((*result, value & 0x7F))


def vector(items: Sequence[bytes]) -> bytes:
    """Encode items after their count."""
    return unsigned(len(items)) + b"".join(items)


def section(number: int, content: bytes) -> bytes:
    """Encode a section of a module."""
    return bytes((number,)) + unsigned(len(content)) + content


def named(name: str) -> bytes:
    """Encode a name after its length."""
    encoded = name.encode()
    return unsigned(len(encoded)) + encoded


# Immediates of instructions: each takes the words after the instruction.
_Words = Iterator[str]
_Operands = Callable[[_Words], bytes]


def _none(words: _Words) -> bytes:
    del words
    return b""


def _index(words: _Words) -> bytes:
    return unsigned(int(next(words)))


def _number(words: _Words) -> bytes:
    return signed(int(next(words)))


def _address(words: _Words) -> bytes:
    return b"\0" + unsigned(int(next(words)))  # no alignment promised; the offset


def _lane(words: _Words) -> bytes:
    return bytes((int(next(words)),))


def _address_lane(words: _Words) -> bytes:
    return _address(words) + _lane(words)


def _lanes(words: _Words) -> bytes:
    return bytes(int(next(words)) for _ in range(16))


def _words_of(words: _Words) -> bytes:
    """Four lanes of one 32-bit word."""
    return struct.pack("<I", int(next(words), 0) & 0xFFFFFFFF) * 4


def _floats_of(words: _Words) -> bytes:
    """Four lanes of one float."""
    return struct.pack("<f", float(next(words))) * 4


def _doubles_of(words: _Words) -> bytes:
    """Two lanes of one double."""
    return struct.pack("<d", float(next(words))) * 2


def _lanes_of(words: _Words) -> bytes:
    """Four lanes of a word each."""
    return struct.pack("<4I", *(int(next(words), 0) & 0xFFFFFFFF for _ in range(4)))


def _block(words: _Words) -> bytes:
    del words
    return bytes((_EMPTY,))


_PLAIN: Mapping[str, tuple[int, _Operands]] = {
    "block": (0x02, _block), "loop": (0x03, _block), "if": (0x04, _block), "else": (0x05, _none),
    "end": (0x0B, _none), "br": (0x0C, _index), "br_if": (0x0D, _index), "call": (0x10, _index),
    "local.get": (0x20, _index), "local.set": (0x21, _index), "local.tee": (0x22, _index),
    "i32.load": (0x28, _address), "i32.load8_s": (0x2C, _address), "i32.load8_u": (0x2D, _address),
    "i32.load16_s": (0x2E, _address), "i32.load16_u": (0x2F, _address),
    "i32.store": (0x36, _address), "i32.store8": (0x3A, _address), "i32.store16": (0x3B, _address),
    "f32.store": (0x38, _address),
    "i32.const": (0x41, _number),
    "i32.eqz": (0x45, _none), "i32.eq": (0x46, _none), "i32.ne": (0x47, _none),
    "i32.gt_s": (0x4A, _none),
    "i32.add": (0x6A, _none), "i32.sub": (0x6B, _none),
    "i32.and": (0x71, _none), "i32.shl": (0x74, _none),
    "f64.add": (0xA0, _none), "f64.mul": (0xA2, _none), "f32.demote_f64": (0xB6, _none),
}  # fmt: skip

_VECTOR: Mapping[str, tuple[int, _Operands]] = {
    "v128.load": (0, _address), "v128.load16x4_s": (3, _address), "v128.load16x4_u": (4, _address),
    "v128.load32_splat": (9, _address), "v128.store": (11, _address),
    "i32x4.const": (12, _words_of), "f32x4.const": (12, _floats_of),
    "f64x2.const": (12, _doubles_of), "v128.const": (12, _lanes_of),
    "i8x16.shuffle": (13, _lanes), "i32x4.splat": (17, _none), "f32x4.splat": (19, _none),
    "i32x4.extract_lane": (27, _lane), "f32x4.extract_lane": (31, _lane),
    "i32x4.eq": (55, _none), "i32x4.ne": (56, _none), "i32x4.lt_s": (57, _none),
    "i32x4.lt_u": (58, _none), "i32x4.gt_s": (59, _none), "i32x4.gt_u": (60, _none),
    "i32x4.le_s": (61, _none), "i32x4.le_u": (62, _none), "i32x4.ge_s": (63, _none),
    "i32x4.ge_u": (64, _none),
    "f32x4.eq": (65, _none), "f32x4.ne": (66, _none), "f32x4.lt": (67, _none),
    "f32x4.gt": (68, _none), "f32x4.le": (69, _none), "f32x4.ge": (70, _none),
    "v128.not": (77, _none), "v128.and": (78, _none), "v128.andnot": (79, _none),
    "v128.or": (80, _none), "v128.xor": (81, _none), "v128.bitselect": (82, _none),
    "v128.store32_lane": (90, _address_lane), "v128.store64_lane": (91, _address_lane),
    "v128.load32_zero": (92, _address), "f32x4.demote_f64x2_zero": (94, _none),
    "f64x2.promote_low_f32x4": (95, _none),
    "f32x4.ceil": (103, _none), "f32x4.floor": (104, _none), "f32x4.trunc": (105, _none),
    "f32x4.nearest": (106, _none),
    "i16x8.extend_low_i8x16_s": (135, _none), "i16x8.extend_low_i8x16_u": (137, _none),
    "i32x4.abs": (160, _none), "i32x4.neg": (161, _none),
    "i32x4.extend_low_i16x8_s": (167, _none), "i32x4.extend_low_i16x8_u": (169, _none),
    "i32x4.shl": (171, _none), "i32x4.shr_s": (172, _none), "i32x4.shr_u": (173, _none),
    "i32x4.add": (174, _none), "i32x4.sub": (177, _none), "i32x4.mul": (181, _none),
    "i32x4.min_s": (182, _none), "i32x4.min_u": (183, _none), "i32x4.max_s": (184, _none),
    "i32x4.max_u": (185, _none),
    "f32x4.abs": (224, _none), "f32x4.neg": (225, _none), "f32x4.sqrt": (227, _none),
    "f32x4.add": (228, _none), "f32x4.sub": (229, _none), "f32x4.mul": (230, _none),
    "f32x4.div": (231, _none), "f32x4.min": (232, _none), "f32x4.max": (233, _none),
    "f32x4.pmin": (234, _none), "f32x4.pmax": (235, _none),
    "f64x2.add": (240, _none), "f64x2.mul": (242, _none), "f64x2.extract_lane": (33, _lane),
    "i32x4.trunc_sat_f32x4_s": (248, _none), "i32x4.trunc_sat_f32x4_u": (249, _none),
    "f32x4.convert_i32x4_s": (250, _none), "f32x4.convert_i32x4_u": (251, _none),
}  # fmt: skip

CODES: Mapping[str, tuple[bytes, _Operands]] = {
    **{word: (bytes((code,)), operands) for word, (code, operands) in _PLAIN.items()},
    **{word: (b"\xfd" + unsigned(code), operands) for word, (code, operands) in _VECTOR.items()},
}


@dataclass(frozen=True, slots=True)
class Part:
    """A compiled function (v128, ...) -> v128 that refers to nothing outside itself."""

    name: str
    n_inputs: int
    code: bytes


@dataclass(frozen=True, slots=True)
class Function:
    """(i32) -> (): its parameter is the local `params`; `locals` have names and types.

    `call $name` calls one of `parts`, or inlines it if it has no branches.
    """

    body: str
    locals: Mapping[str, str] = field(default_factory=dict[str, str])
    parts: Sequence[Part] = ()

    def module(self) -> bytes:
        """Return the module's bytes; it imports env.memory and exports `run`."""
        writer = _Writer(self)
        types = [bytes((_FUNCTION,)) + vector([bytes((TYPES["i32"],))]) + vector([])]
        for part in writer.called:
            inputs = [bytes((TYPES["v128"],))] * part.n_inputs
            results = [bytes((TYPES["v128"],))]
            types.append(bytes((_FUNCTION,)) + vector(inputs) + vector(results))
        codes = [writer.code(), *(part.code for part in writer.called)]
        return b"".join((
            b"\0asm\1\0\0\0",
            section(0, named("dylink.0") + section(1, bytes(4))),  # needs no memory of its own
            section(1, vector(types)),
            section(2, vector([named("env") + named("memory") + b"\2\0\0"])),
            section(3, vector([unsigned(at) for at in range(len(types))])),
            section(7, vector([named("run") + b"\0\0"])),
            section(10, vector([unsigned(len(each)) + each for each in codes])),
        ))  # fmt: skip

    def code(self) -> bytes:
        """Return the body with its end."""
        return _Writer(self).instructions()


class _Writer:
    """Resolves the words of a function; constants of inlined parts are created at its start."""

    def __init__(self, function: Function) -> None:
        self._words = function.body.split()
        self._types = [TYPES[kind] for kind in function.locals.values()]
        self._places = {f"${name}": at for at, name in enumerate(("params", *function.locals))}
        bodies = {part.name: parse_function(part.code) for part in function.parts}
        self._inlined = {
            f"${part.name}": (part, body)
            for part in function.parts
            if (body := bodies[part.name]) is not None
        }
        self.called = [part for part in function.parts if f"${part.name}" not in self._inlined]
        self._places |= {f"${part.name}": at for at, part in enumerate(self.called, start=1)}
        self._first: dict[str, int] = {}
        self._constants: dict[bytes, int] = {}

    def code(self) -> bytes:
        """Return the locals and the instructions, as in a module's code section."""
        instructions = self.instructions()
        return vector([bytes((1, kind)) for kind in self._types]) + instructions

    def instructions(self) -> bytes:
        """Return the instructions with their end."""
        words = iter(chain(self._words, ("end",)))
        resolved = (str(self._places.get(word, word)) if word[0] == "$" else word for word in words)
        result = bytearray()
        for word in resolved:
            if word == "call":
                name = next(words)
                result += self._inline(name) if name in self._inlined else self._call(name)
                continue
            code, operands = CODES[word]
            result += code + operands(resolved)
        made = (
            CODES["v128.const"][0] + constant + CODES["local.set"][0] + unsigned(at)
            for constant, at in self._constants.items()
        )
        return b"".join(made) + bytes(result)

    def _call(self, name: str) -> bytes:
        return CODES["call"][0] + unsigned(int(self._places.get(name, name)))

    def _inline(self, name: str) -> bytes:
        """Return a part's body; its inputs are on the stack."""
        part, body = self._inlined[name]
        if name not in self._first:
            self._first[name] = self._local(*[TYPES["v128"]] * part.n_inputs, *body.locals)
        first = self._first[name]
        result = bytearray()
        for at in reversed(range(part.n_inputs)):
            result += CODES["local.set"][0] + unsigned(first + at)
        for piece in body.pieces:
            if piece.local is not None:
                result += bytes((piece.local[0],)) + unsigned(first + piece.local[1])
            elif piece.constant is not None:
                if piece.constant not in self._constants:
                    self._constants[piece.constant] = self._local(TYPES["v128"])
                result += CODES["local.get"][0] + unsigned(self._constants[piece.constant])
            else:
                result += piece.code
        return bytes(result)

    def _local(self, *types: int) -> int:
        """Add locals; return the index of the first."""
        self._types += types
        return 1 + len(self._types) - len(types)
