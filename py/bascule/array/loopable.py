"""Which nodes loops of WebAssembly can compute, and their instructions."""

from __future__ import annotations

from typing import TYPE_CHECKING

from bascule.array.dtypes import kind_of
from bascule.array.loop_stages import LoopNest, Operation
from bascule.array.rows import ROWS
from bascule.array.wasm_rows import CASTS, EXACT, NARROWED, TEMPLATES, has_lanes
from bascule.backend.wasm.parts import parts

if TYPE_CHECKING:
    from bascule.array.graph import Node

_LANE_BITS = 32
_SHIFTED = ("bitwise_left_shift", "bitwise_right_shift")
_CALL = "call $"
# Bytes of a vector instruction with its operands, in a compiled part.
_INSTRUCTION = 8


def is_loopable(node: Node) -> bool:
    """Whether a loop can compute it: an elementwise operation that has instructions."""
    if not all(has_lanes(each.dtype) for each in (node, *node.inputs)):
        return False
    if node.op == "reduce":
        return node.dtype == node.inputs[0].dtype
    if node.op in ("cast", "bits"):
        return True
    source = node.inputs[0].dtype if node.inputs else node.dtype
    if kind_of(source) not in TEMPLATES.get(node.op, {}):
        return False
    if node.op in _SHIFTED and not _is_small_number(node.inputs[1]):
        return False
    return node.dtype == source or ROWS[node.op].result == "bool"


def _is_small_number(node: Node) -> bool:
    """Whether it is one known number from 0 to 31: how far all lanes can be shifted at once."""
    return node.host is not None and node.host.size == 1 and 0 <= node.host.item() < _LANE_BITS


def has_part(node: Node) -> bool:
    """Whether it calls a function, which takes as long as several instructions."""
    return any(_CALL in text for text in TEMPLATES.get(node.op, {}).values())


def instructions(operation: Operation, nest: LoopNest) -> tuple[str, str]:
    """Return an operation's template, and the one that wraps its result to its type."""
    source = nest.dtype(operation.reads[0])
    narrowed = NARROWED.get(operation.dtype.name, "")
    if operation.op == "cast":
        grows = operation.dtype.itemsize > source.itemsize
        if source.kind == "b" or (grows and source.kind == operation.dtype.kind):
            narrowed = ""
        return CASTS.get((kind_of(source), kind_of(operation.dtype)), "{a}"), narrowed
    if operation.op == "bits":
        return "{a}", narrowed
    exact = operation.op in EXACT
    return TEMPLATES[operation.op][kind_of(source)], "" if exact else narrowed


def size_of(operation: Operation, nest: LoopNest) -> int:
    """Estimate its number of instructions."""
    if operation.op == "reduce":
        return 4
    words = instructions(operation, nest)[0].split()
    called = sum(len(parts()[word[1:]].code) // _INSTRUCTION for word in words if word[0] == "$")
    return called + sum("." in word for word in words)
