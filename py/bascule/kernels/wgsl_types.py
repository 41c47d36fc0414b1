"""The types of WGSL that a buffer can hold, and their memory layout.

Sizes, alignments and strides follow https://www.w3.org/TR/WGSL/#alignment-and-size.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

ScalarName = Literal["f32", "f16", "i32", "u32", "bool"]
SCALAR_NBYTES: dict[str, int] = {"f32": 4, "i32": 4, "u32": 4, "bool": 4, "f16": 2}


@dataclass(frozen=True, slots=True)
class Scalar:
    """A number; with `atomic` one that is changed by atomic operations."""

    name: ScalarName
    atomic: bool = False

    @property
    def nbytes(self) -> int:
        """Bytes of one."""
        return SCALAR_NBYTES[self.name]

    @property
    def align(self) -> int:
        """Its alignment."""
        return self.nbytes

    def __str__(self) -> str:
        return f"atomic<{self.name}>" if self.atomic else self.name


@dataclass(frozen=True, slots=True)
class Vector:
    """2, 3 or 4 numbers; three are aligned as four."""

    n: int
    scalar: Scalar

    @property
    def nbytes(self) -> int:
        """Bytes of one."""
        return self.n * self.scalar.nbytes

    @property
    def align(self) -> int:
        """Its alignment."""
        return (2 if self.n == 2 else 4) * self.scalar.nbytes

    def __str__(self) -> str:
        return f"vec{self.n}<{self.scalar}>"


@dataclass(frozen=True, slots=True)
class Matrix:
    """Columns, each a vector of `rows` numbers."""

    columns: int
    rows: int
    scalar: Scalar

    @property
    def column(self) -> Vector:
        """One column."""
        return Vector(self.rows, self.scalar)

    @property
    def nbytes(self) -> int:
        """Bytes of one."""
        return self.columns * self.column.align

    @property
    def align(self) -> int:
        """Its alignment."""
        return self.column.align

    def __str__(self) -> str:
        return f"mat{self.columns}x{self.rows}<{self.scalar}>"


@dataclass(frozen=True, slots=True)
class ArrayOf:
    """An array; `count` is None if the buffer's size determines it."""

    element: StoredType
    count: int | None

    @property
    def stride(self) -> int:
        """Bytes from one element to the next."""
        return rounded(self.element.nbytes, self.element.align)

    @property
    def nbytes(self) -> int:
        """Bytes of all elements, or of one if `count` is None."""
        return self.stride * (1 if self.count is None else self.count)

    @property
    def align(self) -> int:
        """Its alignment."""
        return self.element.align

    def __str__(self) -> str:
        count = "" if self.count is None else f", {self.count}"
        return f"array<{self.element}{count}>"


@dataclass(frozen=True, slots=True)
class Member:
    """A member of a struct; `offset` in bytes."""

    name: str
    type: StoredType
    offset: int


@dataclass(frozen=True, slots=True)
class Struct:
    """A struct with the offsets of its members."""

    name: str
    members: tuple[Member, ...]
    nbytes: int
    align: int

    def __str__(self) -> str:
        return self.name


StoredType = Scalar | Vector | Matrix | ArrayOf | Struct


def rounded(nbytes: int, align: int) -> int:
    """Round up to a multiple of `align`."""
    return -(-nbytes // align) * align


def struct_of(name: str, fields: list[tuple[str, StoredType, int | None, int | None]]) -> Struct:
    """Return a struct of (name, type, @align or None, @size or None) fields."""
    offset, maximum = 0, 1
    members: list[Member] = []
    for field, type, align_set, size_set in fields:
        align = max(type.align, align_set or 1)
        offset = rounded(offset, align)
        members.append(Member(field, type, offset))
        offset += max(type.nbytes, size_set or 0)
        maximum = max(maximum, align)
    return Struct(name, tuple(members), rounded(offset, maximum), maximum)


def scalar_of(type: StoredType) -> Scalar | None:
    """Return the scalar type of a type's elements; None for structs."""
    if isinstance(type, Scalar):
        return type
    if isinstance(type, ArrayOf):
        return scalar_of(type.element)
    return None if isinstance(type, Struct) else type.scalar
