"""One loop of WebAssembly for a chain of operations: an element is read, computed and stored once.

The text follows from the chain's operations, dtypes and which operands vary along a row; sizes and
addresses are parameters, so that one loop serves all shapes.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from bascule.array.dtypes import kind_of
from bascule.array.graph import Node
from bascule.array.rows import ROWS
from bascule.array.wasm_rows import (
    CASTS,
    EXACT,
    LOADS,
    NARROWED,
    SPLATS,
    STORES,
    TEMPLATES,
    has_lanes,
)
from bascule.backend.wasm.assembler import Function
from bascule.backend.wasm.parts import parts

if TYPE_CHECKING:
    from bascule.array.dtypes import DType

# Elements that are computed at once, and so the least of a row.
LANES = 4
_LANE_BITS = 32
_SHIFTED = ("bitwise_left_shift", "bitwise_right_shift")
_CALL = "call $"
# The local that counts bytes, by the size of an element.
_INDEX = {1: "$at", 2: "$at2", 4: "$at4"}


@dataclass(frozen=True, slots=True)
class Operand:
    """What a loop reads: `along` where it varies along a row, else it is one number a row."""

    dtype: DType
    along: bool


@dataclass(frozen=True, slots=True)
class Operation:
    """A value that follows from others: `reads` are their places, operands first."""

    op: str
    reads: tuple[int, ...]
    dtype: DType


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


@dataclass(slots=True)
class LoopText:
    """Writes `run(params)` for an elementwise chain.

    Params are 32-bit words: rows, columns, how many bytes the result and each operand move on with
    a row, and their addresses in the same order.
    """

    operands: Sequence[Operand]
    operations: Sequence[Operation]
    _locals: dict[str, str] = field(default_factory=dict[str, str])
    _parts: set[str] = field(default_factory=set[str])

    def module(self) -> bytes:
        """The module's bytes."""
        body = self._whole()
        known = parts()
        return Function(body, self._locals, [known[name] for name in sorted(self._parts)]).module()

    def _whole(self) -> str:
        lines = [*self._params(), *ROWS_BEGIN, *self._held()]
        lines += ["i32.const 0 local.set $at", "block loop", NEXT, *self._step(), ON, "end end"]
        lines += [*self._next_row(), *ROWS_END]
        return "\n".join(lines)

    def _params(self) -> list[str]:
        """Read them into locals."""
        count = 1 + len(self.operands)
        names = ["rows", "columns", *(f"step{at}" for at in range(count))]
        names += [f"address{at}" for at in range(count)]
        self._locals |= dict.fromkeys((*names, "at", "at2", "at4"), "i32")
        return [
            f"local.get $params i32.load {4 * at} local.set ${name}"
            for at, name in enumerate(names)
        ]

    def _held(self, address: str = "address") -> list[str]:
        """Read the numbers that all of a row have in common."""
        lines: list[str] = []
        for at, each in enumerate(self.operands):
            if not each.along:
                self._locals[f"v{at}"] = "v128"
                load = SPLATS[each.dtype.name]
                lines.append(f"local.get ${address}{at + 1} {load} local.set $v{at}")
        return lines

    def _computed(self, address: str = "address") -> list[str]:
        """Read four elements of each operand and compute what follows from them."""
        lines = [OFFSETS]
        for at, each in enumerate(self.operands):
            if each.along:
                self._locals[f"v{at}"] = "v128"
                place = place_of(f"{address}{at + 1}", each.dtype)
                lines.append(f"{place} {LOADS[each.dtype.name]} local.set $v{at}")
        for at, each in enumerate(self.operations, start=len(self.operands)):
            self._locals[f"v{at}"] = "v128"
            lines.append(f"{self._value(each)} local.set $v{at}")
        return lines

    @property
    def _last(self) -> int:
        """The place of the last value."""
        return len(self.operands) + len(self.operations) - 1

    @property
    def _result(self) -> str:
        """The local with the last value."""
        return f"$v{self._last}"

    def _step(self) -> list[str]:
        """Four elements."""
        dtype = self._dtype(self._last)
        store = STORES[dtype.name].format(a=f"local.get {self._result}")
        return [*self._computed(), f"{place_of('address0', dtype)} {store}"]

    def _next_row(self, address: str = "address", first: int = 0) -> list[str]:
        """Move the addresses on, from those of operand `first`; 0 is the result."""
        return [moved(f"{address}{at}", f"step{at}") for at in range(first, 1 + len(self.operands))]

    def _value(self, operation: Operation) -> str:
        source = self._dtype(operation.reads[0])
        narrowed = NARROWED.get(operation.dtype.name, "")
        if operation.op == "cast":
            text = CASTS.get((kind_of(source), kind_of(operation.dtype)), "{a}")
            grows = operation.dtype.itemsize > source.itemsize
            if source.kind == "b" or (grows and source.kind == operation.dtype.kind):
                narrowed = ""
        elif operation.op == "bits":
            text = "{a}"
        else:
            text = TEMPLATES[operation.op][kind_of(source)]
            if operation.op in EXACT:
                narrowed = ""
        self._parts |= {word[1:] for word in text.split() if word[0] == "$"}
        operands = {
            letter: f"local.get $v{at}" for letter, at in zip("abc", operation.reads, strict=False)
        }
        return f"{text.format(**operands)} {narrowed}"

    def _dtype(self, at: int) -> DType:
        n_operands = len(self.operands)
        return (self.operands[at] if at < n_operands else self.operations[at - n_operands]).dtype


def place_of(address: str, dtype: DType) -> str:
    """The address of the element that the step begins with."""
    return f"local.get ${address} local.get {_INDEX[dtype.itemsize]} i32.add"


def moved(name: str, by: str) -> str:
    """Add one local to another."""
    return f"local.get ${name} local.get ${by} i32.add local.set ${name}"


ROWS_BEGIN = ("block loop", "local.get $rows i32.eqz br_if 1")
ROWS_END = ("local.get $rows i32.const 1 i32.sub local.set $rows", "br 0 end end")
# The last step of a row is moved back to end with it: some elements are computed twice.
NEXT = """
local.get $at local.get $columns i32.eq br_if 1
local.get $at i32.const 4 i32.add local.get $columns i32.gt_s
if local.get $columns i32.const 4 i32.sub local.set $at end
"""
OFFSETS = """
local.get $at i32.const 1 i32.shl local.set $at2
local.get $at i32.const 2 i32.shl local.set $at4
"""
ON = "local.get $at i32.const 4 i32.add local.set $at br 0"


def operations_of(nodes: Sequence[Node], reads: Sequence[Node]) -> tuple[Operation, ...]:
    """The operations of a chain, by the places of what they read."""
    places: Mapping[int, int] = {id(node): at for at, node in enumerate((*reads, *nodes))}
    return tuple(
        Operation(node.op, tuple(places[id(each)] for each in node.inputs), node.dtype)
        for node in nodes
    )
