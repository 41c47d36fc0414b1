"""One loop of WebAssembly for a chain of operations and the reductions among them.

An element is read, computed and stored once. The text follows from the chain's operations, dtypes
and which operands vary along which axes (`Nest`); sizes, steps and addresses are parameters, so
that one loop serves all shapes.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from math import inf
from typing import TYPE_CHECKING

from bascule.array.dtypes import kind_of
from bascule.array.loop_stages import Nest, Operation, Stage, Stages, stages_of
from bascule.array.reducing_loops import ACCUMULATORS_NBYTES, COLUMNS, Accumulator
from bascule.array.rows import ROWS
from bascule.array.wasm_rows import (
    CASTS,
    EXACT,
    LOADS,
    NARROWED,
    SPLATS,
    STORES,
    STORES_ONE,
    TEMPLATES,
    has_lanes,
)
from bascule.backend.wasm.assembler import Function
from bascule.backend.wasm.parts import parts

if TYPE_CHECKING:
    from bascule.array.dtypes import DType
    from bascule.array.graph import Node

# Elements of a vector, and so the least along its axis.
LANES = 4
# Vectors of a step, by how many instructions each takes at most: their latencies overlap, and text
# for many takes long to compile.
UNROLLED = {4: 100, 2: 250, 1: inf}
_LANE_BITS = 32
_SHIFTED = ("bitwise_left_shift", "bitwise_right_shift")
_CALL = "call $"
# Bytes of an instruction on vectors with its operands, in a compiled part.
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


@dataclass(slots=True)
class LoopText:
    """Writes `run(params)` for a nest.

    Params are 32-bit words: elements along the vectors' axis, sizes of the kept and the reduced
    axes from outside in, of each such axis how many bytes the result and each operand move on
    with it, and the addresses of result, operands and scratch, an array for each stored value.
    """

    nest: Nest
    stages: Stages = field(init=False)
    unrolled: int = field(init=False)  # vectors of a step
    _locals: dict[str, str] = field(default_factory=dict[str, str])
    _parts: set[str] = field(default_factory=set[str])

    def __post_init__(self) -> None:
        self.stages = stages_of(self.nest)
        size = sum(_size(each, self.nest) for each in self.nest.operations)
        self.unrolled = next(n for n, most in UNROLLED.items() if size <= most)

    def module(self) -> bytes:
        """The module's bytes."""
        body = self._whole()
        known = parts()
        return Function(body, self._locals, [known[name] for name in sorted(self._parts)]).module()

    @property
    def scratch(self) -> tuple[int, ...]:
        """Places of values that have an array of scratch each: stored ones, or accumulators."""
        if self.nest.by_rows:
            return tuple(at for stage in self.stages.passes for at in stage.reductions)
        return self.stages.stored

    def scratch_nbytes(self, columns: int, rounds: int) -> int:
        """Bytes of each such array, for so many rounds of the reduced axes' loops."""
        if self.nest.by_rows:
            return ACCUMULATORS_NBYTES
        return rounds * 4 * (columns if self.nest.reduces else LANES * self.unrolled)

    def _whole(self) -> str:
        nest = self.nest
        row = self._reduced_row() if nest.reduces else self._kept_row()
        row = self._blocks_of_columns() if nest.by_rows else row
        n_pointers = 1 + len(nest.operands)
        for level in reversed(range(nest.n_kept)):
            row = self._level(level, range(n_pointers), row)
        return "\n".join((*self._params(), *row))

    def _params(self) -> list[str]:
        """Read them into locals."""
        n_levels = self.nest.n_kept + self.nest.n_reduced
        pointers = range(1 + len(self.nest.operands))
        names = ["columns", *(f"size{level}" for level in range(n_levels))]
        names += [f"step{level}_{at}" for level in range(n_levels) for at in pointers]
        names += [f"p0_{at}" for at in pointers]
        names += [f"scratch{at}" for at in self.scratch]
        self._locals |= dict.fromkeys((*names, "at", "at2", "at4"), "i32")
        return [
            f"local.get $params i32.load {4 * at} local.set ${name}"
            for at, name in enumerate(names)
        ]

    def _level(self, level: int, pointers: Iterable[int], body: Sequence[str]) -> list[str]:
        """A loop over an axis: its pointers begin where those outside are."""
        pointers = list(pointers)
        self._locals |= dict.fromkeys(
            (f"n{level}", *(f"p{level + 1}_{k}" for k in pointers)), "i32"
        )
        return [
            f"local.get $size{level} local.set $n{level}",
            *(f"local.get $p{level}_{k} local.set $p{level + 1}_{k}" for k in pointers),
            "loop", *body, *(moved(f"p{level + 1}_{k}", f"step{level}_{k}") for k in pointers),
            f"local.get $n{level} i32.const 1 i32.sub local.tee $n{level} br_if 0 end",
        ]  # fmt: skip

    def _kept_row(self) -> list[str]:
        """Vectors along a kept axis: each lane has a result of its own."""
        lines = [self._splat(at) for at in self._operands(inner=False, along=False)]
        lines.append("i32.const 0 local.set $at")
        if self.unrolled > 1:
            lines += [
                *_while(self.unrolled),
                *self._kept_step(self.unrolled),
                *_next(self.unrolled),
            ]
        return [*lines, REST, BACK, *self._kept_step(1), *_next(1)]

    def _kept_step(self, n: int) -> list[str]:
        loads = self._operands(inner=False, along=True)
        lines = [OFFSETS]
        lines += [self._load(at, u) for u in range(n) for at in loads]
        lines += self._computed(self.stages.before, n)
        for stage in self.stages.passes:
            lines += [
                self._accumulator(at).begun(f"r{at}_{u}")
                for at in stage.reductions
                for u in range(n)
            ]
            elements = [*self._elements(stage, n, masked=False)]
            lines += self._pass(stage, elements, f"i32.const {4 * LANES * n}")
            lines += [
                f"{self._accumulator(at).four(f'r{at}_{u}')} local.set {self._local(at, u)}"
                for at in stage.reductions
                for u in range(n)
            ]
            lines += self._computed(stage.afterwards, n)
        if not self.nest.has_inner_result:
            lines += [self._store(u) for u in range(n)]
        return lines

    def _blocks_of_columns(self) -> list[str]:
        """Vectors along a kept axis, whose accumulators are loaded and stored for each row."""
        self._locals |= dict.fromkeys(("total", "begin", "place"), "i32")
        (stage,) = self.stages.passes
        n = self.unrolled
        steps = ["local.get $begin local.set $at"]
        if n > 1:
            steps += [*_while(n), OFFSETS, *self._elements(stage, n, masked=False), *_next(n)]
        steps += [REST, self._fresh(), BACK, OFFSETS]
        steps += [*self._elements(stage, 1, masked=True), *_next(1)]
        ends: list[str] = []
        for at in stage.reductions:
            ends.append(self._accumulator(at).loaded(f"r{at}_0", f"scratch{at}", 0))
            ends.append(f"{self._accumulator(at).four(f'r{at}_0')} local.set {self._local(at, 0)}")
        begun = [
            f"{self._accumulator(at).begun(f'r{at}_0')}\n"
            f"{self._accumulator(at).stored(f'r{at}_0', f'scratch{at}', 0)}"
            for at in stage.reductions
        ]
        splats = [self._splat(at) for at in self._operands(inner=False, along=False)]
        loads = [self._load(at, 0) for at in self._operands(inner=False, along=True)]
        begin = "local.get $begin local.set $at"
        return [
            *splats, COLUMNS_BEGIN,
            begin, REST, OFFSETS, *begun, "local.get $at i32.const 4 i32.add local.set $at",
            "local.get $at local.get $columns i32.gt_s if local.get $columns local.set $at end",
            "br 0 end end",
            *self._pass(stage, steps, ""),
            begin, REST, BACK, OFFSETS, *loads, *ends, *self._computed(self.stages.before, 1),
            *self._computed(stage.afterwards, 1), self._store(0), *_next(1),
            COLUMNS_END,
        ]  # fmt: skip

    def _reduced_row(self) -> list[str]:
        """Vectors along a reduced axis: their lanes are combined in the end."""
        lines = [self._splat(at) for at in self._operands(inner=False)]
        lines += self._computed(self.stages.before, 1)
        for stage in self.stages.passes:
            n = self.unrolled
            lines += [
                self._accumulator(at).begun(f"r{at}_{u}")
                for at in stage.reductions
                for u in range(n)
            ]
            steps = ["i32.const 0 local.set $at"]
            if n > 1:
                steps += [*_while(n), OFFSETS, *self._elements(stage, n, masked=False), *_next(n)]
            steps.append(REST)
            masked = bool(stage.reductions)
            steps += [self._fresh() if masked else "", BACK, OFFSETS]
            steps += [*self._elements(stage, 1, masked=masked), *_next(1)]
            lines += self._pass(stage, steps, "local.get $columns i32.const 2 i32.shl")
            for at in stage.reductions:
                accumulator = self._accumulator(at)
                lines += [accumulator.joined(f"r{at}_0", f"r{at}_{u}") for u in range(1, n)]
                lines.append(f"{accumulator.one(f'r{at}_0')} local.set {self._local(at, 0)}")
            lines += self._computed(stage.afterwards, 1)
        if not self.nest.has_inner_result:
            store = STORES_ONE[self.nest.dtype(self.nest.last).name]
            value = store.format(a=f"local.get {self._local(self.nest.last, 0)}")
            lines.append(f"local.get $p{self.nest.n_kept}_0 {value}")
        return lines

    def _pass(self, stage: Stage, steps: Sequence[str], scratch_step: str) -> list[str]:
        """The loops over the reduced axes."""
        nest = self.nest
        inner = [1 + at for at in self._operands(inner=True)]
        pointers = [0, *inner] if nest.has_inner_result else inner
        scratch = [] if nest.by_rows else [*stage.stores, *stage.restores]
        self._locals |= dict.fromkeys((f"s{at}" for at in scratch), "i32")
        splats = [self._splat(at) for at in stage.loads if not nest.operands[at].along]
        row = [*splats, *steps]
        row += [f"local.get $s{at} {scratch_step} i32.add local.set $s{at}" for at in scratch]
        for level in reversed(range(nest.n_kept, nest.n_kept + nest.n_reduced)):
            row = self._level(level, pointers, row)
        return [*(f"local.get $scratch{at} local.set $s{at}" for at in scratch), *row]

    def _elements(self, stage: Stage, n: int, *, masked: bool) -> list[str]:
        """What a pass does with `n` vectors; `masked`: only fresh lanes are reduced."""
        nest = self.nest
        lines: list[str] = []
        for u in range(n):
            lines += [self._load(at, u) for at in stage.loads if nest.operands[at].along]
            lines += [
                f"{self._scratch(at)} v128.load {16 * u} local.set {self._local(at, u)}"
                for at in stage.restores
            ]
        lines += self._computed(stage.computes, n)
        for u in range(n):
            lines += [
                f"{self._scratch(at)} local.get {self._local(at, u)} v128.store {16 * u}"
                for at in stage.stores
            ]
            lines += [self._combined(at, u, masked) for at in stage.reductions]
            if nest.has_inner_result and stage is self.stages.passes[-1]:
                lines.append(self._store(u))
        return lines

    def _combined(self, at: int, u: int, masked: bool) -> str:
        operation = self.nest.operation(at)
        assert operation is not None
        accumulator = self._accumulator(at)
        value, name = f"local.get {self._local(operation.reads[0], u)}", f"r{at}_{u}"
        fresh = ""
        if masked:
            self._locals["combined"] = "v128"
            fresh = f"{value} {accumulator.nothing} local.get $fresh v128.bitselect"
            fresh, value = f"{fresh} local.set $combined", "local.get $combined"
        combined = accumulator.combined(name, value)
        if self.nest.by_rows:
            loaded, stored = (
                way(name, f"scratch{at}", u) for way in (accumulator.loaded, accumulator.stored)
            )
            combined = f"{loaded}\n{combined}\n{stored}"
        return f"{fresh}\n{combined}"

    def _accumulator(self, at: int) -> Accumulator:
        operation = self.nest.operation(at)
        assert operation is not None
        for u in range(self.unrolled):
            self._locals |= dict.fromkeys((f"r{at}_{u}l", f"r{at}_{u}h"), "v128")
        return Accumulator(operation.combination, operation.dtype)

    def _fresh(self) -> str:
        """Lanes of the next step that no step before it has had."""
        self._locals["fresh"] = "v128"
        return FRESH

    def _operands(self, *, inner: bool, along: bool | None = None) -> list[int]:
        return [
            at
            for at, each in enumerate(self.nest.operands)
            if each.inner == inner and (along is None or each.along == along)
        ]

    def _local(self, at: int, u: int) -> str:
        """The local of a value: one for each vector of a step that it differs in."""
        nest = self.nest
        single = not nest.is_inner(at) if nest.reduces else False
        if at < len(nest.operands):
            single = not nest.operands[at].along
        name = f"v{at}" if single else f"v{at}_{u}"
        self._locals[name] = "v128"
        return f"${name}"

    def _pointer(self, k: int, inner: bool) -> str:
        level = self.nest.n_kept + (self.nest.n_reduced if inner else 0)
        return f"local.get $p{level}_{k}"

    def _splat(self, at: int) -> str:
        operand = self.nest.operands[at]
        load = SPLATS[operand.dtype.name]
        return f"{self._pointer(at + 1, operand.inner)} {load} local.set {self._local(at, 0)}"

    def _load(self, at: int, u: int) -> str:
        operand = self.nest.operands[at]
        place = f"{self._pointer(at + 1, operand.inner)} {_along(operand.dtype)}"
        load = LOADS[operand.dtype.name].format(o=LANES * operand.dtype.itemsize * u)
        return f"{place} {load} local.set {self._local(at, u)}"

    def _store(self, u: int) -> str:
        last, dtype = self.nest.last, self.nest.dtype(self.nest.last)
        place = f"{self._pointer(0, self.nest.has_inner_result)} {_along(dtype)}"
        value = f"local.get {self._local(last, u)}"
        return f"{place} {STORES[dtype.name].format(a=value, o=LANES * dtype.itemsize * u)}"

    def _scratch(self, at: int) -> str:
        return f"local.get $s{at} {'local.get $at4 i32.add' if self.nest.reduces else ''}"

    def _computed(self, places: Sequence[int], n: int) -> list[str]:
        """Operations on `n` vectors, one after the other for all: their latencies overlap."""
        return [
            f"{self._value(operation, u)} local.set {self._local(at, u)}"
            for at in places
            if (operation := self.nest.operation(at)) is not None
            for u in range(n)
        ]

    def _value(self, operation: Operation, u: int) -> str:
        text, narrowed = _instructions(operation, self.nest)
        self._parts |= {word[1:] for word in text.split() if word[0] == "$"}
        operands = {
            letter: f"local.get {self._local(at, u)}"
            for letter, at in zip("abc", operation.reads, strict=False)
        }
        return f"{text.format(**operands)} {narrowed}"


