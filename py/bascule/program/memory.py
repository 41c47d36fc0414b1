"""The memory plan: intermediate values share buffers if their lifetimes do not overlap.

Whole buffers are shared, never ranges of one: WebGPU forbids binding a buffer for reading and for
writing in one dispatch (specification, section 3.4.3, usage scopes), and a call's result is always
alive together with its operands, except one whose memory it takes over.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from bascule.program.ops import onto_of
from bascule.program.program import Call, Value


@dataclass(frozen=True, slots=True)
class MemoryPlan:
    """`slots` maps a result's name to a shared buffer; `slot_nbytes` sizes those buffers."""

    slots: Mapping[str, int]
    slot_nbytes: tuple[int, ...]


def plan(calls: Sequence[Call], outputs: Sequence[Value]) -> MemoryPlan:
    """Assign buffers in call order, using the free one whose size fits best."""
    last = {o.name: index for index, call in enumerate(calls) for o in call.operands if o}
    last |= {v.name: len(calls) for v in outputs}
    slots: dict[str, int] = {}
    nbytes: list[int] = []
    busy_until: list[int] = []
    for index, call in enumerate(calls):
        need = call.result.nbytes
        onto = onto_of(call)
        free = [slot for slot, until in enumerate(busy_until) if until < index]
        if onto is not None:
            slot = slots[onto.name]
        elif free:
            # The smallest that is large enough, else the largest, which then grows.
            slot = min(free, key=lambda s: (nbytes[s] < need, abs(nbytes[s] - need)))
            nbytes[slot] = max(nbytes[slot], need)
        else:
            slot = len(nbytes)
            nbytes.append(need)
            busy_until.append(0)
        busy_until[slot] = last.get(call.result.name, index)
        slots[call.result.name] = slot
    return MemoryPlan(slots, tuple(nbytes))
