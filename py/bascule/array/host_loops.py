"""Chains computed by loops of WebAssembly, where that is worth a module of its own."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from math import prod
from typing import TYPE_CHECKING, Any

from bascule.array.blocks import Chain
from bascule.array.graph import Node
from bascule.array.loops import LANES, LoopText, Operand, Operation, has_part, operations_of
from bascule.array.reducing_loops import ReducingLoopText
from bascule.base.arrays import np

if TYPE_CHECKING:
    from bascule.backend.deviceless import Loop

# Elements of one call: what lies outside the loops' memory is copied by as many.
BLOCK = 1 << 18
# A process keeps at most so many loops: WebAssembly's linker in a page never lets go of one.
MOST_LOOPS = 256
# Operations of a chain from which on a loop is faster than numpy. A function counts as many, and so
# does a reduction.
_LEAST_OPERATIONS = 2
_ALL = slice(None)


@dataclass(frozen=True, slots=True)
class _Kind:
    """What a loop's text follows from. `reduction`: what combines, and whether along rows."""

    operands: tuple[Operand, ...]
    operations: tuple[Operation, ...]
    reduction: tuple[str, bool] | None


@dataclass(frozen=True, slots=True)
class _Layout:
    """A shape as rows of columns, along which each operand varies wholly or not at all."""

    rows: int
    columns: int
    operands: list[Any]  # each (rows or 1, columns or 1), dense


class HostLoops:
    """Makes and keeps the loops of a backend. `load` makes a function of a module."""

    def __init__(self, load: Callable[[bytes], Loop]) -> None:
        self._load = load
        self._loops: dict[_Kind, Loop] = {}

    def evaluate(self, chain: Chain, values: Sequence[Any]) -> Any | None:
        """The numbers of a chain's end; None where numpy is to compute them."""
        end = chain.end
        weight = sum(_LEAST_OPERATIONS if _is_slow(node) else 1 for node in chain.nodes)
        if weight < _LEAST_OPERATIONS or not values:
            return None
        operands = [np.asarray(value) for value in values]
        try:
            computed = self._reduced if end.op == "reduce" else self._elementwise
            return computed(chain, operands)
        except MemoryError:
            return None  # the loops' memory is smaller than Python's

    def _elementwise(self, chain: Chain, values: list[Any]) -> Any | None:
        end = chain.end
        layout = _laid(values, end.shape, range(len(end.shape)), None)
        run = self._loop(layout, chain.nodes, chain.reads, None)
        if layout is None or run is None:
            return None
        result = np.empty((layout.rows, layout.columns), end.dtype)
        for rows, columns in _blocks(layout):
            _call(run, result[rows, columns], layout, rows, columns)
        return result.reshape(end.shape)

    def _reduced(self, chain: Chain, values: list[Any]) -> Any | None:
        end, shape = chain.end, chain.end.inputs[0].shape
        name, axes = end.attribute
        over = [axis for axis in axes if shape[axis] > 1]
        kept = [axis for axis, n in enumerate(shape) if n > 1 and axis not in over]
        n_over = prod(shape[axis] for axis in over)
        along_rows = [*kept, *over] == sorted((*kept, *over)) and n_over >= LANES
        order = [*kept, *over] if along_rows else [*over, *kept]
        layout = _laid(values, shape, order, len(kept) if along_rows else len(over))
        run = self._loop(layout, chain.nodes[:-1], chain.reads, (name, along_rows))
        if layout is None or run is None:
            return None
        n_results = layout.rows if along_rows else layout.columns
        result = np.empty((n_results, 1) if along_rows else (1, n_results), end.dtype)
        if along_rows and layout.rows > 1:
            for rows, columns in _blocks(layout):
                _call(run, result[rows], layout, rows, columns)
        else:
            _call(run, result, layout, _ALL, _ALL)
        return result.reshape(end.shape)

    def _loop(
        self,
        layout: _Layout | None,
        nodes: Sequence[Node],
        reads: Sequence[Node],
        reduction: tuple[str, bool] | None,
    ) -> Loop | None:
        if layout is None:
            return None
        operands = tuple(Operand(v.dtype, v.shape[1] > 1) for v in layout.operands)
        kind = _Kind(operands, operations_of(nodes, reads), reduction)
        result = self._loops.get(kind)
        if result is None and len(self._loops) < MOST_LOOPS:
            result = self._loops[kind] = self._load(_text(kind).module())
        return result


def _is_slow(node: Node) -> bool:
    """Whether one such operation is worth a loop: numpy's takes several times as long."""
    return node.op == "reduce" or has_part(node)


def _text(kind: _Kind) -> LoopText:
    if kind.reduction is None:
        return LoopText(kind.operands, kind.operations)
    name, along_rows = kind.reduction
    return ReducingLoopText(kind.operands, kind.operations, combination=name, along_rows=along_rows)


def _call(run: Loop, out: Any, layout: _Layout, rows: slice, columns: slice) -> None:
    """Compute a part. What does not vary along an axis has one element, which every part reads."""
    reads = [
        v[rows if v.shape[0] > 1 else _ALL, columns if v.shape[1] > 1 else _ALL]
        for v in layout.operands
    ]
    n_rows = len(range(layout.rows)[rows])
    n_columns = len(range(layout.columns)[columns])
    steps = [v.shape[1] * v.itemsize if v.shape[0] > 1 else 0 for v in (out, *reads)]
    run(out, reads, (n_rows, n_columns, *steps))


def _laid(
    values: list[Any], shape: Sequence[int], order: Sequence[int], split: int | None
) -> _Layout | None:
    """Axes in an order, split into rows and columns; None where a row is shorter than a step.

    Without a `split` the one for which the least has to be repeated in memory.
    """
    order = [axis for axis in order if shape[axis] > 1]
    sizes = [shape[axis] for axis in order]
    full = [value.reshape((1,) * (len(shape) - value.ndim) + value.shape) for value in values]
    varies = [[value.shape[axis] > 1 for axis in order] for value in full]
    splits = range(len(order)) if split is None else (split,)
    costs = [
        (sum(not _fits(each, at) for each in varies), -prod(sizes[at:]), at)
        for at in splits
        if prod(sizes[at:]) >= LANES
    ]
    if not costs:
        return None
    at = min(costs)[2]
    rows, columns = prod(sizes[:at]), prod(sizes[at:])
    ones = [axis for axis, n in enumerate(shape) if n == 1]
    operands: list[Any] = []
    for value, each in zip(full, varies, strict=True):
        if not _fits(each, at):
            value = np.broadcast_to(value, tuple(shape))
            each = [True] * len(order)
        two = (rows if any(each[:at]) else 1, columns if any(each[at:]) else 1)
        operands.append(np.ascontiguousarray(value.transpose(*ones, *order).reshape(two)))
    return _Layout(rows, columns, operands)


def _fits(varies: list[bool], split: int) -> bool:
    """Whether an operand varies along all rows or none, and along all columns or none."""
    return all(all(part) or not any(part) for part in (varies[:split], varies[split:]))


def _blocks(layout: _Layout) -> Iterator[tuple[slice, slice]]:
    """Parts of about BLOCK elements: whole rows, or of a single row its columns."""
    rows, columns = layout.rows, layout.columns
    if rows > 1:
        step = max(1, BLOCK // columns)
        for start in range(0, rows, step):
            yield slice(start, start + step), _ALL
        return
    for start in range(0, columns, BLOCK):
        # No part is shorter than a step of the loop: the last one then begins earlier.
        yield _ALL, slice(max(0, min(start, columns - LANES)), start + BLOCK)
