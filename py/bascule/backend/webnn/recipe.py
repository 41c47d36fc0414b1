"""An MLGraph as plain data: steps of WebNN's methods, by name.

Methods, arguments and options are those of https://www.w3.org/TR/webnn/, so a driver only has to
call them. An operand is the number of the step that made it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal, TypeAlias

from bascule.base.arrays import Array, np

Plain: TypeAlias = str | bool | int | float | tuple[int, ...]
DataType = Literal["float32", "int32", "uint32"]
# Methods that take their operands as one list.
LISTED = ("concat",)


@dataclass(frozen=True, slots=True)
class Step:
    """`method(*operands, *arguments, {**options, **named})`; `named` are operands, too.

    "input" and "constant" take a name, a shape and a data type as their arguments.
    """

    method: str
    operands: tuple[int, ...] = ()
    arguments: tuple[Plain, ...] = ()
    options: Mapping[str, Plain] = field(default_factory=dict[str, Plain])
    named: Mapping[str, int] = field(default_factory=dict[str, int])


@dataclass(slots=True)
class Recipe:
    """Steps in order; `outputs` by name. Constants are a program's `parameters`, or stored here."""

    steps: list[Step] = field(default_factory=list[Step])
    outputs: dict[str, int] = field(default_factory=dict[str, int])
    constants: dict[str, Array] = field(default_factory=dict[str, Array])
    shapes: list[tuple[int, ...]] = field(default_factory=list[tuple[int, ...]])
    _known: dict[tuple[str, str], int] = field(default_factory=dict[tuple[str, str], int])

    def input(self, name: str, shape: tuple[int, ...], kind: DataType = "float32") -> int:
        """Return the operand of an input; the same for the same name."""
        return self._leaf("input", name, shape, kind)

    def parameter(self, name: str, shape: tuple[int, ...]) -> int:
        """Return a weight, named as in the program."""
        return self._leaf("constant", name, shape, "float32")

    def number(self, value: float) -> int:
        """Return a single number, to be broadcast."""
        return self.array(repr(float(value)), np.array([value], np.float32))

    def array(self, name: str, values: Array) -> int:
        """Return a small float32 constant of the recipe."""
        self.constants[f"= {name}"] = values
        return self._leaf("constant", f"= {name}", values.shape, "float32")

    def step(
        self,
        method: str,
        operands: Sequence[int],
        shape: tuple[int, ...],
        *arguments: Plain,
        named: Mapping[str, int] | None = None,
        **options: Plain,
    ) -> int:
        """Add a step, whose result has that shape."""
        self.steps.append(Step(method, tuple(operands), arguments, options, named or {}))
        self.shapes.append(shape)
        return len(self.steps) - 1

    def _leaf(self, method: str, name: str, shape: tuple[int, ...], kind: DataType) -> int:
        if (method, name) not in self._known:
            self._known[method, name] = self.step(method, (), shape, name, shape, kind)
        return self._known[method, name]
