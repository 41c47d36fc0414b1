"""From a recorded graph to a frozen program."""

from __future__ import annotations

from bascule.program.fuse import fuse
from bascule.program.graph import Graph
from bascule.program.memory import plan
from bascule.program.program import Program


def freeze(graph: Graph, *, fused: bool = True) -> Program:
    """Fuse neighbouring calls unless asked otherwise, plan the memory and freeze."""
    calls = fuse(graph.calls, graph.outputs) if fused else list(graph.calls)
    memory = plan(calls, graph.outputs)
    return Program(
        name=graph.name,
        inputs=tuple(graph.inputs),
        outputs=tuple(graph.outputs),
        parameters=tuple(graph.parameters.values()),
        calls=tuple(calls),
        dims=graph.dims,
        slots=memory.slots,
        slot_nbytes=memory.slot_nbytes,
        states=tuple(graph.states),
    )
