"""A small run of one call whose answer numpy knows: what a kernel must get right before it serves.

A trial keeps what a kernel's text and constants follow from (the op, its attributes, the length of
sums, heads, dtypes) and cuts the rest: rows, columns of a weight, vocabulary, slots of a cache. It
needs no weights of a model, so it proves a kernel for every model, and costs a few milliseconds.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from math import prod
from typing import Any

from bascule.arrays import NUMPY, Array, np
from bascule.backend.cpu import ReferenceBackend
from bascule.dtypes import BlockType, DType, block_of
from bascule.program.blocks import dequantise
from bascule.program.ops import OPS, takes_over
from bascule.program.ops.parts import PLACES
from bascule.program.program import Attribute, Call, Dim, Parameter, Program, Shape, Value

# Past a tile's edge, and with rows enough for the kernels that are made for many.
_TOKENS, _ROWS = 36, 72
# The table of angles is read at p % 256 and at 256 + p // 256.
_ANGLES = 260
_LONGEST = {"tokens": 61, "cache": 61, "angles": _ANGLES}
_COLS, _TABLE, _VOCABULARY = 72, 97, 1000
# Where a text stands in its cache when the run begins.
_POSITION = 17
_STATES = ("tokens", "cache", "angles", "settings")
# Which axes of which operands hold one size that may be cut, and to what.
_Cuts = tuple[tuple[tuple[tuple[int, int], ...], int], ...]
_CUTS: Mapping[str, _Cuts] = {
    "embedding": ((((1, 0),), _TABLE), (((2, 0),), _TOKENS)),
    "linear": ((((1, 0), (2, 0), (3, -1)), _COLS),),
    "gated_linear": ((((1, 0),), 2 * _COLS),),
    "token_embedding": ((((0, 0),), _TABLE),),
    "argmax_token": ((((0, 1),), _VOCABULARY),),
    "penalise": ((((0, 1),), _VOCABULARY),),
    "sample_token": ((((0, 1),), _VOCABULARY),),
}
# Byte offsets of a block's halves, and their size: numbers come out at about 0.3.
_HALVES: Mapping[DType, tuple[tuple[int, float], ...]] = {
    "f16": ((0, 0.3),),
    "q4_0": ((0, 0.06),),
    "q4_1": ((0, 0.06), (2, 0.3)),
    "q8_0": ((0, 0.004),),
    "q4_k": ((0, 0.002), (2, 0.01)),
    "q5_k": ((0, 0.001), (2, 0.01)),
    "q6_k": ((208, 0.0005),),
}
# Far from where top-p and min-p cut, and from each other: rounding changes no draw.
_LIKELY = (6.0, 5.5, 5.0, 4.5, 4.0, -4.0)
_SEED = 11
# Numbers of a weight that tell how large all of them are.
_SOME = 1 << 14


def trial_of(call: Call, *, cut: bool = True) -> Trial:
    """The trial of such calls; not cut it keeps every size but that of the table of angles.

    What a call goes on with (`onto`) is left out: only what it writes itself is compared.
    """
    if takes_over(call):
        call = replace(call, operands=(*call.operands[:-1], None))
    if cut:
        call = replace(call, attributes=tuple(map(_early, call.attributes)))
    most = _dim_limits(call) if cut else {d.name: _ANGLES for d in _angles(call)}
    return Trial(_cut(call, most, _CUTS.get(call.op, ()) if cut else ()))


def family(call: Call) -> str:
    """Equal for calls that one trial serves: they differ in how many rows they have, and in where
    parts begin, at most.
    """
    operands = call.operands[:-1] if takes_over(call) else call.operands
    shapes = [_fixed(o.shape) + o.dtype if o else "-" for o in operands]
    told = [(name, value) for name, value in call.attributes if name not in PLACES]
    attributes = [f"{name}={v.name if isinstance(v, Dim) else v}" for name, v in told]
    return " ".join([call.op, *attributes, *shapes])


@dataclass(frozen=True)
class Trial:
    """A call, and data for it that is the same on every machine."""

    call: Call
    _data: dict[str, Array] = field(default_factory=dict[str, Array])

    @cached_property
    def program(self) -> Program:
        """The call alone: matrices are parameters, what outlives a run states, the rest inputs."""
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
        """Of a run that leaves some rows of the largest out."""
        return {d.name: d.limit if d.limit < 4 else d.limit - 3 for d in self.program.dims}

    @property
    def updated(self) -> tuple[Value, ...]:
        """States that the call changes."""
        names = OPS[self.call.op].updates
        pairs = zip(self.call.operands, OPS[self.call.op].operands, strict=True)
        return tuple(value for value, name in pairs if value is not None and name in names)

    def data(self, value: Value) -> Array:
        """What an operand holds: an input or state in its shape, a parameter's bytes."""
        if value.name not in self._data:
            pairs = zip(self.call.operands, OPS[self.call.op].operands, strict=True)
            role = next(name.rstrip("?") for v, name in pairs if v and v.name == value.name)
            self._data[value.name] = self._made(value, role)
        return self._data[value.name]

    def put(self, store: Any, states: Any) -> dict[str, Array]:
        """Write parameters and states where a backend has them; returns the inputs."""
        values = {o.name: o for o in self.call.operands if o is not None}
        for parameter in self.program.parameters:
            store.write(store.targets[parameter.name], 0, _words(self.data(values[parameter.name])))
        for state in self.program.states:
            states.write(state.name, 0, _words(self.data(state)))
        return {v.name: self.data(v) for v in self.program.inputs}

    async def expected(self) -> list[Array]:
        """The result, then the states that the call changes, as numpy has them.

        What a part of a result leaves to others is NaN.
        """
        backend, program = ReferenceBackend(), self.program
        store = backend.store(program.parameters)
        states = backend.states(program.states, self.sizes)
        inputs = self.put(store, states)
        if takes_over(self.call):
            onto = Value("onto", self.call.result.shape)
            call = replace(self.call, operands=(*self.call.operands[:-1], onto))
            program = replace(program, calls=(call,), inputs=(*program.inputs, onto))
            inputs[onto.name] = np.full(onto.sizes(self.sizes), np.nan, np.float32)
        executable = await backend.prepare(program, store, states)
        found = await executable.run(self.sizes, inputs)
        return [*found.values(), *(states.arrays[v.name] for v in self.updated)]

    async def compared(self, found: Sequence[Array]) -> list[tuple[Array, Array]]:
        """What was found beside what numpy has; of a part of a result only what it writes."""
        expected = await self.expected()
        if not takes_over(self.call):
            return list(zip(found, expected, strict=True))
        written = ~np.isnan(expected[0])
        rest = zip(found[1:], expected[1:], strict=True)
        return [(found[0][written], expected[0][written]), *rest]

    @cached_property
    def _kinds(self) -> dict[str, str]:
        row, found = OPS[self.call.op], dict[str, str]()
        for value, told in zip(self.call.operands, row.operands, strict=True):
            name = told.rstrip("?")
            if value is None:
                continue
            if name in _STATES or (name == "position" and value.dtype == "u32"):
                found[value.name] = "state"
            else:
                matrix = name in ("weight", "table") and len(value.shape) == 2
                found.setdefault(value.name, "parameter" if matrix else "input")
        return found

    def _made(self, value: Value, role: str) -> Array:
        rng = np.random.default_rng(len(role) + 31 * len(value.shape))
        shape = value.sizes(self.sizes)
        if self._kinds[value.name] == "parameter":
            return _matrix(rng, value)
        match role:
            case "ids":
                table = self.call.operands[1]
                return _ids(rng, table.limits[0] if table else 1, shape)
            case "tokens":
                return _ids(rng, _TABLE, shape)
            case "lengths":
                most = self.call.operands[0]
                tokens = most.sizes(self.sizes)[1] if most else 1
                return np.maximum(tokens // (1 + np.arange(shape[0])), 1).astype(np.uint32)
            case "skipped":
                return (np.arange(prod(shape)) % 3).astype(np.uint32)
            case "position" if value.dtype == "u32":
                return np.full(shape, _POSITION, np.uint32)
            case "settings":
                return _settings()
            case "logits":
                return _logits(rng, shape)
            case _:
                made = rng.standard_normal(shape) * self._scale(role)
                return made.astype(NUMPY[value.dtype])

    def _scale(self, role: str) -> float:
        """Of an operand's numbers: those of a product with a matrix come out at about 1."""
        weight = self.call.operands[1] if len(self.call.operands) > 1 else None
        if role != "x" or self.call.op not in ("linear", "gated_linear") or weight is None:
            return 1.0
        block = block_of(weight.dtype)
        count = min(prod(weight.limits), _SOME) // block.n_elements
        raw = self.data(weight)[: count * block.nbytes]
        numbers = dequantise(BlockType[weight.dtype.upper()], raw, count * block.n_elements)
        return 1 / (float(np.sqrt(np.mean(np.square(numbers)))) * weight.limits[1] ** 0.5)


def _cut(call: Call, most: Mapping[str, int], cuts: _Cuts) -> Call:
    """The same call with fewer rows and slots, by their Dims' names, and fewer columns."""

    def cut(size: Attribute) -> Any:
        known = isinstance(size, Dim)
        return Dim(size.name, min(size.limit, most.get(size.name, size.limit))) if known else size

    shapes = [[cut(size) for size in o.shape] if o else [] for o in call.operands]
    for places, limit in cuts:
        for operand, axis in places:
            shape = shapes[operand]
            if shape and isinstance(shape[axis], int):
                shape[axis] = min(shape[axis], limit)
    operands = tuple(
        replace(o, shape=tuple(shape)) if o else None
        for o, shape in zip(call.operands, shapes, strict=True)
    )
    attributes = tuple((name, cut(value)) for name, value in call.attributes)
    shape = OPS[call.op].shape(tuple(o.shape if o else None for o in operands), dict(attributes))
    return Call(call.op, operands, replace(call.result, shape=shape), attributes)


def _early(attribute: tuple[str, Attribute]) -> tuple[str, Attribute]:
    """The first query of a part among those that a trial has."""
    name, value = attribute
    if name == "first_query" and isinstance(value, int):
        return name, min(value, _TOKENS // 3)
    return attribute


def _angles(call: Call) -> list[Dim]:
    pairs = zip(call.operands, OPS[call.op].operands, strict=True)
    return [d for o, name in pairs if o and name == "angles" for d in o.shape if isinstance(d, Dim)]


def _dim_limits(call: Call) -> dict[str, int]:
    """By the Dims' names: texts and their tokens give some 72 rows together."""
    found = {d.name: _TOKENS for _, d in call.attributes if isinstance(d, Dim)}
    for operand, name in zip(call.operands, OPS[call.op].operands, strict=True):
        dims = [d for d in operand.shape if isinstance(d, Dim)] if operand else []
        found |= {d.name: _LONGEST.get(name, _TOKENS) for d in dims}
    first = call.operands[0]
    batched = 2 if call.op == "embedding" else 3
    if first is not None and len(first.shape) == batched:
        texts, tokens = first.shape[0], min(first.limits[1], _TOKENS)
        if isinstance(texts, Dim):
            found[texts.name] = -(-_ROWS // tokens)
    return found


def _matrix(rng: np.random.Generator, value: Value) -> Array:
    """Random blocks with scales of a sane size and both signs, as bytes."""
    count = prod(value.limits)
    if value.dtype == "f32":
        return rng.standard_normal(count).astype(np.float32).view(np.uint8)
    if value.dtype == "bf16":
        wide = rng.standard_normal(count).astype(np.float32).view(np.uint32)
        return (wide >> 16).astype(np.uint16).view(np.uint8)
    block = block_of(value.dtype)
    raw = rng.integers(0, 256, (count // block.n_elements, block.nbytes), np.uint8)
    for at, size in _HALVES[value.dtype]:
        halves = size * rng.uniform(0.5, 1.5, len(raw)) * rng.choice((-1, 1), len(raw))
        raw[:, at : at + 2] = halves.astype("<f2")[:, None].view(np.uint8)
    return raw.reshape(-1)


def _ids(rng: np.random.Generator, below: int, shape: tuple[int, ...]) -> Array:
    made = rng.integers(0, below, shape).astype(np.uint32)
    made.reshape(-1)[0] = below - 1
    return made


def _logits(rng: np.random.Generator, shape: tuple[int, ...]) -> Array:
    made = rng.uniform(-30, -20, shape)
    places = rng.permutation(shape[-1])[: len(_LIKELY)]
    made[..., places] = _LIKELY[: len(places)]
    return made.astype(np.float32)


def _settings() -> Array:
    """Temperature 1, top-p 0.97, min-p 0.01, a penalty of 1.25 on the last 8 tokens."""
    numbers = np.array([1.0, 0, 0.97, 0.01, 1.25, 0, 0, 0], np.float32).view(np.uint32)
    numbers[[1, 5, 6]] = 0, 8, _SEED
    return numbers


def _words(data: Array) -> Array:
    """Its bytes, filled up to whole words."""
    raw = np.ascontiguousarray(data).reshape(-1).view(np.uint8)
    return np.concatenate((raw, np.zeros(-raw.size % 4, np.uint8)))


def _fixed(shape: Shape) -> str:
    return f"{[d.name if isinstance(d, Dim) else d for d in shape]}"
