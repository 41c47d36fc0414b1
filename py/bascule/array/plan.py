"""What becomes a kernel of its own, and what is fused into another one."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from bascule.array.graph import Node
from bascule.array.rows import ROWS

# The most elementwise operations in one kernel: compilers take longer than linear time.
MAX_OPERATIONS = 192
# Operations that are cheaper to recompute in another kernel than to write and read.
_CHEAP = 8


@dataclass(frozen=True, slots=True)
class Step:
    """One value that gets memory, and the last step that reads it: `None` if it is wanted."""

    node: Node
    inline: frozenset[int]


def is_elementwise(node: Node) -> bool:
    """Whether each element depends only on the elements at the same position."""
    return node.op in ROWS or node.op in ("cast", "bits", "iota", "gather")


def is_scalar(node: Node) -> bool:
    """Whether it is one known number, which kernels take as a parameter."""
    return node.host is not None and node.memory is None and node.host.size == 1


def steps(order: Sequence[Node], outputs: Sequence[Node], max_buffers: int) -> list[Step]:
    """Return the values to compute, each with the nodes that are fused into its kernel.

    `order` as returned by `graph.ordered`. A kernel binds at most `max_buffers` inputs.
    """
    wanted = {id(node) for node in outputs}
    wanted |= _shared(order, wanted)
    leaves: dict[int, frozenset[int]] = {}
    fused: dict[int, frozenset[int]] = {}
    for node in order:
        if node.is_known or node.op == "view":
            if node.op == "view" and not node.is_known:
                wanted.add(id(node.inputs[0]))
            leaf = node if node.is_known else node.inputs[0]
            leaves[id(node)] = frozenset() if is_scalar(node) else frozenset((id(leaf),))
            fused[id(node)] = frozenset()
            continue
        _fuse(node, wanted, leaves, fused, max_buffers)
    return [
        Step(node, fused[id(node)])
        for node in order
        if not node.is_known
        and (id(node) in wanted or not (is_elementwise(node) or node.op == "view"))
    ]


def _fuse(
    node: Node,
    wanted: set[int],
    leaves: dict[int, frozenset[int]],
    fused: dict[int, frozenset[int]],
    max_buffers: int,
) -> None:
    """Record what the kernel of a node would read and compute, cutting off what is too much."""
    while True:
        inside = [each for each in node.inputs if _is_inlined(node, each, wanted)]
        reads, computes = frozenset[int](), frozenset((id(node),))
        for each in node.inputs:
            if any(each is other for other in inside):
                reads |= leaves[id(each)]
                computes |= fused[id(each)]
            elif each.is_known or each.op == "view":
                reads |= leaves[id(each)]
            else:
                wanted.add(id(each))
                reads |= {id(each)}
        if len(reads) <= max_buffers and len(computes) <= MAX_OPERATIONS:
            break
        largest = max(inside, key=lambda each: (len(leaves[id(each)]), len(fused[id(each)])))
        wanted.add(id(largest))
    leaves[id(node)], fused[id(node)] = reads, computes


def _is_inlined(node: Node, each: Node, wanted: set[int]) -> bool:
    """Whether an input is computed in the kernel of the node that reads it."""
    if each.is_known or id(each) in wanted or not is_elementwise(each):
        return False
    if node.op in ("order", "matmul", "fft", "view") or (
        node.op == "gather" and each is node.inputs[0]
    ):
        return False
    if node.op in ("reduce", "best", "scan"):
        return True
    return each.op == "iota" or each.size == node.size


def _shared(order: Sequence[Node], outputs: set[int]) -> set[int]:
    """Return nodes that several kernels read and that cost more to recompute than to store."""
    roots: dict[int, set[int]] = {id(node): set() for node in order}
    costs: dict[int, int] = {}
    for node in order:
        inside = [each for each in node.inputs if _is_inlined(node, each, outputs)]
        costs[id(node)] = min(1 + sum(costs[id(each)] for each in inside), 1 << 30)
    result: set[int] = set()
    for node in reversed(order):
        mine = roots[id(node)]
        alone = id(node) in outputs or not is_elementwise(node)
        if not alone and len(mine) > 1 and costs[id(node)] > _CHEAP:
            result.add(id(node))
            alone = True
        passed_on = {id(node)} if alone or not mine else mine
        for each in () if node.is_known else node.inputs:
            roots[id(each)] |= passed_on
    return result
