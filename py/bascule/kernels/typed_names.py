"""Signatures of elementwise and reduction kernels: "x: f32, y: T -> z: T"."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from bascule.base.arrays import NUMPY, np
from bascule.errors import InputError
from bascule.kernels.wgsl_cursor import Cursor, fault
from bascule.kernels.wgsl_tokens import Token, tokens_of

_PAIR = re.compile(r"\s*([A-Za-z]\w*)\s*:\s*(\w+)\s*")
_TYPES = ("f32", "i32", "u32", "f16")
_LETTER = re.compile(r"[A-Z]")
_RESERVED = ("i", "a", "b", "WORKGROUP")


@dataclass(frozen=True, slots=True)
class TypedNames:
    """The inputs and outputs of a signature, with their types; a capital letter is any type."""

    text: str
    inputs: tuple[tuple[str, str], ...]
    outputs: tuple[tuple[str, str], ...]

    def resolved(self, where: str, dtypes: Mapping[str, np.dtype[Any]]) -> dict[str, str]:
        """Return the type of each name, for arguments of these dtypes; numbers have none.

        InputError if a letter stands for two types, or an unknown one.
        """
        letters: dict[str, str] = {}
        names = {NUMPY[type]: type for type in _TYPES}
        for name, type in (*self.inputs, *self.outputs):
            if not _LETTER.fullmatch(type) or name not in dtypes:
                continue
            result = names.get(dtypes[name].name)
            if result is None:
                expected = f"one of {', '.join(names)}"
                raise InputError(f"{where}, {name}", expected, f"dtype {dtypes[name]}")
            if letters.setdefault(type, result) != result:
                both = f"{letters[type]} and {result}"
                raise InputError(where, f"one type for {type}", both)
        types: dict[str, str] = {}
        for name, type in (*self.inputs, *self.outputs):
            types[name] = letters.get(type, type)
            if _LETTER.fullmatch(types[name]):
                raise InputError(where, f"an array that fixes the type {type}", "numbers alone")
        return types


def typed_names(text: str, what: str) -> TypedNames:
    """Parse a signature; InputError, naming `what`, for an invalid one."""
    sides = text.split("->") if isinstance(text, str) else []
    if len(sides) != 2:
        raise InputError(f"{what}, signature", '"x: f32, y: f32 -> z: f32"', repr(text)[:80])
    inputs, outputs = (_pairs(side, what) for side in sides)
    names = [name for name, _ in (*inputs, *outputs)]
    for name in names:
        if names.count(name) > 1 or name in _RESERVED or name.startswith("bascule"):
            expected = f"names of its own, none of them {', '.join(_RESERVED)}"
            raise InputError(f"{what}, signature", expected, repr(name))
    if not outputs or len(names) > 8:
        raise InputError(f"{what}, signature", "1 to 8 operands, and an output", repr(text)[:80])
    return TypedNames(text, inputs, outputs)


def checked_statements(wgsl: str, label: str, what: str) -> str:
    """Return statements or an expression that cannot leave the function they are put into.

    ShaderError for unbalanced brackets, InputError for anything but text.
    """
    if not isinstance(wgsl, str) or not wgsl.strip():
        raise InputError(f"{label}, {what}", "WGSL statements as a string", repr(wgsl)[:80])
    tokens: Sequence[Token] = tokens_of(wgsl, label)
    cursor = Cursor(tokens, label)
    while not cursor.ended:
        if cursor.token.text in ("(", "[", "{"):
            cursor.balanced()
        elif cursor.token.text in (")", "]", "}"):
            raise fault(label, cursor.token, f"this '{cursor.token.text}' closes nothing")
        else:
            cursor.next()
    return wgsl


def _pairs(side: str, what: str) -> tuple[tuple[str, str], ...]:
    results: list[tuple[str, str]] = []
    for part in side.split(",") if side.strip() else []:
        match = _PAIR.fullmatch(part)
        if match is None or not (match[2] in _TYPES or _LETTER.fullmatch(match[2])):
            expected = f'"name: type" with a type of {", ".join(_TYPES)} or a capital letter'
            raise InputError(f"{what}, signature", expected, repr(part.strip())[:80])
        results.append((match[1], match[2]))
    return tuple(results)
