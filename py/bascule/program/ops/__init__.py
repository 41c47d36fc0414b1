"""The op table: each op's operands, attributes, shape rule and meaning, in one place.

One file a kind of op; `table.py` says what a row holds. A row's numpy function is the definition of
its op; `shaders/README.md` names the kernels.
Shapes: B batch, T tokens, C hidden, K and N inner and outer size of a linear layer, V vocabulary,
H heads, G KV heads, D head size, S slots of a KV cache. What belongs to position p of a text stands
in slot p % S of every state.
"""

from __future__ import annotations

from collections.abc import Mapping

from bascule.program.ops import (
    activations,
    attention,
    cached,
    elementwise,
    embedding,
    images,
    linear,
    norm,
    pool,
    sampling,
)
from bascule.program.ops.activations import ACTIVATIONS
from bascule.program.ops.cached import ROTARY_PAIRS
from bascule.program.ops.elementwise import MOST_JOINED
from bascule.program.ops.pool import POOLINGS
from bascule.program.ops.table import Op
from bascule.program.program import Call, Value

__all__ = [
    "ACTIVATIONS",
    "MOST_JOINED",
    "OPS",
    "POOLINGS",
    "ROTARY_PAIRS",
    "onto_of",
    "takes_over",
    "works_on_a_state",
]

_KINDS = (
    activations,
    attention,
    cached,
    elementwise,
    embedding,
    images,
    linear,
    norm,
    pool,
    sampling,
)
OPS: Mapping[str, Op] = {op.name: op for kind in _KINDS for op in kind.ROWS}


def works_on_a_state(op: str) -> bool:
    """Whether an op reads or changes what outlives a run."""
    return not {"tokens", "cache"}.isdisjoint(OPS[op].operands)


def takes_over(call: Call) -> bool:
    """Whether it is a part of a result, so that what stands there already stays."""
    row = OPS.get(call.op)
    return row is not None and row.operands[-1] == "onto?"


def onto_of(call: Call) -> Value | None:
    """The operand whose memory the call's result takes over, if there is one."""
    return call.operands[-1] if takes_over(call) else None
