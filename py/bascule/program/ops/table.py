"""What a row of the op table holds, and what shape rules share."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

from bascule.arrays import Array
from bascule.dtypes import DType
from bascule.errors import InputError
from bascule.program.program import Attribute, Shape

ShapeRule = Callable[[tuple[Shape | None, ...], Mapping[str, Attribute]], Shape]


@dataclass(frozen=True, slots=True)
class Op:
    """A row of the table. `operands` names end in "?" where an operand may be left out.

    `updates` names the operands, states all of them, that a call changes in place; `defaults` has
    the attributes that a call may leave out. What `onto?` is at the end of the operands, the result
    takes over: its memory and what stands in it.
    """

    name: str
    operands: tuple[str, ...]
    attributes: Mapping[str, type]
    meaning: str
    shape: ShapeRule
    numpy: Callable[..., Array]
    updates: tuple[str, ...] = ()
    result: DType = "f32"
    defaults: Mapping[str, Attribute] = field(default_factory=dict[str, Attribute])


def need(ok: bool, op: str, expected: str, found: object) -> None:
    """InputError that tells what was found instead of what the op expects, unless `ok`."""
    if not ok:
        raise InputError(f"op {op}", expected, str(found))


def first_two(shapes: tuple[Shape | None, ...], op: str) -> tuple[Shape, Shape]:
    """The first two operands' shapes, where an op needs both."""
    first, second = shapes[:2]
    if first is None or second is None:
        raise InputError(f"op {op}", "its first two operands", str(shapes))
    return first, second


def same_shape(shapes: tuple[Shape | None, ...], _: Mapping[str, Attribute]) -> Shape:
    """The first operand's."""
    return shapes[0] or ()
