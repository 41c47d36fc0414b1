"""Run a lazy graph in numpy: the wasm and cpu tiers, in the process's own memory.

On the wasm tier its kernels compute matrix products, and generated loops chains of operations.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any
from weakref import finalize

from bascule.array.evaluate import factors
from bascule.array.graph import Node, ordered
from bascule.array.host_loops import HostLoops
from bascule.array.host_plans import HostPlans, Planned

if TYPE_CHECKING:
    from bascule.backend.deviceless import Deviceless


class HostRunner:
    """Computes nodes one after the other; unreferenced values are dropped on the way."""

    def __init__(self, backend: Deviceless) -> None:
        self._backend = backend
        load = backend.loop_loader()
        self._loops = HostLoops(load, backend.loop_elements) if load else None
        self._plans = HostPlans(loops=load is not None)

    async def compute(self, outputs: Sequence[Node]) -> None:
        """Compute the numbers of these."""
        async with self._backend.turns.turn():  # kernels share scratch memory with models
            self._compute(outputs)

    def _compute(self, outputs: Sequence[Node]) -> None:
        wanted = {id(node) for node in outputs}
        order = ordered(outputs)
        plan = self._plans.of(order, wanted)
        values: dict[int, Any] = {at: node.host for at, node in enumerate(order)}
        for planned in plan:
            at = planned.nodes[-1]
            values[at] = self._evaluated(planned, order, [values[each] for each in planned.reads])
            if planned.kept:
                self._settle(order[at], values[at])
            for each in planned.drops:
                values[each] = None
        for node in outputs:
            node.settle()

    async def read(self, outputs: Sequence[Node]) -> None:
        """The same: the numbers are already here."""
        await self.compute(outputs)

    def _evaluated(self, planned: Planned, order: Sequence[Node], values: list[Any]) -> Any:
        result = planned.cached.run(values) if planned.cached else None
        if result is not None:
            return result.reshape(order[planned.nodes[-1]].shape)
        chain, computed = planned.chain(order), None
        node = chain.end
        if self._loops and node.op == "matmul":
            computed = self._loops.product(node, values)
        elif self._loops and chain.in_loop:
            computed = self._loops.evaluate(chain, values)
        if computed is not None:
            planned.cached = computed.cached
            return computed.numbers.reshape(node.shape)
        product = self._backend.product(*factors(node, values)) if node.op == "matmul" else None
        return chain.evaluate(values) if product is None else product.reshape(node.shape)

    def _settle(self, node: Node, found: Any) -> None:
        node.host = found
        if node.op != "view":
            self._backend.count.add("buffers", found.nbytes)
            finalize(node, self._backend.count.add, "buffers", -found.nbytes).atexit = False
