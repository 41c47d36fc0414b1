"""Convert the types in WGSL source to types with sizes and offsets."""

from __future__ import annotations

import re
from collections.abc import Sequence

from bascule.errors import ShaderError
from bascule.kernels.wgsl_cursor import Cursor, fault
from bascule.kernels.wgsl_expressions import whole_number
from bascule.kernels.wgsl_module import Attribute, Module, type_tokens
from bascule.kernels.wgsl_tokens import Token
from bascule.kernels.wgsl_types import (
    ArrayOf,
    Matrix,
    Scalar,
    ScalarName,
    StoredType,
    Struct,
    Vector,
    struct_of,
)

_SCALARS: dict[str, ScalarName] = {
    "f32": "f32", "f16": "f16", "i32": "i32", "u32": "u32", "bool": "bool",
}  # fmt: skip
_SUFFIXES: dict[str, ScalarName] = {"f": "f32", "h": "f16", "i": "i32", "u": "u32"}
_SHORT = re.compile(r"(?:vec([234])([fhiu])|mat([234])x([234])([fh]))")
_LONG = re.compile(r"(?:vec([234])|mat([234])x([234]))")
_DEEPEST = 16
_MAX_NBYTES = 1 << 40


class Layout:
    """The types of one module."""

    def __init__(self, module: Module) -> None:
        self._module = module
        self._structs: dict[str, Struct] = {}

    def type_of(self, tokens: Sequence[Token], at: Token, depth: int = 0) -> StoredType:
        """Return the type of the tokens; ShaderError, at `at`, for one that no buffer can hold."""
        if not tokens:
            raise self._fault(at, "its type is missing")
        if depth > _DEEPEST:
            raise self._fault(tokens[0], "types are nested too deeply")
        name, arguments = tokens[0].text, _arguments(tokens)
        if not arguments:
            return self._named(name, tokens[0], depth)
        if name == "array":
            return self._array(arguments, tokens[0], depth)
        element = self.type_of(arguments[0], tokens[0], depth + 1)
        if isinstance(element, Scalar) and len(arguments) == 1:
            if name == "atomic":
                return Scalar(element.name, atomic=True)
            if (match := _LONG.fullmatch(name)) is not None:
                if match[1]:
                    return Vector(int(match[1]), element)
                return Matrix(int(match[2]), int(match[3]), element)
        raise self._fault(tokens[0], f"a buffer holds no '{name}'")

    def _named(self, name: str, at: Token, depth: int) -> StoredType:
        if (alias := self._module.aliases.get(name)) is not None:
            return self.type_of(alias, at, depth + 1)
        if name in self._module.structs:
            return self._struct(name, at, depth)
        if name in _SCALARS:
            return Scalar(_SCALARS[name])
        match = _SHORT.fullmatch(name)
        if match is None:
            raise self._fault(at, f"a buffer holds no '{name}'")
        if match[1]:
            return Vector(int(match[1]), Scalar(_SUFFIXES[match[2]]))
        return Matrix(int(match[3]), int(match[4]), Scalar(_SUFFIXES[match[5]]))

    def _array(self, arguments: list[list[Token]], at: Token, depth: int) -> StoredType:
        element = self.type_of(arguments[0], at, depth + 1)
        if len(arguments) == 1:
            return ArrayOf(element, None)
        count = whole_number(arguments[1], self._module.constant)
        if count is None or not 0 < count * element.nbytes < _MAX_NBYTES:
            raise self._fault(at, "its number of elements is no positive constant that is known")
        return ArrayOf(element, count)

    def _struct(self, name: str, at: Token, depth: int) -> Struct:
        if name in self._structs:
            return self._structs[name]
        text = self._module.structs[name]
        if not text.members:
            raise self._fault(text.at, f"struct {name} has no members")
        fields: list[tuple[str, StoredType, int | None, int | None]] = []
        for index, (attributes, member, tokens) in enumerate(text.members):
            type = self.type_of(tokens, at, depth + 1)
            if _is_unsized(type) and index < len(text.members) - 1:
                problem = f"{member} has no size, so it must be the last member of {name}"
                raise self._fault(tokens[0], problem)
            align, size = self._number(attributes, "align"), self._number(attributes, "size")
            fields.append((member, type, align, size))
        self._structs[name] = struct_of(name, fields)
        return self._structs[name]

    def _number(self, attributes: Sequence[Attribute], name: str) -> int | None:
        for attribute in attributes:
            if attribute.name != name:
                continue
            value = whole_number(attribute.arguments, self._module.constant)
            if value is not None and 0 < value < _MAX_NBYTES:
                return value
        return None

    def _fault(self, at: Token, problem: str) -> ShaderError:
        return fault(self._module.label, at, problem)


def _is_unsized(type: StoredType) -> bool:
    return isinstance(type, ArrayOf) and type.count is None


def _arguments(tokens: Sequence[Token]) -> list[list[Token]]:
    """Return the template arguments of a type, split at commas."""
    if len(tokens) < 3 or tokens[1].text != "<":
        return []
    results: list[list[Token]] = [[]]
    depth = 0
    for token in tokens[2:-1]:
        depth += {"<": 1, "(": 1, ">": -1, ")": -1}.get(token.text, 0)
        if token.text == "," and not depth:
            results.append([])
        else:
            results[-1].append(token)
    return [each for each in results if each]  # a trailing comma is allowed


def parameter_types(cursor: Cursor) -> list[str]:
    """Return the names of the types of a function's parameters."""
    results: list[str] = []
    while not cursor.ended:
        if cursor.take(":"):
            results.append(type_tokens(cursor)[0].text)
        else:
            cursor.next()
    return results
