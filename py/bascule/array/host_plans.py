"""Plans of what the host computes, by the structure of a graph: a repeated chain is looked up.

A plan refers to nodes by their index in `graph.ordered`. It contains no numbers and no memory.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from bascule.array.blocks import Chain, chains
from bascule.array.graph import Node, Shape

if TYPE_CHECKING:
    from bascule.array.host_loops import CachedLoop

# Plans of a device; the oldest is dropped for a new one.
MAX_PLANS = 128
# Nodes of a graph that gets a plan: larger ones take far longer to compute than to plan.
MAX_NODES = 96
# Operations whose second operand's value matters to `loopable` and `host_loops`.
_BY_VALUE = ("pow", "bitwise_left_shift", "bitwise_right_shift")


@dataclass(slots=True)
class Planned:
    """A chain whose nodes are indices; `cached` computes it without planning its loop again.

    `kept`: its numbers are its end's own. `drops`: indices that no later chain reads.
    """

    nodes: tuple[int, ...]
    reads: tuple[int, ...]
    space: Shape
    axes: tuple[int, ...]
    in_loop: bool
    kept: bool
    drops: tuple[int, ...]
    cached: CachedLoop | None = None

    def chain(self, order: Sequence[Node]) -> Chain:
        """Return the chain of these nodes."""
        nodes, reads = (tuple(order[at] for at in places) for places in (self.nodes, self.reads))
        return Chain(nodes, reads, self.space, self.axes, self.in_loop)


class HostPlans:
    """The plans of a device."""

    def __init__(self, *, loops: bool) -> None:
        self._loops = loops
        self._plans: dict[Any, list[Planned]] = {}

    def of(self, order: Sequence[Node], wanted: set[int]) -> list[Planned]:
        """Return the chains that compute the `wanted` nodes of an `order`."""
        if len(order) > MAX_NODES:
            return self._planned(order, wanted)
        key = _key(order, wanted)
        result = self._plans.get(key)
        if result is None:
            result = self._planned(order, wanted)
            if len(self._plans) >= MAX_PLANS:
                del self._plans[next(iter(self._plans))]
            self._plans[key] = result
        return result

    def _planned(self, order: Sequence[Node], wanted: set[int]) -> list[Planned]:
        places = {id(node): at for at, node in enumerate(order)}
        found = chains(order, wanted, loops=self._loops)
        last = {id(each): at for at, chain in enumerate(found) for each in chain.reads}
        return [
            Planned(
                tuple(places[id(node)] for node in chain.nodes),
                tuple(places[id(node)] for node in chain.reads),
                chain.space,
                chain.axes,
                chain.in_loop,
                id(chain.end) in wanted or bool(chain.end.held),
                tuple({places[id(node)] for node in chain.reads if last[id(node)] == at}),
            )
            for at, chain in enumerate(found)
        ]


def _key(order: Sequence[Node], wanted: set[int]) -> tuple[Any, ...]:
    """Return all that planning depends on: operations, shapes, dtypes, reads, what is kept."""
    places: dict[int, int] = {}
    result: list[Any] = []
    for at, node in enumerate(order):
        places[id(node)] = at
        result += (node.shape, node.dtype.num)
        if node.host is not None:
            continue
        reads = [places[id(each)] for each in node.inputs]
        kept = id(node) in wanted or node.held > 0
        result += (node.op, node.attribute, kept, *reads)
        if node.op in _BY_VALUE:
            second = node.inputs[1].host
            result.append(second.item() if second is not None and second.size == 1 else None)
    return tuple(result)
