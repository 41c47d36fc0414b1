"""Runs a lazy graph in numpy: the wasm and cpu tiers, in the process's own memory.

On the wasm tier products of matrices are its kernels', chains of operations loops made for them.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any
from weakref import finalize

from bascule.array.blocks import Chain, chains
from bascule.array.evaluate import factors
from bascule.array.graph import Node, ordered
from bascule.array.host_loops import HostLoops

if TYPE_CHECKING:
    from bascule.backend.deviceless import Deviceless


class HostRunner:
    """Computes nodes one after the other; what nothing refers to is dropped on the way."""

    def __init__(self, backend: Deviceless) -> None:
        self._backend = backend
        load = backend.loop_loader()
        self._loops = HostLoops(load, backend.loop_elements) if load else None

    async def compute(self, outputs: Sequence[Node]) -> None:
        """Give each of these its numbers."""
        async with self._backend.turns.turn():  # kernels share scratch memory with models
            self._compute(outputs)

    def _compute(self, outputs: Sequence[Node]) -> None:
        wanted = {id(node) for node in outputs}
        result = chains(ordered(outputs), wanted, loops=self._loops is not None)
        last = {id(each): at for at, chain in enumerate(result) for each in chain.reads}
        values: dict[int, Any] = {}
        for at, chain in enumerate(result):
            node = chain.end
            numbers = self._evaluated(chain, [_value(each, values) for each in chain.reads])
            if id(node) in wanted or node.held:
                self._settle(node, numbers)
            else:
                values[id(node)] = numbers
            for each in chain.reads:
                if last[id(each)] == at:
                    values.pop(id(each), None)
        for node in outputs:
            node.settle()

    async def read(self, outputs: Sequence[Node]) -> None:
        """The same: the numbers lie here."""
        await self.compute(outputs)

    def _evaluated(self, chain: Chain, values: list[Any]) -> Any:
        node = chain.end
        if node.op == "matmul":
            result = self._loops.product(node, values) if self._loops else None
            if result is None:
                result = self._backend.product(*factors(node, values))
            if result is not None:
                return result.reshape(node.shape)
        if self._loops and chain.in_loop:
            result = self._loops.evaluate(chain, values)
            if result is not None:
                return result
        return chain.evaluate(values)

    def _settle(self, node: Node, found: Any) -> None:
        node.host = found
        if node.op != "view":
            self._backend.count.add("buffers", found.nbytes)
            finalize(node, self._backend.count.add, "buffers", -found.nbytes).atexit = False


def _value(node: Node, values: dict[int, Any]) -> Any:
    return values[id(node)] if node.host is None else node.host
