"""The row type of the op table, and helpers of shape rules."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Literal

from bascule.base.arrays import Array
from bascule.base.dtypes import DType
from bascule.errors import InputError
from bascule.program.ops.samples import Sample
from bascule.program.program import Attribute, Call, Shape

# What an operand holds.
#   input      numbers that a run or another call supplies
#   ids        rows of the call's table, as whole numbers
#   lengths    tokens of each text
#   parameter  a model's numbers, float32
#   weight     a matrix (N, K) of a product, in any format; by its rows the product can be split
#   table      a matrix whose rows are looked up, in any format, and split in the same way
#   state      what outlives a run
#   onto       a result to go on with: the call's result takes over its memory and contents
Role = Literal["input", "ids", "lengths", "parameter", "weight", "table", "state", "onto"]

ShapeRule = Callable[[tuple[Shape | None, ...], Mapping[str, Attribute]], Shape]


@dataclass(frozen=True, slots=True)
class Operand:
    """An operand of an op.

    A call changes an `updated` state in place. `by_row`: a vector with a number for each row of the
    weight, split together with it. The rest is for trials (`backend/webgpu/trials.py`): `cut` is an
    axis of fixed size and how much of it a trial keeps, `rows` the size of a Dim there (0: as its
    role has it, and `rows` apply to trials of every size), `sample` its data if that is not its
    role's.
    """

    name: str
    role: Role
    optional: bool = False
    updated: bool = False
    by_row: bool = False
    cut: tuple[int, int] | None = None
    rows: int = 0
    sample: Sample | None = None


@dataclass(frozen=True, slots=True)
class Cost:
    """A call's cost at its largest sizes: multiply-adds, and bytes read and written."""

    multiply_adds: int
    nbytes: int


@dataclass(frozen=True, slots=True)
class Op:
    """A row of the table.

    `defaults` has the attributes that a call may leave out; `parts` names those that let it compute
    a part of its result. The weight's rows are `stacked` matrices, one after the other.
    `multiply_adds` counts those of a call at its largest sizes; None: it has none.
    """

    name: str
    operands: tuple[Operand, ...]
    attributes: Mapping[str, type]
    meaning: str
    shape: ShapeRule
    numpy: Callable[..., Array]
    result: DType = "f32"
    defaults: Mapping[str, Attribute] = field(default_factory=dict[str, Attribute])
    parts: frozenset[str] = frozenset()
    stacked: int = 1
    multiply_adds: Callable[[Call], int] | None = None

    def index(self, *roles: Role) -> int | None:
        """Return the index of the first operand with one of these roles; None if there is none."""
        return next((i for i, o in enumerate(self.operands) if o.role in roles), None)


def inputs(*names: str) -> tuple[Operand, ...]:
    """Return operands in the role of an input; names that end in "?" are optional."""
    return tuple(Operand(name.rstrip("?"), "input", name.endswith("?")) for name in names)


def onto() -> Operand:
    """Return the operand whose memory a result takes over, the last of an op."""
    return Operand("onto", "onto", optional=True)


def need(ok: bool, op: str, expected: str, value: object) -> None:
    """InputError unless `ok`, with what the op expects and the value found."""
    if not ok:
        raise InputError(f"op {op}", expected, str(value))


def first_two(shapes: tuple[Shape | None, ...], op: str) -> tuple[Shape, Shape]:
    """Return the first two operands' shapes, for an op that needs both."""
    first, second = shapes[:2]
    if first is None or second is None:
        raise InputError(f"op {op}", "its first two operands", str(shapes))
    return first, second


def same_shape(shapes: tuple[Shape | None, ...], _: Mapping[str, Attribute]) -> Shape:
    """Return the first operand's shape."""
    return shapes[0] or ()
