"""Shader: a user's WGSL source and the declarations of one entry point."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from math import isfinite
from types import MappingProxyType
from typing import Any, Literal

from bascule.base.arguments import did_you_mean
from bascule.errors import InputError, ShaderError
from bascule.kernels.wgsl_cursor import Cursor, fault
from bascule.kernels.wgsl_expressions import whole_number
from bascule.kernels.wgsl_layout import Layout, parameter_types
from bascule.kernels.wgsl_module import Attribute, Function, Module, Variable, read_module
from bascule.kernels.wgsl_tokens import Token
from bascule.kernels.wgsl_types import StoredType

Access = Literal["uniform", "read", "write"]
Groups = tuple[int, int, int]

_LETTERS: Mapping[Access, str] = MappingProxyType({"uniform": "u", "read": "r", "write": "w"})
_ACCESS: Mapping[tuple[str, str], Access] = MappingProxyType(
    {
        ("uniform", ""): "uniform",
        ("uniform", "read"): "uniform",
        ("storage", ""): "read",
        ("storage", "read"): "read",
        ("storage", "read_write"): "write",
        ("storage", "write"): "write",
    }
)
_RANGES = {"u32": (0, 2**32 - 1), "i32": (-(2**31), 2**31 - 1)}
_MAX_BINDINGS = 1000  # of a bind group, in WebGPU


@dataclass(frozen=True, slots=True)
class Binding:
    """A buffer that the entry point uses; `index` is the number of its @binding."""

    name: str
    index: int
    access: Access
    type: StoredType


class Shader:
    """A source, read for one entry point. Its errors have the source's own lines.

    `label` names the source in errors and ends in ".wgsl". For a text that Bascule has composed
    `sections` are the first lines of the user's parts, each with a label. Raises ShaderError for a
    source that cannot be parsed, or that binds something other than buffers; InputError for an
    entry point that it does not have.
    """

    def __init__(
        self,
        wgsl: str,
        entry: str = "main",
        label: str = "kernel.wgsl",
        *,
        sections: Sequence[tuple[int, str]] = (),
    ) -> None:
        self.wgsl = wgsl
        self.sections = tuple(sections)
        self.label = label
        self.entry = entry
        self._module = read_module(wgsl, label)
        self._function = _entry_of(self._module, entry)
        self._used = _names_used(self._module, self._function)
        self.bindings = self._bindings()

    def placed(self, error: ShaderError) -> ShaderError:
        """Return a compiler's error with the lines of the user's own part."""
        began = [section for section in self.sections if section[0] <= error.line]
        if not began:
            return error
        first, label = began[-1]
        messages = [(line - first + 1, text) for line, text in error.messages]
        return ShaderError(label, messages, column=error.column)

    @cached_property
    def letters(self) -> str:
        """A letter for each binding of group 0, as `Gpu.pipeline` takes them."""
        results = {binding.index: _LETTERS[binding.access] for binding in self.bindings}
        return "".join(results.get(at, "-") for at in range(max(results, default=-1) + 1))

    @cached_property
    def uses_num_workgroups(self) -> bool:
        """Whether the entry point reads num_workgroups."""
        cursor = Cursor([*self._function.parameters, _END], self.label)
        held = [self._function.parameters]
        for name in parameter_types(cursor):
            struct = self._module.structs.get(name)
            for attributes, _, _ in struct.members if struct else ():
                held += [attribute.arguments for attribute in attributes]
        return any(token.text == "num_workgroups" for tokens in held for token in tokens)

    def workgroup_size(self, constants: Mapping[str, float]) -> Groups | None:
        """Return the workgroup size by dimension; None if the source computes it otherwise than
        from integers, constants and overrides.
        """
        attribute = next(a for a in self._function.attributes if a.name == "workgroup_size")
        sizes = [
            whole_number(each, lambda name: self._number(name, constants))
            for each in _by_commas(attribute.arguments)
        ]
        if not 1 <= len(sizes) <= 3 or any(n is None or n < 1 for n in sizes):
            return None
        x, y, z = (*(n or 1 for n in sizes), 1, 1)[:3]
        return x, y, z

    def pipeline_constants(self, constants: Mapping[str, Any]) -> dict[str, float]:
        """Return override constants as `Gpu.pipeline` takes them; InputError for an undeclared
        name, a value that its type cannot hold, and a missing one.
        """
        declared = self._module.overrides
        results: dict[str, float] = {}
        for name, value in constants.items():
            if name not in declared:
                hint = did_you_mean(name, declared) or _list_of("overrides", declared)
                raise InputError(self.label, "overrides of the source", repr(name), hint=hint)
            override = declared[name]
            key = name if override.id is None else str(override.id)
            results[key] = _number_of(value, override.type, f"{self.label}, override {name}")
        for name, override in declared.items():
            if override.default is None and name not in constants and name in self._used:
                hint = f"Give it: constants={{{name!r}: ...}}."
                raise InputError(f"{self.label}, override {name}", "a value", "none", hint=hint)
        return results

    @property
    def overrides(self) -> tuple[str, ...]:
        """The names of the overrides."""
        return tuple(self._module.overrides)

    def _number(self, name: str, constants: Mapping[str, float]) -> int | None:
        """Return the integer value of a constant or an override."""
        if name in constants:
            value = constants[name]
            return int(value) if float(value).is_integer() else None
        override = self._module.overrides.get(name)
        if override is None:
            return self._module.constant(name)
        seen = {**constants, name: float("nan")}  # an override that names itself ends here
        if override.default is None:
            return None
        return whole_number(override.default, lambda other: self._number(other, seen))

    def _bindings(self) -> tuple[Binding, ...]:
        layout, result = Layout(self._module), dict[int, Binding]()
        for variable in self._module.variables.values():
            numbers = {a.name: self._number_in(a) for a in variable.attributes}
            if not {"group", "binding"} & numbers.keys() or variable.name not in self._used:
                continue
            index = self._index_of(variable, numbers)
            if index in result:
                problem = f"binding {index} is both {result[index].name} and {variable.name}"
                raise fault(self.label, variable.at, problem)
            type = layout.type_of(variable.type, variable.at)
            access = _ACCESS[variable.space, variable.access]
            result[index] = Binding(variable.name, index, access, type)
        return tuple(result[index] for index in sorted(result))

    def _index_of(self, variable: Variable, numbers: Mapping[str, int | None]) -> int:
        """Return the number of its binding; ShaderError for what Bascule cannot bind."""
        problem = ""
        group, index = numbers.get("group"), numbers.get("binding")
        if (variable.space, variable.access) not in _ACCESS:
            kind = f"var<{variable.space}>" if variable.space else "a texture or a sampler"
            problem = f"{variable.name} is {kind}; kernels bind uniform and storage buffers"
        elif group is None or index is None or not 0 <= index < _MAX_BINDINGS:
            problem = f"{variable.name} needs @group(0) and a @binding below {_MAX_BINDINGS:,}"
        elif group != 0:
            problem = f"{variable.name} is in group {group}; kernels bind group 0 only"
        if problem:
            raise fault(self.label, variable.at, problem)
        return index or 0

    def _number_in(self, attribute: Attribute) -> int | None:
        return whole_number(attribute.arguments, self._module.constant)


_END = Token("end", "", 0, 0)


def _entry_of(module: Module, entry: str) -> Function:
    compute = {
        function.name: function
        for function in module.functions.values()
        if {"compute", "workgroup_size"} <= {a.name for a in function.attributes}
    }
    if not compute:
        problem = "there is no entry point: a function with @compute and @workgroup_size"
        raise ShaderError(module.label, [(1, problem)])
    if entry not in compute:
        hint = f"The source has {', '.join(compute)}."
        raise InputError(f"{module.label}, entry", "an entry point", repr(entry), hint=hint)
    return compute[entry]


def _names_used(module: Module, function: Function) -> frozenset[str]:
    """Return the names that an entry point uses, directly or through others."""
    seen: set[str] = set()
    waiting = {
        *function.names,
        *(t.text for a in function.attributes for t in a.arguments if t.kind == "name"),
    }
    while waiting:
        name = waiting.pop()
        if name in seen:
            continue
        seen.add(name)
        if name in module.functions:
            waiting |= module.functions[name].names - seen
        texts: list[Sequence[Token]] = [module.constants.get(name, ())]
        if name in module.overrides:
            texts.append(module.overrides[name].default or ())
        if name in module.variables:
            texts.append(module.variables[name].type)
        if name in module.aliases:
            texts.append(module.aliases[name])
        waiting |= {t.text for text in texts for t in text if t.kind == "name"} - seen
    return frozenset(seen)


def _by_commas(tokens: Sequence[Token]) -> list[list[Token]]:
    results: list[list[Token]] = [[]]
    depth = 0
    for token in tokens:
        depth += {"(": 1, ")": -1}.get(token.text, 0)
        if token.text == "," and not depth:
            results.append([])
        else:
            results[-1].append(token)
    return [each for each in results if each]


def _number_of(value: Any, type: str, where: str) -> float:
    """Return an override's value for WebGPU; InputError if its type cannot hold it."""
    wanted = {"bool": "True or False", "u32": "a whole number of 32 bits, not negative"}
    expected = wanted.get(type, "a whole number of 32 bits" if type == "i32" else "a number")
    try:
        number = float(value)
    except (TypeError, ValueError, OverflowError):
        raise InputError(where, expected, repr(value)[:80]) from None
    low, high = _RANGES.get(type, (-3.5e38, 3.5e38))
    fits = type not in ("u32", "i32", "bool") or number.is_integer()
    if not isfinite(number) or not fits or not low <= number <= high:
        raise InputError(where, expected, repr(value)[:80])
    return number


def _list_of(what: str, names: Mapping[str, object]) -> str:
    return f"The source has the {what} {', '.join(names)}." if names else f"It has no {what}."
