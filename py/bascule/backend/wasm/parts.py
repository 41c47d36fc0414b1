"""Functions of four lanes for generated modules: the bodies in web/wasm/parts.wasm, by name.

A part refers to nothing outside itself (web/wasm/parts/parts.h), so that its compiled body means
the same in any module.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from functools import cache

from bascule.backend.wasm.assembler import Part
from bascule.base import assets

_TYPES, _FUNCTIONS, _EXPORTS, _CODES = 1, 3, 7, 10
_FUNCTION_EXPORT = 0


class _Reader:
    """Bytes of our own module, read in order."""

    def __init__(self, data: bytes, at: int = 0) -> None:
        self._data = data
        self._at = at

    @property
    def goes_on(self) -> bool:
        return self._at < len(self._data)

    def byte(self) -> int:
        self._at += 1
        return self._data[self._at - 1]

    def number(self) -> int:
        result = shift = 0
        while True:
            byte = self.byte()
            result |= (byte & 0x7F) << shift
            if byte < 0x80:
                return result
            shift += 7

    def bytes(self) -> bytes:
        n = self.number()
        self._at += n
        return self._data[self._at - n : self._at]


@cache
def parts() -> Mapping[str, Part]:
    """Every part, read from the module once."""
    sections = dict(_sections(assets.path("web/wasm/parts.wasm").read_bytes()))
    types = _Reader(sections[_TYPES])
    n_inputs = [_inputs_of(types) for _ in range(types.number())]
    functions = _Reader(sections[_FUNCTIONS])
    type_of = [functions.number() for _ in range(functions.number())]
    codes = _Reader(sections[_CODES])
    code_of = [codes.bytes() for _ in range(codes.number())]
    return {
        name: Part(name, n_inputs[type_of[at]], code_of[at])
        for name, at in _exports(_Reader(sections[_EXPORTS]))
    }


def _sections(module: bytes) -> Iterator[tuple[int, bytes]]:
    reader = _Reader(module, 8)
    while reader.goes_on:
        yield reader.byte(), reader.bytes()


def _inputs_of(types: _Reader) -> int:
    """How many vectors a function type takes."""
    types.byte()
    n_inputs = len(types.bytes())
    types.bytes()  # its results: one vector
    return n_inputs


def _exports(exports: _Reader) -> Iterator[tuple[str, int]]:
    for _ in range(exports.number()):
        name, kind, at = exports.bytes().decode(), exports.byte(), exports.number()
        if kind == _FUNCTION_EXPORT:
            yield name, at
