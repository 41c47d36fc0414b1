"""Sort the arguments of a kernel's call by the bindings of its shader."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from bascule.base.arguments import did_you_mean
from bascule.errors import InputError
from bascule.kernels.shader import Binding, Shader
from bascule.kernels.uniforms import packed
from bascule.kernels.wgsl_types import Struct


@dataclass(frozen=True, slots=True)
class Call:
    """The arguments of one call: storage by binding, scalars by keyword, uniforms as bytes."""

    storage: Mapping[str, Any]
    outputs: tuple[str, ...]  # the writable bindings, in order
    uniforms: Mapping[str, bytes]
    scalars: Mapping[str, Any]
    count: Any
    groups: Any


class Signature:
    """The parameters of a shader's call."""

    def __init__(self, shader: Shader) -> None:
        self._shader = shader
        self.storage = [b for b in shader.bindings if b.access != "uniform"]
        self.uniforms = [b for b in shader.bindings if b.access == "uniform"]
        self.outputs = tuple(b.name for b in self.storage if b.access == "write")
        self.members = _members(self.storage, self.uniforms)

    def __str__(self) -> str:
        reads = [b.name for b in self.storage if b.access == "read"]
        keywords = [*self.members, *(b.name for b in self.uniforms if not _is_struct(b))]
        arguments = [*reads, "*" if keywords or self.outputs else "", *keywords]
        out = "out" if len(self.outputs) == 1 else f"out=({', '.join(self.outputs)})"
        arguments += [out] if self.outputs else []
        return f"({', '.join(filter(None, arguments))}, count or groups)"

    def bind(
        self, arguments: Sequence[Any], out: Any, count: Any, groups: Any, named: Mapping[str, Any]
    ) -> Call:
        """Return the arguments by binding.

        `out` fills the writable bindings that are not named, in order; positional arguments fill
        the rest. InputError for a missing, unknown or repeated one.
        """
        known = [*(b.name for b in (*self.storage, *self.uniforms)), *self.members]
        for name in named:
            if name not in known:
                hint = did_you_mean(name, known) or f"The call is {self._shader.label}{self}."
                raise self._error("arguments that the shader binds", repr(name), hint=hint)
        storage = {b.name: named[b.name] for b in self.storage if b.name in named}
        if out is not None:
            self._bind_out(storage, out)
        self._bind_positional(storage, arguments)
        for binding in self.storage:
            if binding.name not in storage:
                hint = "Bindings take arrays and buffers"
                hint += ", or a shape for a new buffer." if binding.access == "write" else "."
                expected = f"an argument for {binding.name} ({binding.type})"
                raise self._error(expected, "none", hint=hint)
        scalars = {**({"count": count} if "count" in self.members else {}), **named}
        uniforms = {b.name: self._uniform(b, scalars) for b in self.uniforms}
        scalars = {name: scalars[name] for name in known if name in scalars and name not in storage}
        ordered = {b.name: storage[b.name] for b in self.storage}
        return Call(ordered, self.outputs, uniforms, scalars, count, groups)

    def _bind_out(self, storage: dict[str, Any], out: Any) -> None:
        free = [name for name in self.outputs if name not in storage]
        # A single output may be a shape, which is also a tuple.
        passed = [out] if len(free) == 1 else list(out) if isinstance(out, list | tuple) else [out]
        if len(passed) != len(free):
            expected = f"{len(free)} outputs ({', '.join(free)})" if free else "no out"
            raise self._error(expected, f"out with {len(passed)}")
        storage |= dict(zip(free, passed, strict=True))

    def _bind_positional(self, storage: dict[str, Any], arguments: Sequence[Any]) -> None:
        free = [b.name for b in self.storage if b.name not in storage]
        if len(arguments) > len(free):
            hint = f"The call is {self._shader.label}{self}."
            expected = f"at most {len(free)} positional arguments"
            raise self._error(expected, f"{len(arguments)}", hint=hint)
        storage |= dict(zip(free, arguments, strict=False))

    def _uniform(self, binding: Binding, scalars: Mapping[str, Any]) -> bytes:
        where = f"{self._shader.label}, {binding.name}"
        if binding.name in scalars:
            return packed(binding.type, scalars[binding.name], where)
        if not isinstance(binding.type, Struct):
            raise InputError(where, f"a value ({binding.type})", "none")
        names = [name for name, owner in self.members.items() if owner == binding.name]
        values = {name: scalars[name] for name in names if name in scalars}
        return packed(binding.type, values, where)

    def _error(self, expected: str, found: str, *, hint: str = "") -> InputError:
        return InputError(self._shader.label, expected, found, hint=hint)


def _is_struct(binding: Binding) -> bool:
    return isinstance(binding.type, Struct)


def _members(storage: Sequence[Binding], uniforms: Sequence[Binding]) -> dict[str, str]:
    """Return the members of uniform structs that may be keywords, with the binding of each.

    A member of two structs, or with a taken name, is passed in a mapping for its binding.
    """
    results: dict[str, str] = {}
    twice: set[str] = set()
    reserved = {*(b.name for b in (*storage, *uniforms)), "groups", "out"}
    for binding in uniforms:
        for member in binding.type.members if isinstance(binding.type, Struct) else ():
            twice |= {member.name} & results.keys()
            results[member.name] = binding.name
    return {name: owner for name, owner in results.items() if name not in twice | reserved}
