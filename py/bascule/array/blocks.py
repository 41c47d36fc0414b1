"""Chains of elementwise operations on the host, a block at a time.

One after the other, each operation would pass an array through main memory. A block stays in the
processor's cache, and a chain needs no memory but its result's.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import product
from typing import Any

from bascule.array import groups
from bascule.array.dtypes import DType
from bascule.array.evaluate import ELEMENTWISE, evaluate, meaning
from bascule.array.graph import Node, Shape
from bascule.array.groups import Group, Grouping, finished
from bascule.base.arrays import np

# Elements of a block: few enough for the cache, enough that numpy's calls cost little, also in
# Pyodide.
BLOCK = 1 << 18


@dataclass(frozen=True, slots=True)
class _Call:
    """An operation: the values that it reads, and those of them that nothing reads later."""

    function: Callable[..., Any]
    reads: Sequence[int]
    drops: Sequence[int]
    dtype: DType


@dataclass(frozen=True, slots=True)
class Chain:
    """A node and those that only it needs, each after its inputs, and what they read.

    `in_loop`: a loop of WebAssembly computes it, over a `space` reduced along `axes`.
    """

    nodes: tuple[Node, ...]
    reads: tuple[Node, ...]
    space: Shape
    axes: tuple[int, ...]
    in_loop: bool

    @property
    def end(self) -> Node:
        """The node of the result."""
        return self.nodes[-1]

    def evaluate(self, values: Sequence[Any]) -> Any:
        """Return the numbers of the end, from those that are read."""
        if any(node.shape != self.end.shape or node.op == "reduce" for node in self.nodes):
            return self._one_by_one(values)
        if len(self.nodes) == 1:
            return evaluate(self.end, list(values))
        shape, operands = _as_one_shape(values, self.end.shape)
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

    def _one_by_one(self, values: Sequence[Any]) -> Any:
        at_hand = {id(node): value for node, value in zip(self.reads, values, strict=True)}
        last = {id(each): node for node in self.nodes for each in node.inputs}
        for node in self.nodes:
            at_hand[id(node)] = evaluate(node, [at_hand[id(each)] for each in node.inputs])
            for each in node.inputs:
                if last[id(each)] is node:
                    at_hand.pop(id(each), None)
        return at_hand[id(self.end)]

    def _calls(self) -> list[_Call]:
        """One call per node; its value comes after those of `reads` and of the nodes before it."""
        slots = {id(node): at for at, node in enumerate((*self.reads, *self.nodes))}
        reads = [[slots[id(each)] for each in node.inputs] for node in self.nodes]
        last = {slot: at for at, each in enumerate(reads) for slot in each}
        return [
            _Call(meaning(node), each, [slot for slot in {*each} if last[slot] == at], node.dtype)
            for at, (node, each) in enumerate(zip(self.nodes, reads, strict=True))
        ]


def chains(order: Sequence[Node], wanted: set[int], *, loops: bool = False) -> list[Chain]:
    """Group the nodes to compute into chains, each after those that it reads.

    `order` as returned by `graph.ordered`. A `wanted` node and one that a user holds ends a chain.
    With `loops`, what loops can compute and what only numpy can are never in one chain.
    """
    large = loops and any(node.size >= groups.MIN_ELEMENTS for node in order)
    grouping = Grouping(order) if large else None
    readers: dict[int, dict[int, Node]] = {}  # of a node, the ends of the chains that read it
    members: dict[int, list[Node]] = {}
    in_groups: dict[int, Group | None] = {}
    for node in reversed(order):
        if node.is_known:
            continue
        ends = list(readers.pop(id(node), {}).values())
        if id(node) in wanted or node.held or not _is_fused(node, ends, in_groups, grouping):
            group = grouping.begins(node) if grouping else None
            in_groups[id(node)] = group
            members[id(node)] = group.nodes if group else [node]
            ends = [node]
        else:
            for end in ends:
                members[id(end)].append(node)
        for each in node.inputs:
            readers.setdefault(id(each), {}).update((id(end), end) for end in ends)
    result: list[Chain] = []
    for node in order:
        if id(node) in members:
            group = in_groups[id(node)]
            result += _of_group(group) if group else [_chain(members[id(node)])]
    return result


def _is_fused(
    node: Node,
    ends: Sequence[Node],
    in_groups: Mapping[int, Group | None],
    grouping: Grouping | None,
) -> bool:
    """Whether a node is computed in the chains of all nodes that read it, and nowhere else."""
    mine = [in_groups[id(end)] for end in ends]
    in_loops = [each for each in mine if each is not None]
    if grouping and len(in_loops) == len(ends) > 0:
        if len(in_loops) == 1:
            return grouping.takes(in_loops[0], node)
        return grouping.repeats(in_loops, node)
    if len(ends) != 1 or in_loops or (grouping and grouping.begins(node)):
        return False
    return node.shape == ends[0].shape and _in_blocks(node) and _in_blocks(ends[0])


def _of_group(group: Group) -> list[Chain]:
    nodes, alone, space, axes = finished(group)
    views = [_chain([node]) for node in alone]
    return [*views, _chain(nodes[::-1], space, axes, True)]


def _in_blocks(node: Node) -> bool:
    """Whether an operation is computed block by block, if there is more than one block."""
    return node.op in ELEMENTWISE and node.size > BLOCK


def _chain(
    backwards: Sequence[Node],
    space: Shape | None = None,
    axes: tuple[int, ...] = (),
    in_loop: bool = False,
) -> Chain:
    nodes = tuple(reversed(backwards))
    space = nodes[-1].shape if space is None else space
    if len(nodes) == 1:
        return Chain(nodes, nodes[0].inputs, space, axes, in_loop)
    inside = {id(node) for node in nodes}
    reads = {id(each): each for node in nodes for each in node.inputs if id(each) not in inside}
    return Chain(nodes, tuple(reads.values()), space, axes, in_loop)


def _as_one_shape(values: Sequence[Any], shape: Shape) -> tuple[Shape, list[Any]]:
    """Return operands of one shape, but scalars without axes; on one axis if all are dense."""
    wide = [value for value in values if value.size > 1]
    if wide and all(value.shape == shape and value.flags.c_contiguous for value in wide):
        shape = (max(value.size for value in wide),)
        return shape, [value.reshape(shape if value.size > 1 else ()) for value in values]
    return shape, [
        np.broadcast_to(value, shape) if value.size > 1 else value.reshape(()) for value in values
    ]


def _blocks(shape: Shape) -> Iterator[tuple[int | slice, ...]]:
    """Yield indices of parts of at most BLOCK elements, which together cover a shape."""
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
