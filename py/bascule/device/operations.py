"""device.ops: the operations of the op table, on arrays and buffers, one at a time."""

# pyright: reportPrivateUsage=false
# Operations use the private parts of buffers.

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from inspect import Parameter, Signature
from math import isfinite
from types import MappingProxyType
from typing import Any

from bascule.backend.base import Backend, Computation
from bascule.base.arguments import did_you_mean
from bascule.base.arrays import need_numpy, np
from bascule.base.turns import CrossLoopLock
from bascule.device.proving import is_wanted
from bascule.errors import InputError
from bascule.kernels.buffer import BufferDType, BufferPool, DeviceBuffer
from bascule.kernels.kernel_device import KernelDevice
from bascule.program.compile import freeze
from bascule.program.graph import Graph
from bascule.program.ops import ACTIVATIONS, OPS
from bascule.program.ops.table import Op, Operand
from bascule.program.program import Attribute, Dim, Program, Shape

# Programs that stay compiled: each holds a uniform buffer, and no operand.
_MAX_KEPT = 256
_WHOLE_NUMBERS = ("ids", "lengths")
_NUMPY_HINT = "Load numpy into this Pyodide first."
# The kinds of settings, in words.
_KINDS: Mapping[type, str] = MappingProxyType(
    {
        bool: "True or False",
        int: "a whole number",
        Dim: "a whole number",
        float: "a finite number",
        str: "a name, or the numbers of axes",
    }
)


def _is_public(row: Op) -> bool:
    """Whether an op is useful alone: without states, and not as a part of another."""
    roles = {operand.role for operand in row.operands}
    return "state" not in roles and row.parts <= row.defaults.keys()


@dataclass(frozen=True, slots=True)
class _Named:
    """A public operation: a row of the op table, with some of its attributes set."""

    name: str
    row: Op
    preset: Mapping[str, Attribute] = field(default_factory=dict[str, Attribute])

    @property
    def meaning(self) -> str:
        """The formula or description."""
        kind = self.preset.get("kind")
        return self.row.meaning if kind is None else f"y = {kind}(x)"

    @property
    def operands(self) -> tuple[Operand, ...]:
        """The operands that a caller passes."""
        return tuple(operand for operand in self.row.operands if operand.role != "onto")

    @property
    def attributes(self) -> Mapping[str, type]:
        """The attributes that a caller sets."""
        hidden = {*self.row.parts, *self.preset}
        return {name: kind for name, kind in self.row.attributes.items() if name not in hidden}

    @property
    def signature(self) -> Signature:
        """The signature of a call."""
        results = [
            Parameter(
                operand.name,
                Parameter.POSITIONAL_OR_KEYWORD,
                default=None if operand.optional else Parameter.empty,
            )
            for operand in self.operands
        ]
        for name in self.attributes:
            default = self.row.defaults.get(name, Parameter.empty)
            results.append(Parameter(name, Parameter.KEYWORD_ONLY, default=default))
        results.append(Parameter("out", Parameter.KEYWORD_ONLY, default=None))
        return Signature(results)


_ROWS: Mapping[str, _Named] = MappingProxyType(
    {
        **{row.name: _Named(row.name, row) for row in OPS.values() if _is_public(row)},
        **{kind: _Named(kind, OPS["activate"], {"kind": kind}) for kind in ACTIVATIONS[1:]},
    }
)


