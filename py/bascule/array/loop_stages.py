"""The stages of a loop: reductions divide a chain into passes over the same elements.

A softmax of rows has three: the largest element; exponentials and their sum; divisions. What a
later stage reads again is recomputed if that is cheap, and otherwise stored for it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from bascule.array.dtypes import DType, kind_of
from bascule.array.wasm_rows import TEMPLATES

# Instructions that are cheaper to repeat than storing and loading their result.
_CHEAP = 4
_CALL_COST = 16
_SLOW = ("f32x4.div", "f32x4.sqrt")


@dataclass(frozen=True, slots=True)
class Operand:
    """An operand of a loop.

    `along`: it varies along the vectors' axis, else it is one number there. `inner`: it varies over
    what is reduced.
    """

    dtype: DType
    along: bool
    inner: bool = False


@dataclass(frozen=True, slots=True)
class Operation:
    """A computed value: `reads` are indices of values, operands first.

    `inner`: one for each element that is reduced; a "reduce" gives one for all of them.
    """

    op: str
    reads: tuple[int, ...]
    dtype: DType
    inner: bool = False
    combination: str = ""


@dataclass(frozen=True, slots=True)
class LoopNest:
    """What determines a loop's text: loops over `n_kept` and `n_reduced` axes and the vectors'.

    `reduces`: the vectors are along a reduced axis. `by_rows`: they are along a kept one, and read
    row by row in memory order: the accumulators of a block of columns are in memory.
    """

    operands: tuple[Operand, ...]
    operations: tuple[Operation, ...]
    n_kept: int
    n_reduced: int
    reduces: bool
    by_rows: bool = False

    @property
    def last(self) -> int:
        """The index of the result."""
        return len(self.operands) + len(self.operations) - 1

    @property
    def has_inner_result(self) -> bool:
        """Whether the result has an element for each that is reduced."""
        return self.is_inner(self.last)

    def is_inner(self, place: int) -> bool:
        """Whether a value varies over what is reduced."""
        n = len(self.operands)
        return (self.operands[place] if place < n else self.operations[place - n]).inner

    def dtype(self, place: int) -> DType:
        """Return the dtype of a value."""
        n = len(self.operands)
        return (self.operands[place] if place < n else self.operations[place - n]).dtype

    def operation(self, place: int) -> Operation | None:
        """Return the operation of a value; None for an operand."""
        n = len(self.operands)
        return self.operations[place - n] if place >= n else None


@dataclass(frozen=True, slots=True)
class Stage:
    """One pass: indices of the values computed for each element, in order, and its ends."""

    loads: tuple[int, ...]
    restores: tuple[int, ...]
    computes: tuple[int, ...]
    stores: tuple[int, ...]
    reductions: tuple[int, ...]
    # After the pass, or for the last before it: once for all that is reduced.
    afterwards: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class Stages:
    """All passes. `before`: values that wait for none. `stored`: indices of values in scratch."""

    before: tuple[int, ...]
    passes: tuple[Stage, ...]
    stored: tuple[int, ...]


def stages_of(nest: LoopNest) -> Stages:
    """Return the passes of a loop; none if nothing is reduced."""
    known = _known_after(nest)
    outer: dict[int, list[int]] = {}
    ends: dict[int, list[int]] = {}
    for at, each in enumerate(nest.operations, start=len(nest.operands)):
        if each.op == "reduce":
            ends.setdefault(known[at] - 1, []).append(at)
        elif not each.inner:
            outer.setdefault(known[at], []).append(at)
    if nest.has_inner_result:
        ends.setdefault(known[nest.last], []).append(nest.last)
    stored = _stored(nest, known, ends)
    passes = [
        _stage(nest, known, stored, at, ends[at], outer.get(at + 1, ())) for at in sorted(ends)
    ]
    return Stages(tuple(outer.get(0, ())), tuple(passes), tuple(sorted(stored)))


def _known_after(nest: LoopNest) -> list[int]:
    """Return after how many passes each value is known; for an inner one, in which pass first."""
    result = [0] * len(nest.operands)
    for each in nest.operations:
        at = max((result[read] for read in each.reads), default=0)
        result.append(at + 1 if each.op == "reduce" else at)
    return result


def _needed(nest: LoopNest, ends: Sequence[int], stop: set[int]) -> list[int]:
    """Return inner values that lead to the ends of a pass, in order; not beyond those of `stop`."""
    waiting = [
        read
        for end in ends
        for read in ((end,) if nest.is_inner(end) else _reads(nest, end))
        if nest.is_inner(read)
    ]
    result: set[int] = set()
    while waiting:
        at = waiting.pop()
        if at in result:
            continue
        result.add(at)
        if at not in stop:
            waiting += [read for read in _reads(nest, at) if nest.is_inner(read)]
    return sorted(result)


def _reads(nest: LoopNest, place: int) -> tuple[int, ...]:
    operation = nest.operation(place)
    return operation.reads if operation else ()


def _stored(nest: LoopNest, known: Sequence[int], ends: Mapping[int, Sequence[int]]) -> set[int]:
    """Return values that a later pass reads and that are not cheap to recompute there."""
    costs = [0] * len(nest.operands)
    for each in nest.operations:
        costs.append(_cost(each, nest) + sum(costs[at] for at in each.reads if nest.is_inner(at)))
    stored: set[int] = set()
    for stage, each in ends.items():
        old = {at for at in range(len(costs)) if known[at] < stage and costs[at] > _CHEAP}
        stored |= old.intersection(_needed(nest, each, old))
    return stored


def _cost(operation: Operation, nest: LoopNest) -> int:
    if operation.op not in TEMPLATES:
        return 1
    text = TEMPLATES[operation.op][kind_of(nest.dtype(operation.reads[0]))]
    if "call $" in text:
        return _CALL_COST
    return _CHEAP if any(word in text for word in _SLOW) else 1


def _stage(
    nest: LoopNest,
    known: Sequence[int],
    stored: set[int],
    number: int,
    ends: Sequence[int],
    afterwards: Sequence[int],
) -> Stage:
    old = {at for at in stored if known[at] < number}
    needed = _needed(nest, ends, old)
    new = [at for at in stored if known[at] == number]
    needed = sorted({*needed, *_needed(nest, new, old)})
    return Stage(
        loads=tuple(at for at in needed if nest.operation(at) is None),
        restores=tuple(at for at in needed if at in old),
        computes=tuple(at for at in needed if nest.operation(at) is not None and at not in old),
        stores=tuple(sorted(new)),
        reductions=tuple(at for at in ends if not nest.is_inner(at)),
        afterwards=tuple(afterwards),
    )
