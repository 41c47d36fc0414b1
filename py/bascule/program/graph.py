"""Recording: a model's forward pass becomes a list of calls."""

from __future__ import annotations

from dataclasses import dataclass, field

from bascule.errors import InputError
from bascule.program.ops import OPS
from bascule.program.program import Attribute, Call, Dim, DType, Parameter, Shape, Value


@dataclass
class Graph:
    """A forward pass under recording. Values are named by what made them, so that errors tell."""

    name: str
    inputs: list[Value] = field(default_factory=list[Value])
    outputs: list[Value] = field(default_factory=list[Value])
    parameters: dict[str, Parameter] = field(default_factory=dict[str, Parameter])
    calls: list[Call] = field(default_factory=list[Call])

    def input(self, name: str, shape: Shape, dtype: DType = "f32") -> Value:
        """Declare a tensor that each run supplies."""
        self.inputs.append(Value(name, shape, dtype))
        return self.inputs[-1]

    def parameter(self, name: str, shape: tuple[int, ...], *tensors: str, rows: int = 0) -> Value:
        """Declare a weight; `tensors` name the file's tensors, by default `name` itself."""
        if name in self.parameters:
            raise InputError(f"graph {self.name}", "each parameter once", name)
        self.parameters[name] = Parameter(name, shape, tensors or (name,), rows)
        return Value(name, shape)

    def call(self, op: str, *operands: Value | None, **attributes: Attribute) -> Value:
        """Record one op and return its result, shaped by the op table's rule."""
        row = OPS.get(op)
        if row is None:
            raise InputError(f"graph {self.name}", f"an op of {sorted(OPS)}", repr(op))
        padded = operands + (None,) * (len(row.operands) - len(operands))
        for operand, name in zip(padded, row.operands, strict=True):
            if operand is None and not name.endswith("?"):
                raise InputError(f"op {op}", f"operand {name!r}", "None")
        if attributes.keys() != row.attributes.keys():
            raise InputError(f"op {op}", f"attributes {sorted(row.attributes)}", str(attributes))
        shape = row.shape(tuple(o.shape if o else None for o in padded), attributes)
        result = Value(f"{op}_{len(self.calls)}", shape)
        self.calls.append(Call(op, padded, result, tuple(sorted(attributes.items()))))
        return result

    def output(self, value: Value) -> None:
        """Keep a value for the caller."""
        self.outputs.append(value)

    @property
    def dims(self) -> tuple[Dim, ...]:
        """Each Dim of the inputs, once."""
        found = {d.name: d for v in self.inputs for d in v.shape if isinstance(d, Dim)}
        return tuple(found.values())