class Operations:
    """The operations of a device: `await device.ops.matmul(a, b)`.

    Operands are numpy arrays (float32, float16, or integers for ids and lengths) or `DeviceBuffer`s
    of this device; the result is a `DeviceBuffer` (see `DeviceBuffer.numpy`), or `out`, one of the
    result's shape that is not an operand. A program is compiled once for its shapes.
    `dir(device.ops)` lists the operations, `help(device.ops.matmul)` shows a signature. Raises
    InputError for shapes, dtypes and settings that an operation does not take, LimitError for a
    tensor that is too large for the device.
    """

    def __init__(self, device: KernelDevice) -> None:
        self._device = device
        self._computations: OrderedDict[object, Computation] = OrderedDict()
        self._kept_on: Backend | None = None
        self._preparing = CrossLoopLock()
        self.n_compiled = 0

    def __dir__(self) -> list[str]:
        return sorted([*_ROWS, "reshape"])

    def __getattr__(self, name: str) -> Operation:
        if name.startswith("_"):
            raise AttributeError(name)
        result = _ROWS.get(name)
        if result is None:
            hint = did_you_mean(name, dir(self)) or f"There are {', '.join(dir(self))}."
            raise AttributeError(f"device.ops has no operation {name!r}. {hint}", name=name)
        return Operation(self, result)

    async def reshape(self, x: Any, shape: Sequence[int]) -> DeviceBuffer:
        """Return the numbers in another shape, see `DeviceBuffer.reshape`; arrays are copied."""
        await self._ready()
        return self._buffer("reshape", "x", x).reshape(shape)

    @property
    def _pool(self) -> BufferPool:
        return self._device.pool

    def close(self) -> None:
        """Free the compiled programs."""
        while self._computations:
            self._computations.popitem()[1].close()

    async def run(
        self, named: _Named, arguments: tuple[Any, ...], options: Mapping[str, Any]
    ) -> DeviceBuffer:
        """Compute an operation."""
        bound = _bound(named, arguments, options)
        await self._ready()
        backend = self._pool.backend
        async with backend.turns.turn():
            operands = {
                operand.name: self._operand(named, operand, bound[operand.name])
                for operand in named.operands
                if bound[operand.name] is not None
            }
            _check_indices(named, operands)
            attributes = {
                name: _attribute(named.name, name, kind, bound[name])
                for name, kind in named.attributes.items()
            }
            shapes = {name: buffer.shape for name, buffer in operands.items()}
            program = _program(named, shapes, attributes)
            (result,) = program.outputs
            out = self._out(named.name, bound["out"], result.limits, operands)
            computation = await self._prepared((named.name, *shapes.items()), attributes, program)
            stores = {name: buffer._store for name, buffer in operands.items()}
            await computation.run(stores, {result.name: out._store})
        return out

    async def _ready(self) -> None:
        await self._device.ready("device.ops")
        await need_numpy("device.ops", _NUMPY_HINT)
        if is_wanted(None):
            self._pool.backend.prove_kernels()

    async def _prepared(
        self, shapes: object, attributes: Mapping[str, Attribute], program: Program
    ) -> Computation:
        key = (shapes, *sorted(attributes.items()))
        backend = self._pool.backend
        async with self._preparing.turn():
            if self._kept_on is not backend:  # the device was opened again
                self.close()
                self._kept_on = backend
            result = self._computations.get(key)
            if result is None:
                result = self._computations[key] = await backend.computation(program)
                self.n_compiled += 1
                if len(self._computations) > _MAX_KEPT:
                    self._computations.popitem(last=False)[1].close()
            self._computations.move_to_end(key)
            return result

    def _buffer(self, op: str, name: str, value: Any) -> DeviceBuffer:
        """Return an operand as a buffer of this device."""
        where = f"op {op}, {name}"
        if not isinstance(value, DeviceBuffer):
            return self._pool.upload(value, where)
        value._check_on(self._pool, where)
        return value

    def _operand(self, named: _Named, operand: Operand, value: Any) -> DeviceBuffer:
        result = self._buffer(named.name, operand.name, value)
        wanted: BufferDType = "u32" if operand.role in _WHOLE_NUMBERS else "f32"
        if result._dtype != wanted:
            expected = "whole numbers" if wanted == "u32" else "floats"
            hint = f"Convert it: x.astype(numpy.{'uint32' if wanted == 'u32' else 'float32'})."
            where = f"op {named.name}, {operand.name}"
            raise InputError(where, expected, f"dtype {result.dtype}", hint=hint)
        return result

    def _out(
        self, op: str, value: Any, shape: tuple[int, ...], operands: Mapping[str, DeviceBuffer]
    ) -> DeviceBuffer:
        where = f"op {op}, out"
        if value is None:
            return self._pool.empty(shape, "f32", f"The result of {op}")
        if not isinstance(value, DeviceBuffer):
            raise InputError(where, "a DeviceBuffer", type(value).__name__)
        result = self._buffer(op, "out", value)
        if result.shape != shape or result._dtype != "f32":
            raise InputError(where, f"float32 of shape {shape}", f"{result.dtype} {result.shape}")
        if any(result._shares_memory(operand) for operand in operands.values()):
            raise InputError(where, "a buffer that is no operand", "an operand")
        return result


