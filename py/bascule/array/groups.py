"""Which nodes one loop of WebAssembly computes together: elementwise operations and reductions.

All of them walk the same elements, a space. Reductions are over the same axes of it; what follows
from one has an element for each that is kept, with or without the reduced axes.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from math import prod

from bascule.array.graph import Node, Shape, dense
from bascule.array.loopable import has_part, is_loopable

# With fewer elements numpy's calls cost less than a loop of WebAssembly.
MIN_ELEMENTS = 1 << 14
# Operations that are cheaper to repeat in each loop that reads their result than to compute
# separately.
_CHEAP = 4


@dataclass(frozen=True, slots=True)
class Reduced:
    """The elements of a space that a value depends on, combined over axes."""

    space: Shape
    axes: tuple[int, ...]

    @property
    def kept(self) -> Shape:
        """The shape without the reduced axes."""
        return tuple(n for at, n in enumerate(self.space) if at not in self.axes)

    @property
    def kept_axes(self) -> Shape:
        """The shape with 1 for each reduced axis."""
        return tuple(1 if at in self.axes else n for at, n in enumerate(self.space))


@dataclass(slots=True)
class Group:
    """The nodes of a loop, collected backwards from its end."""

    space: Shape
    reduced: Reduced | None
    nodes: list[Node] = field(default_factory=list[Node])


class Grouping:
    """Decides which of some nodes, each after its inputs, go into one loop."""

    def __init__(self, order: Sequence[Node]) -> None:
        self._reduced: dict[int, Reduced] = {}
        self._loopable: set[int] = set()
        for node in order:
            if not node.is_known:
                self._trace(node)

    def _trace(self, node: Node) -> None:
        reads = [id(each) for each in node.inputs]
        loopable = node.op != "view" and is_loopable(node)
        reduced = None
        if node.op == "reduce":
            reduced = Reduced(node.inputs[0].shape, node.attribute[1])
        elif is_alias(node):
            reduced = self._reduced.get(reads[0])
            reduced = reduced if reduced and node.shape == reduced.kept_axes else None
        elif loopable and self._reduced:
            found = (self._reduced.get(each) for each in reads)
            reduced = next((each for each in found if each and _is_kept(node.shape, each)), None)
        if reduced is not None:
            self._reduced[id(node)] = reduced
        if loopable:
            self._loopable.add(id(node))

    def begins(self, node: Node) -> Group | None:
        """Return a loop that ends with a node; None if numpy computes it."""
        reduced = self._reduced.get(id(node))
        space = reduced.space if reduced else node.shape
        if id(node) not in self._loopable or prod(space) < MIN_ELEMENTS:
            return None
        return Group(space, reduced, [node])

    def takes(self, group: Group, node: Node) -> bool:
        """Whether a node that only the group reads belongs in it; the group is then wider."""
        reduced = self._reduced.get(id(node))
        if id(node) not in self._loopable and not (node.op == "view" and reduced):
            return False
        if reduced is None or (node.shape == group.space and node.op != "reduce"):
            return node.shape == group.space and node.op != "view"
        if group.reduced is None and group.space == reduced.space:
            group.reduced = reduced
        return group.reduced == reduced and _is_aligned(node, reduced, group)

    def repeats(self, groups: Sequence[Group], node: Node) -> bool:
        """Whether it is cheaper for each of the groups to compute a node itself."""
        if id(node) in self._reduced or any(node.shape != group.space for group in groups):
            return False
        n_operations, reads = 0, dict[int, Node]()
        waiting = [node]
        while waiting:
            each = waiting.pop()
            if each.is_known or each.op == "reduce" or id(each) not in self._loopable:
                reads[id(each)] = each
                continue
            n_operations += 1
            if n_operations > _CHEAP or has_part(each):
                return False
            waiting += each.inputs
        return n_operations > 0 and _n_elements(reads.values()) <= node.size


def finished(group: Group) -> tuple[list[Node], list[Node], Shape, tuple[int, ...]]:
    """Return the loop's nodes in order, views that are not part of it, its space and axes."""
    nodes = list(reversed(group.nodes))
    inside = {id(node) for node in nodes}
    alone = [node for node in nodes if node.op == "view" and id(node.inputs[0]) not in inside]
    nodes = [node for node in nodes if all(node is not each for each in alone)]
    reduced = group.reduced
    if reduced is None or not any(
        node.op == "reduce" or node.shape == group.space for node in nodes
    ):
        return nodes, alone, nodes[-1].shape, ()
    return nodes, alone, reduced.space, reduced.axes


def is_alias(node: Node) -> bool:
    """Whether a view shows its base unchanged, with or without axes of size 1."""
    if node.op != "view" or node.is_known:
        return False
    base, lies = node.inputs[0], node.attribute
    steps = zip(node.shape, lies.strides, dense(node.shape), strict=True)
    plain = lies.offset == 0 and all(n == 1 or step == wanted for n, step, wanted in steps)
    return plain and [n for n in node.shape if n > 1] == [n for n in base.shape if n > 1]


def _is_aligned(node: Node, reduced: Reduced, group: Group) -> bool:
    """Whether what reads a value in the group broadcasts it along the reduced axes."""
    missing = len(reduced.space) - len(reduced.kept)
    if node.shape == reduced.kept_axes or (1,) * missing + reduced.kept == reduced.kept_axes:
        return True
    readers = [each for each in group.nodes if any(read is node for read in each.inputs)]
    return all(each.op == "view" or each.shape == reduced.kept for each in readers)


def _n_elements(nodes: Iterable[Node]) -> int:
    return sum(node.size for node in nodes if node.size > 1)


def _is_kept(shape: Shape, reduced: Reduced) -> bool:
    return shape in (reduced.kept, reduced.kept_axes)
