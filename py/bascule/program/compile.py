"""Compile a recorded graph to a frozen program.

Neighbouring calls that one kernel can do in a single pass over memory are fused, by two rules, each
only if the value between them has no other reader:

  linear(none) -> activate           becomes  linear(activation)
  add(x, residual) -> layer_norm     becomes  layer_norm(x, residual)
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import replace

from bascule.program.graph import Graph
from bascule.program.memory import plan
from bascule.program.ops import operand, with_operands
from bascule.program.program import Call, Program, Value


def freeze(graph: Graph, *, fused: bool = True) -> Program:
    """Fuse neighbouring calls, unless asked not to, plan the memory and freeze."""
    calls = _fused(graph.calls, graph.outputs) if fused else list(graph.calls)
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


def _fused(calls: Sequence[Call], outputs: Sequence[Value]) -> list[Call]:
    """Apply the rules until none fits; the order of the calls stays valid."""
    readers = Counter(o.name for call in calls for o in call.operands if o is not None)
    readers.update(v.name for v in outputs)
    fused: list[Call] = []
    places: dict[str, int] = {}
    for call in calls:
        first = call.operands[0]
        before = places.get(first.name) if first is not None and readers[first.name] == 1 else None
        # A view of the previous result, in another shape, is read only by its own call.
        same = before is not None and first == fused[before].result
        joined = _join(fused[before], call) if before is not None and same else None
        if joined is None or before is None:
            fused.append(call)
            places[call.result.name] = len(fused) - 1
            continue
        # All operands exist where the later call stood, so the fused call takes that place.
        del fused[before]
        fused.append(joined)
        places = {c.result.name: index for index, c in enumerate(fused)}
    return fused


def _join(first: Call, second: Call) -> Call | None:
    match first.op, second.op:
        case "linear", "activate" if first.attribute("activation") == "none":
            kind = second.attribute("kind")
            return replace(first, result=second.result, attributes=(("activation", kind),))
        case "add", "layer_norm" if operand(second, "residual") is None:
            x, residual = first.operands
            if x is None or residual is None or x.shape != residual.shape:
                return None
            return with_operands(second, x=x, residual=residual)
        case _:
            return None
