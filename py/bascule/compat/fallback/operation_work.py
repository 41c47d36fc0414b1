"""A named operation on arrays as a program: recorded, with what fills it and what it gives back."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from bascule.base.arrays import Array, Floats, NDArray, np
from bascule.errors import InputError
from bascule.program.compile import freeze
from bascule.program.graph import Graph
from bascule.program.program import Program, Value
from bascule.program.rewrites.rewrite import StrategyName

# A column of the Safari table (`safari.SafariSupport`).
Column = Literal["four_bit", "kv_cache", "shader_compilation", "memory_management"]
Given = Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Work:
    """A program and its arrays.

    `weights` are by the names of tensors, `states` make what its states hold before the run (they
    are large, and planning needs their shapes alone). `finish` makes the result of the outputs by
    name, or of what the states hold after the run: where it `keeps_states`, no output is read.
    """

    program: Program
    inputs: Mapping[str, Array]
    finish: Callable[[Mapping[str, Array]], Array]
    weights: Mapping[str, Floats] = field(default_factory=dict[str, Floats])
    states: Mapping[str, Callable[[], Array]] = field(
        default_factory=dict[str, Callable[[], Array]]
    )
    keeps_states: bool = False


# Things first to end - 1 along an axis.
Span = tuple[int, int]


@dataclass(frozen=True, slots=True)
class Axis:
    """An axis along which an operation can be divided: `count` things, such as "queries"."""

    strategy: StrategyName
    things: str
    count: int


@dataclass(frozen=True, slots=True)
class Division:
    """How an operation can be done piece by piece.

    `piece` gives the request for a span of each axis, and its place in the result; None where those
    spans hold nothing to do. Places count in an array of shape `flat` and of that `dtype`, which
    has the result's `shape` in the end; `begin` makes it where it holds something before any piece
    has run. Pieces run in the order of the axes: those that divide
    weights come first, so that they are written once. `alike` says that pieces with spans of the
    same lengths are the same program.
    """

    axes: tuple[Axis, ...]
    piece: Callable[[tuple[Span, ...]], tuple[Request, Any] | None]
    shape: tuple[int, ...]
    flat: tuple[int, ...]
    dtype: Literal["f32", "u8"] = "f32"
    alike: bool = True
    begin: Callable[[], Array] | None = None


@dataclass(frozen=True, slots=True)
class Operation:
    """What is known of an operation before its inputs are.

    `record` makes it a program; `column` says on what of a Safari it rests; `strategies` can bring
    it within limits, the one that is made for it first; `inputs` names its arrays, "?" where one
    may be left out; `context` the settings that it takes; `divide` says how it becomes pieces.
    """

    name: str
    record: Callable[[Request], Work]
    aliases: tuple[str, ...]
    column: Column
    strategies: tuple[StrategyName, ...]
    inputs: tuple[str, ...]
    context: tuple[str, ...] = ()
    divide: Callable[[Request], Division | None] = lambda _: None


@dataclass(frozen=True, slots=True)
class Request:
    """What the caller gave for an operation; its methods check what they hand out.

    Pieces of an operation with the same `weights_of` have the same weights; None is like no other.
    """

    operation: Operation
    inputs: Given
    context: Given
    weights_of: tuple[object, ...] | None = None

    @property
    def where(self) -> str:
        """For errors."""
        return f"operation {self.operation.name}"

    def check_names(self) -> None:
        """InputError for arrays and settings that the operation does not know: a slip, surely."""
        arrays = {name.rstrip("?") for name in self.operation.inputs}
        settings = {*self.operation.context, "tier"}
        for groups, given, known in (
            ("input", self.inputs, arrays),
            ("context", self.context, settings),
        ):
            unknown = sorted(set(map(str, given)) - known)
            if unknown:
                expected = f"some of {', '.join(sorted(known))}"
                raise InputError(f"{self.where}, {groups}", expected, ", ".join(unknown)[:80])

    def floats(self, name: str, *, ndims: tuple[int, ...]) -> Floats:
        """An array of numbers with so many axes and something in it, as float32."""
        result = self._array(name, ndims)
        if result.dtype.kind not in "fiub":
            raise InputError(f"{self.where}, input {name!r}", "numbers", f"dtype {result.dtype}")
        with np.errstate(over="ignore"):  # what is too large for a float32 is infinite in it
            return np.ascontiguousarray(result, np.float32)

    def ids(self, name: str) -> NDArray[np.int64]:
        """An array of whole numbers of any shape."""
        result = self._array(name, ())
        if result.dtype.kind not in "iu":
            problem = f"dtype {result.dtype}"
            raise InputError(f"{self.where}, input {name!r}", "whole numbers", problem)
        return result.astype(np.int64)

    def maybe(self, name: str, *, ndims: tuple[int, ...]) -> Floats | None:
        """Like `floats`; None where it was left out."""
        return None if self.inputs.get(name) is None else self.floats(name, ndims=ndims)

    def whole(self, name: str, default: int, *, least: int = 0, most: int | None = None) -> int:
        """A whole number of the context, `most` at most."""
        result = self.context.get(name, default)
        whole = isinstance(result, int | np.integer) and not isinstance(result, bool)
        if not whole or result < least or (most is not None and result > most):
            range_ = f"from {least} on" if most is None else f"from {least} to {most:,}"
            expected = f"a whole number {range_}"
            raise InputError(f"{self.where}, context {name!r}", expected, repr(result)[:80])
        return int(result)

    def flag(self, name: str) -> bool:
        """A yes or no of the context; no by default."""
        result = self.context.get(name, False)
        if not isinstance(result, bool | np.bool_):
            raise InputError(f"{self.where}, context {name!r}", "True or False", repr(result)[:80])
        return bool(result)

    def need(self, ok: bool, expected: str, *names: str) -> None:
        """InputError with the shapes of these inputs unless `ok`."""
        if not ok:
            shapes = ", ".join(f"{name} {np.shape(self.inputs[name])}" for name in names)
            raise InputError(self.where, expected, shapes)

    def _array(self, name: str, ndims: tuple[int, ...]) -> Array:
        where = f"{self.where}, input {name!r}"
        given = self.inputs.get(name)
        if given is None:
            raise InputError(where, "an array", "nothing")
        try:
            result = np.asarray(given)
        except ValueError as error:  # rows of different lengths
            raise InputError(where, "an array", str(error)) from None
        if not result.size or (ndims and result.ndim not in ndims):
            axes = f"{' or '.join(map(str, ndims))} axes and " if ndims else ""
            raise InputError(where, f"an array with {axes}something in it", f"shape {result.shape}")
        return result


def single(
    graph: Graph, result: Value, finish: Callable[[Array], Array]
) -> tuple[Program, Callable[[Mapping[str, Array]], Array]]:
    """The frozen program of a graph with one output, and `Work.finish` for it."""
    graph.output(result)
    return freeze(graph), lambda found: finish(found[result.name])