def _instructions(operation: Operation, nest: Nest) -> tuple[str, str]:
    """An operation's template, and what brings its result into the range of its type."""
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


def _size(operation: Operation, nest: Nest) -> int:
    """About how many instructions it is."""
    if operation.op == "reduce":
        return 4
    words = _instructions(operation, nest)[0].split()
    called = sum(len(parts()[word[1:]].code) // _INSTRUCTION for word in words if word[0] == "$")
    return called + sum("." in word for word in words)


def _along(dtype: DType) -> str:
    """Adds to an address what lies before the step's first element."""
    return f"local.get {_INDEX[dtype.itemsize]} i32.add"


def moved(name: str, by: str) -> str:
    """Add one local to another."""
    return f"local.get ${name} local.get ${by} i32.add local.set ${name}"


# The local that counts bytes along the vectors' axis, by the size of an element.
_INDEX = {1: "$at", 2: "$at2", 4: "$at4"}
OFFSETS = """
local.get $at i32.const 1 i32.shl local.set $at2
local.get $at i32.const 2 i32.shl local.set $at4
"""
# The last step is moved back to end with its axis: some elements are computed twice.
BACK = """
local.get $at i32.const 4 i32.add local.get $columns i32.gt_s
if local.get $columns i32.const 4 i32.sub local.set $at end
"""
REST = "block loop local.get $at local.get $columns i32.eq br_if 1"
FRESH = """
v128.const 0 1 2 3
local.get $at local.get $columns i32.sub i32.const 4 i32.add i32x4.splat
i32x4.ge_s local.set $fresh
"""
# Blocks of columns, from `begin` up to `columns`; none is shorter than a vector.
COLUMNS_BEGIN = f"""
local.get $columns local.set $total i32.const 0 local.set $begin
block loop local.get $begin local.get $total i32.eq br_if 1
local.get $begin i32.const {COLUMNS} i32.add local.set $columns
local.get $columns local.get $total i32.gt_s if local.get $total local.set $columns end
local.get $begin i32.const 4 i32.add local.get $columns i32.gt_s
if local.get $columns i32.const 4 i32.sub local.set $begin end
"""
COLUMNS_END = "local.get $columns local.set $begin br 0 end end local.get $total local.set $columns"


def _while(n: int) -> tuple[str, ...]:
    return (
        "block loop",
        f"local.get $at i32.const {LANES * n} i32.add local.get $columns i32.gt_s br_if 1",
    )


def _next(n: int) -> tuple[str, ...]:
    return (f"local.get $at i32.const {LANES * n} i32.add local.set $at br 0", "end end")
