"""Chains computed by loops of WebAssembly, where that is worth a module of its own."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from math import prod
from typing import TYPE_CHECKING, Any

from bascule.array.blocks import Chain
from bascule.array.graph import Shape
from bascule.array.loops import (
    LANES,
    LoopText,
    Operand,
    Operation,
    has_part,
    operations_of,
)
from bascule.base.arrays import np

if TYPE_CHECKING:
    from bascule.backend.deviceless import Loop

# Elements of one call: what lies outside the loops' memory is copied by as many.
BLOCK = 1 << 18
# A process keeps at most so many loops: WebAssembly's linker in a page never lets go of one.
MOST_LOOPS = 256
# Operations of a chain from which on a loop is faster than numpy; a function counts as many.
_LEAST_OPERATIONS = 2

_ALL = slice(None)


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
        self._loops: dict[tuple[tuple[Operand, ...], tuple[Operation, ...]], Loop] = {}

    def evaluate(self, chain: Chain, values: Sequence[Any]) -> Any | None:
        """The numbers of a chain's end; None where numpy is to compute them."""
        weight = sum(_LEAST_OPERATIONS if has_part(node) else 1 for node in chain.nodes)
        if weight < _LEAST_OPERATIONS or not values:
            return None
        end = chain.end
        layout = _laid([np.asarray(value) for value in values], end.shape)
        if layout is None:
            return None
        operands = tuple(Operand(v.dtype, v.shape[1] > 1) for v in layout.operands)
        run = self._loop(operands, operations_of(chain.nodes, chain.reads))
        if run is None:
            return None
        result = np.empty((layout.rows, layout.columns), end.dtype)
        for rows, columns in _blocks(layout.rows, layout.columns):
            out = result[rows, columns]
            # What does not vary along an axis has one element there, which every part reads.
            reads = [
                v[rows if v.shape[0] > 1 else _ALL, columns if v.shape[1] > 1 else _ALL]
                for v in layout.operands
            ]
            steps = [v.shape[1] * v.itemsize if v.shape[0] > 1 else 0 for v in (out, *reads)]
            run(out, reads, (*out.shape, *steps))
        return result.reshape(end.shape)

    def _loop(
        self, operands: tuple[Operand, ...], operations: tuple[Operation, ...]
    ) -> Loop | None:
        key = (operands, operations)
        result = self._loops.get(key)
        if result is None and len(self._loops) < MOST_LOOPS:
            result = self._loops[key] = self._load(LoopText(operands, operations).module())
        return result


def _laid(values: list[Any], shape: Shape) -> _Layout | None:
    """The shape split in two, so that as little as possible is repeated in memory for it."""
    if prod(shape) < LANES:
        return None
    axes = [axis for axis, n in enumerate(shape) if n > 1]
    sizes = [shape[axis] for axis in axes]
    varies = [
        [value.shape[axis - len(shape)] > 1 if axis - len(shape) >= -value.ndim else False
         for axis in axes]
        for value in values
    ]  # fmt: skip
    best: tuple[int, int, int] | None = None
    for split in range(len(axes)):
        columns = prod(sizes[split:])
        if columns >= LANES:
            fits = [_fits(each[:split]) and _fits(each[split:]) for each in varies]
            cost = (fits.count(False), -columns, split)
            best = cost if best is None else min(best, cost)
    assert best is not None  # all axes together are enough
    split = best[2]
    rows, columns = prod(sizes[:split]), prod(sizes[split:])
    operands: list[Any] = []
    for value, each in zip(values, varies, strict=True):
        if _fits(each[:split]) and _fits(each[split:]):
            n_rows = rows if any(each[:split]) else 1
            dense = value.reshape(n_rows, columns if any(each[split:]) else 1)
        else:
            dense = np.broadcast_to(value, shape).reshape(rows, columns)
        operands.append(np.ascontiguousarray(dense))
    return _Layout(rows, columns, operands)


def _fits(varies: list[bool]) -> bool:
    return all(varies) or not any(varies)


def _blocks(rows: int, columns: int) -> Iterator[tuple[slice, slice]]:
    """Parts of about BLOCK elements: whole rows, or of a single row its columns."""
    if rows > 1:
        step = max(1, BLOCK // columns)
        for start in range(0, rows, step):
            yield slice(start, start + step), _ALL
        return
    for start in range(0, columns, BLOCK):
        # No part is shorter than a step of the loop: the last one then begins earlier.
        yield _ALL, slice(max(0, min(start, columns - LANES)), start + BLOCK)
