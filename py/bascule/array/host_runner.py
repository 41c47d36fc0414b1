"""Runs a lazy graph in numpy: the wasm and cpu tiers, in the process's own memory.

Products of matrices on the wasm tier are its kernels'.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any
from weakref import finalize

from bascule.array.evaluate import evaluate, factors, viewed
from bascule.array.graph import Node, ordered

if TYPE_CHECKING:
    from bascule.backend.deviceless import Deviceless


class HostRunner:
    """Computes nodes one after the other; what nothing refers to is dropped on the way."""

    def __init__(self, backend: Deviceless) -> None:
        self._backend = backend

    async def compute(self, outputs: Sequence[Node]) -> None:
        """Give each of these its numbers."""
        async with self._backend.turns.turn():  # kernels share scratch memory with models
            self._compute(outputs)

    def _compute(self, outputs: Sequence[Node]) -> None:
        order = ordered(outputs)
        last = {id(each): at for at, node in enumerate(order) for each in node.inputs}
        wanted = {id(node) for node in outputs}
        values: dict[int, Any] = {}
        for at, node in enumerate(order):
            if node.host is None:
                found = self._evaluated(node, [_value(each, values) for each in node.inputs])
                if id(node) in wanted or node.held:
                    self._settle(node, found)
                else:
                    values[id(node)] = found
            for each in node.inputs:
                if last.get(id(each)) == at:
                    values.pop(id(each), None)
        for node in outputs:
            node.settle()

    async def read(self, outputs: Sequence[Node]) -> None:
        """The same: the numbers lie here."""
        await self.compute(outputs)

    def _evaluated(self, node: Node, inputs: list[Any]) -> Any:
        if node.op == "matmul":
            found = self._backend.product(*factors(node, inputs))
            if found is not None:
                return found.reshape(node.shape)
        return evaluate(node, inputs)

    def _settle(self, node: Node, found: Any) -> None:
        node.host = found
        if node.op != "view":
            self._backend.count.add("buffers", found.nbytes)
            finalize(node, self._backend.count.add, "buffers", -found.nbytes).atexit = False


def _value(node: Node, values: dict[int, Any]) -> Any:
    return values[id(node)] if node.host is None else node.host


__all__ = ["HostRunner", "viewed"]
