"""A small run of one call that numpy computes too: a kernel's test before its first use.

A trial keeps what a kernel's text and constants depend on (the op, its attributes, the length of
sums, heads, dtypes) and cuts the rest: rows, columns of a weight, vocabulary, slots of a cache. It
needs no weights of a model, so it proves a kernel for every model, and takes a few milliseconds.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any

from bascule.backend.cpu import ReferenceBackend
from bascule.base.arrays import Array, np
from bascule.program.ops import OPS, extends_result, matrix_of, operands_of, samples
from bascule.program.ops.parts import PLACES
from bascule.program.ops.table import Operand
from bascule.program.program import Attribute, Call, Dim, Parameter, Program, Shape, Value

# Past a tile's edge, and enough rows for the kernels made for many.
_TOKENS, _ROWS = 36, 72
# Slots of a state.
_SLOTS = 61


def trial_of(call: Call, *, cut: bool = True) -> Trial:
    """Return the trial of such calls; without `cut` it keeps every size except that of the angle
    table.

    An operand that the call adds to (`onto`) is left out: only what the call itself writes is
    compared.
    """
    if extends_result(call):
        call = replace(call, operands=(*call.operands[:-1], None))
    if cut:
        call = replace(call, attributes=tuple(map(_early, call.attributes)))
    limits = _dim_limits(call) if cut else _certain_rows(call)
    return Trial(_cut(call, limits, fixed=not cut))


def family(call: Call) -> str:
    """Return a text that is equal for calls with the same trial: they differ at most in their
    number of rows, and in where parts start.
    """
    operands = call.operands[:-1] if extends_result(call) else call.operands
    shapes = [_fixed(o.shape) + o.dtype if o else "-" for o in operands]
    settings = [(name, value) for name, value in call.attributes if name not in PLACES]
    attributes = [f"{name}={v.name if isinstance(v, Dim) else v}" for name, v in settings]
    return " ".join([call.op, *attributes, *shapes])


@dataclass(frozen=True)
class Trial:
    """A call, and data for it that is the same on every machine."""

    call: Call
    _data: dict[str, Array] = field(default_factory=dict[str, Array])

    @cached_property
    def program(self) -> Program:
        """Return the call alone: matrices are parameters, states are states, the rest inputs."""
        call, kinds = self.call, self._kinds
        values = {o.name: o for o in call.operands if o is not None}

        def of(kind: str) -> tuple[Value, ...]:
            return tuple(v for name, v in values.items() if kinds[name] == kind)

        parameters = tuple(
            Parameter(v.name, v.limits, (v.name,), dtype=v.dtype) for v in of("parameter")
        )
        shapes: list[Shape] = [v.shape for v in values.values()]
        dims = {d.name: d for shape in shapes for d in shape if isinstance(d, Dim)}
        dims |= {d.name: d for _, d in call.attributes if isinstance(d, Dim)}
        result = call.result
        return Program(
            name=f"trial of {call.op}",
            inputs=of("input"),
            outputs=(result,),
            parameters=parameters,
            calls=(call,),
            dims=tuple(dims.values()),
            slots={result.name: 0},
            slot_nbytes=(result.nbytes,),
            states=of("state"),
        )

    @property
    def sizes(self) -> dict[str, int]:
        """Return sizes of a run with fewer rows than the largest."""
        return {d.name: d.limit if d.limit < 4 else d.limit - 3 for d in self.program.dims}

    @property
    def updated(self) -> tuple[Value, ...]:
        """States that the call changes."""
        return tuple(value for operand, value in operands_of(self.call) if operand.updated)

    def data(self, value: Value) -> Array:
        """Return an operand's data: an input or state in its shape, a parameter's bytes."""
        if value.name not in self._data:
            pairs = operands_of(self.call)
            operand = next(each for each, other in pairs if other.name == value.name)
            self._data[value.name] = self._array_for(value, operand)
        return self._data[value.name]

    def put(self, store: Any, states: Any) -> dict[str, Array]:
        """Write parameters and states to a backend's stores; return the inputs."""
        values = {o.name: o for o in self.call.operands if o is not None}
        for parameter in self.program.parameters:
            store.write(store.targets[parameter.name], 0, _words(self.data(values[parameter.name])))
        for state in self.program.states:
            states.write(state.name, 0, _words(self.data(state)))
        return {v.name: self.data(v) for v in self.program.inputs}

    async def expected(self) -> list[Array]:
        """Return numpy's result, then the states that the call changes.

        What a part of a result does not write is NaN.
        """
        backend, program = ReferenceBackend(), self.program
        store = backend.store(program.parameters)
        states = backend.states(program.states, self.sizes)
        inputs = self.put(store, states)
        if extends_result(self.call):
            onto = Value("onto", self.call.result.shape)
            call = replace(self.call, operands=(*self.call.operands[:-1], onto))
            program = replace(program, calls=(call,), inputs=(*program.inputs, onto))
            inputs[onto.name] = np.full(onto.sizes(self.sizes), np.nan, np.float32)
        executable = await backend.prepare(program, store, states)
        result = await executable.run(self.sizes, inputs)
        return [*result.values(), *(states.arrays[v.name] for v in self.updated)]

    async def compared(self, results: Sequence[Array]) -> list[tuple[Array, Array]]:
        """Return pairs of results and numpy's; for a part of a result only what it writes."""
        expected = await self.expected()
        if not extends_result(self.call):
            return list(zip(results, expected, strict=True))
        written = ~np.isnan(expected[0])
        rest = zip(results[1:], expected[1:], strict=True)
        return [(results[0][written], expected[0][written]), *rest]

    @cached_property
    def _kinds(self) -> dict[str, str]:
        kinds = {"state": "state", "weight": "parameter", "table": "parameter"}
        results: dict[str, str] = {}
        for operand, value in operands_of(self.call):
            kind = kinds.get(operand.role, "input")
            if kind == "parameter" and any(isinstance(size, Dim) for size in value.shape):
                kind = "input"  # a table that was computed
            results.setdefault(value.name, kind)
        return results

    def _array_for(self, value: Value, operand: Operand) -> Array:
        draw = samples.Draw(
            value=value,
            shape=value.sizes(self.sizes),
            call=self.call,
            matrix=matrix_of(self.call),
            sizes=self.sizes,
            data=self.data,
            rng=np.random.default_rng(len(operand.name) + 31 * len(value.shape)),
        )
        if operand.role in ("table", "weight") and self._kinds[value.name] == "input":
            return samples.normal(draw)
        return (operand.sample or samples.BY_ROLE.get(operand.role, samples.normal))(draw)


