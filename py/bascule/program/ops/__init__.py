"""The op table: each op's operands, attributes, shape rule and meaning, in one place.

One file per kind of op; `table.py` says what a row holds. A row's numpy function defines its op;
`backend/webgpu/kernels*.py` has the kernels.

Shapes: B batch, T tokens, C hidden, K and N inner and outer size of a linear layer, V vocabulary, H
heads, G KV heads, D head size, S slots of a KV cache. Position p of a text is in slot p % S of
every state.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

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
    positions,
    recurrent,
    sampling,
    signal,
)
from bascule.program.ops.activations import ACTIVATIONS
from bascule.program.ops.cached import ROTARY_PAIRS
from bascule.program.ops.elementwise import MAX_AXES, MAX_JOINED
from bascule.program.ops.pool import POOLINGS
from bascule.program.ops.table import Cost, Op, Operand
from bascule.program.program import Call, Value

__all__ = [
    "ACTIVATIONS",
    "MAX_AXES",
    "MAX_JOINED",
    "OPS",
    "POOLINGS",
    "ROTARY_PAIRS",
    "cost_of",
    "extends_result",
    "is_part",
    "matrix_of",
    "onto_of",
    "operand",
    "operands_of",
    "uses_state",
    "with_operands",
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
    positions,
    recurrent,
    sampling,
    signal,
)
OPS: Mapping[str, Op] = {op.name: op for kind in _KINDS for op in kind.ROWS}
# Operands that a call does not read as a whole.
_NOT_READ = ("table", "onto")


def operand(call: Call, name: str) -> Value | None:
    """Return the call's operand of that name; None if the op has none, or it was left out."""
    return next((value for each, value in operands_of(call) if each.name == name), None)


def operands_of(call: Call) -> list[tuple[Operand, Value]]:
    """Return the operands of a call, each with its row."""
    row = OPS.get(call.op)
    pairs = zip(row.operands, call.operands, strict=True) if row is not None else ()
    return [(each, value) for each, value in pairs if value is not None]


def with_operands(call: Call, **changes: Value | None) -> Call:
    """Return the call with other operands, by name."""
    names = [each.name for each in OPS[call.op].operands]
    assert changes.keys() <= set(names)
    pairs = zip(names, call.operands, strict=True)
    return replace(call, operands=tuple(changes.get(name, value) for name, value in pairs))


def matrix_of(call: Call) -> Value | None:
    """Return the weight or table of a call."""
    result = (value for each, value in operands_of(call) if each.role in ("weight", "table"))
    return next(result, None)


def cost_of(call: Call) -> Cost:
    """Return a call's cost at its largest sizes. Of a table only the gathered rows count."""
    count = OPS[call.op].multiply_adds
    read = sum(value.nbytes for each, value in operands_of(call) if each.role not in _NOT_READ)
    return Cost(count(call) if count is not None else 0, read + call.result.nbytes)


def uses_state(op: str) -> bool:
    """Whether an op reads or changes what outlives a run."""
    return OPS[op].index("state") is not None


def extends_result(call: Call) -> bool:
    """Whether the op can extend a result, so that what is already there stays."""
    row = OPS.get(call.op)
    return row is not None and row.operands[-1].role == "onto"


def is_part(call: Call) -> bool:
    """Whether a call computes a part of its op's result and leaves the rest to others."""
    row = OPS[call.op]
    attributes = ((name, value) for name, value in call.attributes if name in row.parts)
    return any(row.defaults.get(name) != value for name, value in attributes)


def onto_of(call: Call) -> Value | None:
    """Return the operand whose memory the call's result takes over, if there is one."""
    return call.operands[-1] if extends_result(call) else None
