"""Functions of four lanes for generated modules: the bodies in web/wasm/parts.wasm, by name.

A part refers to nothing outside itself (web/wasm/parts/parts.h), so its compiled body is valid in
any module.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from functools import cache

from bascule.backend.wasm.assembler import Part
from bascule.backend.wasm.reading import Reader
from bascule.base import assets

_TYPES, _FUNCTIONS, _EXPORTS, _CODES = 1, 3, 7, 10
_FUNCTION_EXPORT = 0


@cache
def parts() -> Mapping[str, Part]:
    """Return every part, read from the module once."""
    sections = dict(_sections(assets.path("web/wasm/parts.wasm").read_bytes()))
    types = Reader(sections[_TYPES])
    n_inputs = [_inputs_of(types) for _ in range(types.number())]
    functions = Reader(sections[_FUNCTIONS])
    type_of = [functions.number() for _ in range(functions.number())]
    codes = Reader(sections[_CODES])
    code_of = [codes.bytes() for _ in range(codes.number())]
    return {
        name: Part(name, n_inputs[type_of[at]], code_of[at])
        for name, at in _exports(Reader(sections[_EXPORTS]))
    }


def _sections(module: bytes) -> Iterator[tuple[int, bytes]]:
    reader = Reader(module, 8)
    while reader.has_more:
        yield reader.byte(), reader.bytes()


def _inputs_of(types: Reader) -> int:
    """Return the number of vectors that a function type takes."""
    types.byte()
    n_inputs = len(types.bytes())
    types.bytes()  # its results: one vector
    return n_inputs


def _exports(exports: Reader) -> Iterator[tuple[str, int]]:
    for _ in range(exports.number()):
        name, kind, at = exports.bytes().decode(), exports.byte(), exports.number()
        if kind == _FUNCTION_EXPORT:
            yield name, at
