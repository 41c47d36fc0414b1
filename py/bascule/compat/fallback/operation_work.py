"""A named operation on arrays as a program, with its inputs and the way to its result."""

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


@dataclass(frozen=True, slots=True)
class Work:
    """A program and its arrays.

    `weights` are by the names of tensors, `states` return its states' contents before the run (they
    are large, and planning needs their shapes alone). `finish` makes the result from the outputs by
    name; with `keeps_states` from the states after the run, and no output is read.
    """

    program: Program
    inputs: Mapping[str, Array]
    finish: Callable[[Mapping[str, Array]], Array]
    weights: Mapping[str, Floats] = field(default_factory=dict[str, Floats])
    states: Mapping[str, Callable[[], Array]] = field(
        default_factory=dict[str, Callable[[], Array]]
    )
    keeps_states: bool = False


# Items first to end - 1 along an axis.
Span = tuple[int, int]


@dataclass(frozen=True, slots=True)
class Axis:
    """An axis along which an operation can be divided: `count` items, such as "queries"."""

    strategy: StrategyName
    items: str
    count: int


@dataclass(frozen=True, slots=True)
class Division:
    """How an operation can run piece by piece.

    `piece` returns the request for a span of each axis, and its index in the result; None where
    those spans have no work. Indices are those of an array of shape `flat` and of that `dtype`,
    which is reshaped to `shape` at the end; `begin` makes that array if it is not empty at first.
    Pieces run in the order of the axes: those that divide weights come first, so that they are
    written once. With `same_program`, pieces with spans of the same lengths are the same program.
    """

    axes: tuple[Axis, ...]
    piece: Callable[[tuple[Span, ...]], tuple[Request, Any] | None]
    shape: tuple[int, ...]
    flat: tuple[int, ...]
    dtype: Literal["f32", "u8"] = "f32"
    same_program: bool = True
    begin: Callable[[], Array] | None = None


@dataclass(frozen=True, slots=True)
class Operation:
    """A row of the table of operations.

    `record` makes a program of a request; `column` is the column of the Safari table that it
    depends on; `strategies` can bring it within limits, the most specific first; `inputs` names its
    arrays, with "?" the optional ones; `context` its settings; `divide` divides it into pieces.
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
    """A caller's inputs and settings of an operation; its methods check what they return.

    Pieces of an operation with the same `weights_of`, unless it is None, have the same weights.
    """

    operation: Operation
    inputs: Mapping[str, Any]
    context: Mapping[str, Any]
    weights_of: tuple[object, ...] | None = None

    @property
    def where(self) -> str:
        """The operation, for errors."""
        return f"operation {self.operation.name}"

    def check_names(self) -> None:
        """InputError for arrays and settings that the operation does not have."""
        arrays = {name.rstrip("?") for name in self.operation.inputs}
        settings = {*self.operation.context, "tier"}
        for group, values, known in (
            ("input", self.inputs, arrays),
            ("context", self.context, settings),
        ):
            unknown = sorted(set(map(str, values)) - known)
            if unknown:
                expected = f"some of {', '.join(sorted(known))}"
                raise InputError(f"{self.where}, {group}", expected, ", ".join(unknown)[:80])

    def floats(self, name: str, *, ndims: tuple[int, ...]) -> Floats:
        """A nonempty array of numbers with one of these numbers of axes, as float32."""
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

    def optional_floats(self, name: str, *, ndims: tuple[int, ...]) -> Floats | None:
        """As `floats`; None for an absent one."""
        return None if self.inputs.get(name) is None else self.floats(name, ndims=ndims)

    def integer(
        self, name: str, default: int, *, minimum: int = 0, maximum: int | None = None
    ) -> int:
        """An integer of the context, from `minimum` to `maximum`."""
        result = self.context.get(name, default)
        is_integer = isinstance(result, int | np.integer) and not isinstance(result, bool)
        if not is_integer or result < minimum or (maximum is not None and result > maximum):
            range_ = (
                f"of at least {minimum}" if maximum is None else f"from {minimum} to {maximum:,}"
            )
            expected = f"a whole number {range_}"
            raise InputError(f"{self.where}, context {name!r}", expected, repr(result)[:80])
        return int(result)

    def flag(self, name: str) -> bool:
        """A boolean of the context; False by default."""
        result = self.context.get(name, False)
        if not isinstance(result, bool | np.bool_):
            raise InputError(f"{self.where}, context {name!r}", "True or False", repr(result)[:80])
        return bool(result)

    def require(self, ok: bool, expected: str, *names: str) -> None:
        """InputError with the shapes of these inputs unless `ok`."""
        if not ok:
            shapes = ", ".join(f"{name} {np.shape(self.inputs[name])}" for name in names)
            raise InputError(self.where, expected, shapes)

    def _array(self, name: str, ndims: tuple[int, ...]) -> Array:
        where = f"{self.where}, input {name!r}"
        value = self.inputs.get(name)
        if value is None:
            raise InputError(where, "an array", "nothing")
        try:
            result = np.asarray(value)
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
    return freeze(graph), lambda outputs: finish(outputs[result.name])
