"""Record a model's forward pass as a list of calls."""

from __future__ import annotations

from dataclasses import dataclass, field, replace

from bascule.base.dtypes import DType
from bascule.errors import InputError
from bascule.program.ops import OPS, onto_of
from bascule.program.program import Attribute, Call, Computed, Dim, Parameter, Shape, Value


@dataclass
class Graph:
    """A forward pass being recorded. Values are named by the op that made them, for errors."""

    name: str
    inputs: list[Value] = field(default_factory=list[Value])
    outputs: list[Value] = field(default_factory=list[Value])
    parameters: dict[str, Parameter] = field(default_factory=dict[str, Parameter])
    calls: list[Call] = field(default_factory=list[Call])
    states: list[Value] = field(default_factory=list[Value])

    def input(self, name: str, shape: Shape, dtype: DType = "f32") -> Value:
        """Declare a tensor that each run supplies."""
        self.inputs.append(Value(name, shape, dtype))
        return self.inputs[-1]

    def parameter(
        self,
        name: str,
        shape: tuple[int, ...],
        *tensors: str,
        rows: int = 0,
        first: int = 0,
        dtype: DType = "f32",
        computed: Computed | None = None,
    ) -> Value:
        """Declare a weight; `tensors` name the file's tensors, by default `name` itself.

        With `rows` only that many of their rows are loaded, from `first` on. `computed` ones are in
        no file.
        """
        if name in self.parameters:
            raise InputError(f"graph {self.name}", "each parameter once", name)
        named = () if computed else tensors or (name,)
        self.parameters[name] = Parameter(name, shape, named, rows, dtype, first, computed=computed)
        return Value(name, shape, dtype)

    def state(self, name: str, shape: Shape, dtype: DType = "f32") -> Value:
        """Declare a tensor that outlives a run and that calls may update."""
        self.states.append(Value(name, shape, dtype))
        return self.states[-1]

    def reshape(self, value: Value, shape: Shape) -> Value:
        """Return a view of an input, state or result in another shape, without a call.

        InputError if the number of elements changes, or what precedes a size that is known only per
        run.
        """
        if value.name in self.parameters:
            raise InputError("reshape", "a result, a state or an input", value.name)
        if _strides(value.shape) != _strides(shape):
            raise InputError("reshape", f"as many elements as in {value.shape}", str(shape))
        return replace(value, shape=shape)

    def call(self, op: str, *operands: Value | None, **attributes: Attribute) -> Value:
        """Record one op and return its result, shaped by the op table's rule."""
        row = OPS.get(op)
        if row is None:
            raise InputError(f"graph {self.name}", f"an op of {sorted(OPS)}", repr(op))
        padded = operands + (None,) * (len(row.operands) - len(operands))
        for value, operand in zip(padded, row.operands, strict=True):
            if value is None and not operand.optional:
                raise InputError(f"op {op}", f"operand {operand.name!r}", "None")
            if operand.updated and value not in self.states:
                raise InputError(f"op {op}", f"a state as {operand.name!r}", str(value))
        attributes = {**row.defaults, **attributes}
        if attributes.keys() != row.attributes.keys():
            raise InputError(f"op {op}", f"attributes {sorted(row.attributes)}", str(attributes))
        shape = row.shape(tuple(o.shape if o else None for o in padded), attributes)
        result = Value(f"{op}_{len(self.calls)}", shape, row.result)
        call = Call(op, padded, result, tuple(sorted(attributes.items())))
        onto = onto_of(call)
        if onto is not None and all(onto != each.result for each in self.calls):
            raise InputError(f"op {op}", "a call's result to go on with", str(onto))
        self.calls.append(call)
        return result

    def output(self, value: Value) -> None:
        """Make a value an output."""
        self.outputs.append(value)

    @property
    def dims(self) -> tuple[Dim, ...]:
        """Each Dim, once."""
        shapes = [v.shape for v in (*self.inputs, *self.states, *(c.result for c in self.calls))]
        results = {d.name: d for shape in shapes for d in shape if isinstance(d, Dim)}
        return tuple(results.values())


def _strides(shape: Shape) -> list[tuple[Dim | None, int]]:
    """Return the elements before the first Dim, then each Dim with those from it to the next."""
    results: list[tuple[Dim | None, int]] = [(None, 1)]
    for size in shape:
        dim, count = results[-1]
        if isinstance(size, Dim):
            results.append((size, 1))
        else:
            results[-1] = dim, count * size
    return results