class Operation:
    """One operation of `device.ops`; calling it computes."""

    def __init__(self, operations: Operations, named: _Named) -> None:
        self._operations = operations
        self._named = named
        self.__name__ = named.name
        self.__doc__ = f"{named.meaning}."
        self.__signature__ = named.signature

    def __repr__(self) -> str:
        return f"<operation {self._named.name}{self._named.signature}>"

    async def __call__(self, *operands: Any, **options: Any) -> DeviceBuffer:
        """Compute; see `Operations`."""
        return await self._operations.run(self._named, operands, options)


def _bound(
    named: _Named, arguments: tuple[Any, ...], options: Mapping[str, Any]
) -> Mapping[str, Any]:
    signature = named.signature
    try:
        bound = signature.bind(*arguments, **options)
    except TypeError as error:
        hint = f"{named.meaning}."
        where, expected = f"op {named.name}", f"{named.name}{signature}"
        raise InputError(where, expected, f"{error}", hint=hint) from None
    bound.apply_defaults()
    return bound.arguments


def _attribute(op: str, name: str, kind: type, value: Any) -> Attribute:
    """Convert a setting to its type in the op table."""
    where = f"op {op}, {name}"
    if kind is bool and isinstance(value, bool | np.bool_):
        return bool(value)
    number = not isinstance(value, bool | np.bool_)
    if kind in (int, Dim) and number and isinstance(value, int | np.integer):
        return int(value)
    if kind is float and number and isinstance(value, int | float | np.integer | np.floating):
        if isfinite(value):
            return float(value)
    elif kind is str and isinstance(value, str):
        return value
    elif kind is str and isinstance(value, Sequence) and all(isinstance(n, int) for n in value):
        return "".join(map(str, value))  # the order of axes
    raise InputError(where, _KINDS[kind], repr(value)[:80])


def _check_indices(named: _Named, operands: Mapping[str, DeviceBuffer]) -> None:
    """InputError for ids past their table, and lengths past the number of tokens."""
    for operand in named.operands:
        result = operands.get(operand.name)
        if result is None or result._largest is None:
            continue
        if operand.role == "ids":
            rows = [operands[o.name].shape[0] for o in named.operands if o.role == "table"]
            maximum, what = min(rows) - 1, "ids of the table's rows, up to"
        else:
            tokens = (each.shape[1] for each in operands.values() if len(each.shape) == 3)
            maximum, what = max(tokens, default=result._largest), "lengths up to the tokens,"
        if result._largest > maximum:
            where = f"op {named.name}, {operand.name}"
            raise InputError(where, f"{what} {maximum:,}", f"{result._largest:,}")


def _program(
    named: _Named, shapes: Mapping[str, Shape], attributes: Mapping[str, Attribute]
) -> Program:
    """Return the program of one call; InputError, with the formula, for the wrong shapes."""
    graph = Graph(named.name)
    values = [
        graph.input(o.name, shapes[o.name], "u32" if o.role in _WHOLE_NUMBERS else "f32")
        if o.name in shapes
        else None
        for o in named.operands
    ]
    where, hint = f"op {named.name}", f"{named.name}: {named.meaning}."
    try:
        result = graph.call(named.row.name, *values, **named.preset, **attributes)
    except InputError as error:
        raise InputError(where, error.expected, error.found, hint=hint) from None
    if min(result.limits) < 1:
        raise InputError(where, "a non-empty result", str(result.limits), hint=hint)
    graph.output(result)
    return freeze(graph)
