"""Program: a frozen list of calls of named ops on named values, which waist 1 carries."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from math import prod
from typing import TypeAlias

from bascule.base.dtypes import DType, nbytes_of
from bascule.errors import InputError


@dataclass(frozen=True, slots=True)
class Dim:
    """A size that is known only per run, at most `limit` (the bucket's size)."""

    name: str
    limit: int


Shape: TypeAlias = tuple[int | Dim, ...]
Sizes: TypeAlias = Mapping[str, int]
Attribute: TypeAlias = int | float | str | bool | Dim


@dataclass(frozen=True, slots=True)
class Value:
    """A tensor between calls: row-major, dense; `shape` may contain Dims."""

    name: str
    shape: Shape
    dtype: DType = "f32"

    def sizes(self, sizes: Sizes) -> tuple[int, ...]:
        """Return the shape of one run."""
        return tuple(sizes[d.name] if isinstance(d, Dim) else d for d in self.shape)

    @property
    def limits(self) -> tuple[int, ...]:
        """The largest shape."""
        return tuple(d.limit if isinstance(d, Dim) else d for d in self.shape)

    @property
    def nbytes(self) -> int:
        """Bytes at the largest shape."""
        return nbytes_of(self.dtype, prod(self.limits))


@dataclass(frozen=True, slots=True)
class Computed:
    """The float32 numbers of a computed parameter: zeros, rotary angles, or given ones.

    With `theta` row p of (P, D) holds the cosines and then the sines of p * theta^(-2i / D);
    `numbers` are all numbers of the parameter, in row-major order.
    """

    theta: float | None = None
    numbers: tuple[float, ...] = ()


@dataclass(frozen=True, slots=True)
class Parameter:
    """A weight of a program and where it comes from.

    `tensors` are the file's tensors, stacked along the first axis into `shape`; `rows` takes only
    that many rows of the stack (0: all), from row `first` on, and `whole` is how many it must have
    (0: enough of them). A `dtype` other than f32 is stored as in the file, block by block; f16 that
    is to become f32 is widened. A `computed` one has no tensors. InputError for impossible rows.
    """

    name: str
    shape: tuple[int, ...]
    tensors: tuple[str, ...]
    rows: int = 0
    dtype: DType = "f32"
    first: int = 0
    whole: int = 0
    computed: Computed | None = None

    def __post_init__(self) -> None:
        """See `Parameter`."""
        place = f"first {self.first}, rows {self.rows}, whole {self.whole}"
        end = self.first + self.rows
        if self.first < 0 or self.rows < 0 or (self.first and not self.rows):
            raise InputError(f"parameter {self.name}", "rows from `first` on", place)
        if self.whole and not 0 < end <= self.whole:
            raise InputError(f"parameter {self.name}", "rows within the whole", place)

    @property
    def nbytes(self) -> int:
        """Bytes as stored."""
        return nbytes_of(self.dtype, prod(self.shape))


@dataclass(frozen=True, slots=True)
class Call:
    """One op: `operands` in the order of the op table, None for an optional one left out."""

    op: str
    operands: tuple[Value | None, ...]
    result: Value
    attributes: tuple[tuple[str, Attribute], ...] = ()

    def attribute(self, name: str) -> Attribute:
        """Return an attribute's value; KeyError if the op has none of that name."""
        return dict(self.attributes)[name]

    def number(self, name: str) -> float:
        """Return an attribute that is a number by the op's row."""
        value = self.attribute(name)
        assert isinstance(value, int | float)
        return value

    def integer(self, name: str) -> int:
        """Return an attribute that is an integer by the op's row."""
        value = self.attribute(name)
        assert isinstance(value, int)
        return value


@dataclass(frozen=True, slots=True)
class Program:
    """A frozen forward pass. `slots` is the memory plan: value name to shared buffer index.

    `states` outlive a run and are shared by programs: a KV cache, the tokens so far.
    """

    name: str
    inputs: tuple[Value, ...]
    outputs: tuple[Value, ...]
    parameters: tuple[Parameter, ...]
    calls: tuple[Call, ...]
    dims: tuple[Dim, ...]
    slots: Mapping[str, int]
    slot_nbytes: tuple[int, ...]
    states: tuple[Value, ...] = ()

    @property
    def planned_nbytes(self) -> int:
        """Bytes of intermediate buffers after reuse by lifetime."""
        return sum(self.slot_nbytes)

    @property
    def naive_nbytes(self) -> int:
        """Bytes if every result had a buffer of its own."""
        return sum(call.result.nbytes for call in self.calls)