def _cut(call: Call, limits: Mapping[str, int], *, fixed: bool) -> Call:
    """Return the same call with fewer rows and slots, by the names of Dims, and, unless the other
    sizes are `fixed`, fewer columns.
    """

    def cut(size: Attribute) -> Any:
        known = isinstance(size, Dim)
        return Dim(size.name, min(size.limit, limits.get(size.name, size.limit))) if known else size

    operands: list[Value | None] = []
    for operand, value in zip(OPS[call.op].operands, call.operands, strict=True):
        shape = [cut(size) for size in value.shape] if value else []
        axis, limit = operand.cut or (0, 0)
        if shape and operand.cut and not fixed and isinstance(shape[axis], int):
            shape[axis] = min(shape[axis], limit)
        operands.append(replace(value, shape=tuple(shape)) if value else None)
    attributes = tuple((name, cut(value)) for name, value in call.attributes)
    shape = OPS[call.op].shape(tuple(o.shape if o else None for o in operands), dict(attributes))
    return Call(call.op, tuple(operands), replace(call.result, shape=shape), attributes)


def _early(attribute: tuple[str, Attribute]) -> tuple[str, Attribute]:
    """Limit the first query of a part to those of a trial."""
    name, value = attribute
    if name == "first_query" and isinstance(value, int):
        return name, min(value, _TOKENS // 3)
    return attribute


def _certain_rows(call: Call) -> dict[str, int]:
    """Return sizes by Dim name for operands whose rows follow from how the op reads them."""
    pairs = ((each.rows, value) for each, value in operands_of(call) if each.rows)
    return {d.name: rows for rows, value in pairs for d in value.shape if isinstance(d, Dim)}


def _dim_limits(call: Call) -> dict[str, int]:
    """Return sizes by Dim name: texts and their tokens make about 72 rows."""
    results = {d.name: _TOKENS for _, d in call.attributes if isinstance(d, Dim)}
    for operand, value in operands_of(call):
        limit = _SLOTS if operand.role == "state" else _TOKENS
        results |= {d.name: limit for d in value.shape if isinstance(d, Dim)}
    first, role = call.operands[0], OPS[call.op].operands[0].role
    batched = 2 if role == "ids" else 3
    if first is not None and len(first.shape) == batched:
        texts, tokens = first.shape[0], min(first.limits[1], _TOKENS)
        if isinstance(texts, Dim):
            results[texts.name] = -(-_ROWS // tokens)
    return {**results, **_certain_rows(call)}


def _words(data: Array) -> Array:
    """Return its bytes, padded to a multiple of 4."""
    raw = np.ascontiguousarray(data).reshape(-1).view(np.uint8)
    return np.concatenate((raw, np.zeros(-raw.size % 4, np.uint8)))


def _fixed(shape: Shape) -> str:
    return f"{[d.name if isinstance(d, Dim) else d for d in shape]}"
