"""Read the declarations of a WGSL source: structs, constants, overrides, bindings, functions.

Function bodies are not parsed; only the names in them are recorded. The compiler checks the source:
the reader skips what it does not need.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from bascule.kernels.wgsl_cursor import Cursor, fault
from bascule.kernels.wgsl_expressions import whole_number
from bascule.kernels.wgsl_tokens import Token, tokens_of

_DIRECTIVES = ("enable", "requires", "diagnostic")
_DEEPEST = 20


@dataclass(frozen=True, slots=True)
class Attribute:
    """`@name(arguments)`."""

    name: str
    arguments: tuple[Token, ...]


@dataclass(frozen=True, slots=True)
class Variable:
    """A `var` of the module; `space` and `access` are empty if the source has none."""

    name: str
    space: str
    access: str
    type: tuple[Token, ...]
    attributes: tuple[Attribute, ...]
    at: Token


@dataclass(frozen=True, slots=True)
class Override:
    """An `override`; `id` is the number of its @id, `type` empty if the source leaves it out."""

    name: str
    type: str
    id: int | None
    default: tuple[Token, ...] | None


@dataclass(frozen=True, slots=True)
class Function:
    """A function: its attributes, parameters, and the names in its text."""

    name: str
    attributes: tuple[Attribute, ...]
    parameters: tuple[Token, ...]
    names: frozenset[str]
    at: Token


@dataclass(frozen=True, slots=True)
class StructText:
    """A struct's members as they are written: attributes, name, type."""

    members: tuple[tuple[tuple[Attribute, ...], str, tuple[Token, ...]], ...]
    at: Token


@dataclass(slots=True)
class Module:
    """The declarations of a source, by name."""

    label: str
    structs: dict[str, StructText] = field(default_factory=dict[str, StructText])
    aliases: dict[str, tuple[Token, ...]] = field(default_factory=dict[str, tuple[Token, ...]])
    constants: dict[str, tuple[Token, ...]] = field(default_factory=dict[str, tuple[Token, ...]])
    overrides: dict[str, Override] = field(default_factory=dict[str, Override])
    variables: dict[str, Variable] = field(default_factory=dict[str, Variable])
    functions: dict[str, Function] = field(default_factory=dict[str, Function])

    def constant(self, name: str, depth: int = 0) -> int | None:
        """Return the value of a `const`, if it is an integer."""
        tokens = self.constants.get(name)
        if tokens is None or depth > _DEEPEST:
            return None
        return whole_number(tokens, lambda other: self.constant(other, depth + 1))


def read_module(wgsl: str, label: str) -> Module:
    """Read a source; ShaderError, with its position, if its declarations cannot be parsed."""
    cursor, module = Cursor(tokens_of(wgsl, label), label), Module(label)
    while not cursor.ended:
        _read_declaration(cursor, module)
    return module


def _read_declaration(cursor: Cursor, module: Module) -> None:
    if cursor.take(";"):
        return
    attributes = _attributes(cursor)
    keyword = cursor.next()
    if keyword.text in (*_DIRECTIVES, "const_assert"):
        cursor.until(";")
        cursor.expect(";")
    elif keyword.text == "struct":
        name, read = cursor.name("a struct"), _struct(cursor, keyword)
        module.structs[name] = read
    elif keyword.text == "fn":
        function = _function(cursor, attributes)
        module.functions[function.name] = function
    elif keyword.text == "var":
        variable = _variable(cursor, attributes, keyword)
        module.variables[variable.name] = variable
    elif keyword.text == "override":
        override = _override(cursor, attributes)
        module.overrides[override.name] = override
    elif keyword.text in ("const", "alias"):
        name = cursor.name(f"{'a constant' if keyword.text == 'const' else 'a type'}")
        if cursor.take(":"):
            cursor.until("=", ";")
        cursor.expect("=")
        target = module.constants if keyword.text == "const" else module.aliases
        target[name] = tuple(cursor.until(";"))
        cursor.expect(";")
    else:
        result = "the end of the source" if keyword.kind == "end" else f"'{keyword.text[:40]}'"
        raise fault(cursor.label, keyword, f"expected a declaration, found {result}")


def _attributes(cursor: Cursor) -> tuple[Attribute, ...]:
    results: list[Attribute] = []
    while cursor.take("@"):
        name = cursor.name("an attribute")
        arguments = cursor.balanced() if cursor.token.text == "(" else []
        results.append(Attribute(name, tuple(arguments)))
    return tuple(results)


def _struct(cursor: Cursor, at: Token) -> StructText:
    cursor.expect("{")
    members: list[tuple[tuple[Attribute, ...], str, tuple[Token, ...]]] = []
    while not cursor.take("}"):
        attributes, name = _attributes(cursor), cursor.name("a member")
        cursor.expect(":")
        members.append((attributes, name, type_tokens(cursor)))
        if not cursor.take(",") and cursor.token.text != "}":
            cursor.expect("}")
    return StructText(tuple(members), at)


def _function(cursor: Cursor, attributes: tuple[Attribute, ...]) -> Function:
    at = cursor.token
    name = cursor.name("a function")
    if cursor.token.text != "(":
        cursor.expect("(")
    parameters = cursor.balanced()
    between = cursor.until("{", ";")
    if cursor.token.text != "{":
        cursor.expect("{")
    body = cursor.balanced()
    held = (*parameters, *between, *body)
    before = (None, *(token.text for token in held))
    names = frozenset(
        token.text
        for token, last in zip(held, before, strict=False)
        if token.kind == "name" and last != "."  # a member is no name of the module
    )
    return Function(name, attributes, tuple(parameters), names, at)


def _variable(cursor: Cursor, attributes: tuple[Attribute, ...], at: Token) -> Variable:
    words: list[str] = []
    if cursor.take("<"):
        while not cursor.take(">"):
            words.append(cursor.name("an address space"))
            if not cursor.take(",") and cursor.token.text != ">":
                cursor.expect(">")
    name, type = cursor.name("a variable"), tuple[Token, ...]()
    if cursor.take(":"):
        type = type_tokens(cursor)
    cursor.until(";")
    cursor.expect(";")
    space, access = (*words, "", "")[:2]
    return Variable(name, space, access, type, attributes, at)


def _override(cursor: Cursor, attributes: tuple[Attribute, ...]) -> Override:
    name, type, default = cursor.name("an override"), "", None
    if cursor.take(":"):
        type = "".join(token.text for token in cursor.until("=", ";"))
    if cursor.take("="):
        default = tuple(cursor.until(";"))
    cursor.expect(";")
    numbers = [whole_number(a.arguments, lambda _: None) for a in attributes if a.name == "id"]
    return Override(name, type, numbers[0] if numbers else None, default)


def type_tokens(cursor: Cursor) -> tuple[Token, ...]:
    """Skip a type: a name, and its template arguments."""
    start = cursor.at
    cursor.name("a type")
    if cursor.take("<"):
        depth = 1
        while depth:
            if cursor.ended or cursor.token.text in (";", "{", "}"):
                cursor.expect(">")
            if cursor.token.text == "(":
                cursor.balanced()
                continue
            depth += {"<": 1, ">": -1}.get(cursor.next().text, 0)
    return cursor.passed(start)
