"""Chains of elementwise operations on the host, a block at a time.

Computed one after the other, whole arrays between the operations would each go through main memory.
A block's stay in the processor's cache, and a chain needs no memory but its result's.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import product
from typing import Any

from bascule.array.dtypes import DType
from bascule.array.evaluate import ELEMENTWISE, evaluate, meaning
from bascule.array.graph import Node, Shape
from bascule.array.loops import is_loopable
from bascule.base.arrays import np

# Elements of a block: few enough for the cache, so many that numpy's calls cost little, in Pyodide
# too.
BLOCK = 1 << 18
# Elements below which numpy's calls cost less than a loop of WebAssembly would.
LEAST_ELEMENTS = 1 << 14


@dataclass(frozen=True, slots=True)
class _Call:
    """An operation on values at hand: which it reads, and which nobody reads after it."""

    function: Callable[..., Any]
    reads: Sequence[int]
    drops: Sequence[int]
    dtype: DType


@dataclass(frozen=True, slots=True)
class Chain:
    """A node and those that lead to nothing else, each after its inputs, and what they read."""

    nodes: tuple[Node, ...]
    reads: tuple[Node, ...]

    @property
    def end(self) -> Node:
        """The node whose numbers are kept."""
        return self.nodes[-1]

    def evaluate(self, values: Sequence[Any]) -> Any:
        """The numbers of the end, from those of what is read."""
        if len(self.nodes) == 1:
            return evaluate(self.end, list(values))
        shape, operands = _laid(values, self.end.shape)
        result = np.empty(shape, self.end.dtype)
        calls = self._calls()
        with np.errstate(all="ignore"):
            for block in _blocks(shape):
                at_hand = [each if each.size == 1 else each[block] for each in operands]
                for each in calls:
                    made = each.function(*(at_hand[at] for at in each.reads))
                    for at in each.drops:
                        at_hand[at] = None
                    at_hand.append(made.astype(each.dtype, copy=False))
                result[block] = at_hand[-1]
        return result.reshape(self.end.shape)

    def _calls(self) -> list[_Call]:
        """A call a node, whose value comes after those of `reads` and of the nodes before it."""
        slots = {id(node): at for at, node in enumerate((*self.reads, *self.nodes))}
        reads = [[slots[id(each)] for each in node.inputs] for node in self.nodes]
        last = {slot: at for at, each in enumerate(reads) for slot in each}
        return [
            _Call(meaning(node), each, [slot for slot in {*each} if last[slot] == at], node.dtype)
            for at, (node, each) in enumerate(zip(self.nodes, reads, strict=True))
        ]


def chains(order: Sequence[Node], wanted: set[int], *, loops: bool = False) -> list[Chain]:
    """The nodes to compute, in chains, each after those that it reads.

    `order` as `graph.ordered` gives it. What is `wanted` and what a user holds ends a chain. With
    `loops`, what loops can compute and what only numpy can are never in one chain.
    """
    readers: dict[int, dict[int, Node]] = {}  # of a node, the ends of the chains that read it
    members: dict[int, list[Node]] = {}
    for node in reversed(order):
        if node.is_known:
            continue
        end = node
        ends = list(readers.pop(id(node), {}).values())
        if len(ends) == 1 and not (id(node) in wanted or node.held):
            goes_on = _go_together(node, ends[0], loops)
            end = ends[0] if goes_on else node
        members.setdefault(id(end), []).append(node)
        for each in node.inputs:
            readers.setdefault(id(each), {})[id(end)] = end
    return [_chain(members[id(node)]) for node in order if id(node) in members]


def _go_together(node: Node, end: Node, loops: bool) -> bool:
    if loops and (is_in_loops(node) or is_in_loops(end)):
        shape = end.inputs[0].shape if end.op == "reduce" else end.shape
        same = node.shape == shape and node.op != "reduce"
        return same and is_in_loops(node) and is_in_loops(end)
    return node.shape == end.shape and _in_blocks(node) and _in_blocks(end)


def is_in_loops(node: Node) -> bool:
    """Whether a loop of WebAssembly can compute it, and it is large enough for one."""
    size = node.inputs[0].size if node.op == "reduce" else node.size
    return size >= LEAST_ELEMENTS and is_loopable(node)


def _in_blocks(node: Node) -> bool:
    """Whether an operation is done block by block: where there is more than one."""
    return node.op in ELEMENTWISE and node.size > BLOCK


def _chain(backwards: list[Node]) -> Chain:
    nodes = tuple(reversed(backwards))
    if len(nodes) == 1:
        return Chain(nodes, nodes[0].inputs)
    inside = {id(node) for node in nodes}
    reads = {id(each): each for node in nodes for each in node.inputs if id(each) not in inside}
    return Chain(nodes, tuple(reads.values()))


def _laid(values: Sequence[Any], shape: Shape) -> tuple[Shape, list[Any]]:
    """Operands of one shape, single numbers without axes: on one axis where all lie densely."""
    wide = [value for value in values if value.size > 1]
    if wide and all(value.shape == shape and value.flags.c_contiguous for value in wide):
        shape = (max(value.size for value in wide),)
        return shape, [value.reshape(shape if value.size > 1 else ()) for value in values]
    return shape, [
        np.broadcast_to(value, shape) if value.size > 1 else value.reshape(()) for value in values
    ]


def _blocks(shape: Shape) -> Iterator[tuple[int | slice, ...]]:
    """Indices of parts of at most BLOCK elements, which together are all of a shape."""
    if not shape:
        yield ()
        return
    axis, inner = len(shape) - 1, 1
    while axis > 0 and inner * shape[axis] <= BLOCK:
        inner *= shape[axis]
        axis -= 1
    step = max(1, BLOCK // inner)
    starts = range(0, shape[axis], step)
    for *lead, at in product(*map(range, shape[:axis]), starts):
        yield (*lead, slice(at, at + step))
