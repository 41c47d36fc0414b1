"""One loop of WebAssembly for a chain of operations and the reductions among them.

An element is read, computed and stored once. The text follows from the chain's operations, dtypes
and which operands vary along which axes (`LoopNest`); sizes, steps and addresses are parameters, so
one loop serves all shapes.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from math import inf
from typing import TYPE_CHECKING

from bascule.array.loop_stages import LoopNest, Operation, Stage, Stages, stages_of
from bascule.array.loopable import instructions, size_of
from bascule.array.reducing_loops import Accumulator
from bascule.array.wasm_rows import LOADS, SPLATS, STORES
from bascule.backend.wasm.assembler import Function
from bascule.backend.wasm.parts import parts

if TYPE_CHECKING:
    from bascule.array.dtypes import DType

# Elements of a vector, and so the least along its axis.
LANES = 4
# Vectors per step, by the most instructions that each takes: their latencies overlap, and text for
# many takes long to compile.
UNROLLED = {4: 100, 2: 250, 1: inf}


@dataclass(slots=True)
class LoopText:
    """Writes `run(params)` for a nest; loop_rows.py has the kinds of outer steps.

    Params are 32-bit words: elements along the vectors' axis, sizes of the kept and the reduced
    axes from outermost to innermost, for each such axis the steps of the result and each operand in
    bytes, and the addresses of result, operands and scratch, an array for each stored value.
    """

    nest: LoopNest
    stages: Stages = field(init=False)
    unrolled: int = field(init=False)  # vectors of a step
    _locals: dict[str, str] = field(default_factory=dict[str, str])
    _parts: set[str] = field(default_factory=set[str])

    def __post_init__(self) -> None:
        self.stages = stages_of(self.nest)
        size = sum(size_of(each, self.nest) for each in self.nest.operations)
        self.unrolled = next(n for n, limit in UNROLLED.items() if size <= limit)

    def module(self) -> bytes:
        """Return the module's bytes."""
        body = self._whole()
        known = parts()
        return Function(body, self._locals, [known[name] for name in sorted(self._parts)]).module()

    @property
    def scratch(self) -> tuple[int, ...]:
        """The indices of values that have an array of scratch each."""
        return self.stages.stored

    def scratch_nbytes(self, columns: int, rounds: int) -> int:
        """Return the bytes of each such array, for that many rounds of the reduced axes' loops."""
        raise NotImplementedError

    def _row(self) -> list[str]:
        """Return what is done for each element of the kept axes."""
        raise NotImplementedError

    def _whole(self) -> str:
        row = self._row()
        n_pointers = 1 + len(self.nest.operands)
        for level in reversed(range(self.nest.n_kept)):
            row = self._level(level, range(n_pointers), row)
        return "\n".join((*self._params(), *row))

    def _params(self) -> list[str]:
        """Read the params into locals."""
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
        """Return a loop over an axis: its pointers start where those outside are."""
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

    def _pass(self, stage: Stage, steps: Sequence[str], scratch_step: str) -> list[str]:
        """Return the loops over the reduced axes."""
        nest = self.nest
        inner = [1 + at for at in self._operands(inner=True)]
        pointers = [0, *inner] if nest.has_inner_result else inner
        scratch = [*stage.stores, *stage.restores]
        self._locals |= dict.fromkeys((f"s{at}" for at in scratch), "i32")
        splats = [self._splat(at) for at in stage.loads if not nest.operands[at].along]
        row = [*splats, *steps]
        row += [f"local.get $s{at} {scratch_step} i32.add local.set $s{at}" for at in scratch]
        for level in reversed(range(nest.n_kept, nest.n_kept + nest.n_reduced)):
            row = self._level(level, pointers, row)
        return [*(f"local.get $scratch{at} local.set $s{at}" for at in scratch), *row]

    def _elements(self, stage: Stage, n: int, *, masked: bool) -> list[str]:
        """Return what a pass does with `n` vectors; `masked`: only fresh lanes are reduced."""
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
            fresh = f"{value} {accumulator.identity} local.get $fresh v128.bitselect"
            fresh, value = f"{fresh} local.set $combined", "local.get $combined"
        return f"{fresh}\n{self._accumulated(at, u, accumulator.combined(name, value))}"

    def _accumulated(self, at: int, u: int, combined: str) -> str:
        """Return where an accumulator is while it is not needed: in its locals."""
        del at, u
        return combined

    def _accumulator(self, at: int) -> Accumulator:
        operation = self.nest.operation(at)
        assert operation is not None
        for u in range(self.unrolled):
            self._locals |= dict.fromkeys((f"r{at}_{u}l", f"r{at}_{u}h"), "v128")
        return Accumulator(operation.combination, operation.dtype)

    def _new_lanes(self) -> str:
        """Return the lanes of the next step that no previous step has processed."""
        self._locals["fresh"] = "v128"
        return NEW_LANES

    def _operands(self, *, inner: bool, along: bool | None = None) -> list[int]:
        return [
            at
            for at, each in enumerate(self.nest.operands)
            if each.inner == inner and (along is None or each.along == along)
        ]

    def _local(self, at: int, u: int) -> str:
        """Return the local of a value: one for each vector of a step that it differs in."""
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
        """Return operations on `n` vectors, one after the other for all, to overlap latencies."""
        return [
            f"{self._value(operation, u)} local.set {self._local(at, u)}"
            for at in places
            if (operation := self.nest.operation(at)) is not None
            for u in range(n)
        ]

    def _value(self, operation: Operation, u: int) -> str:
        text, narrowed = instructions(operation, self.nest)
        self._parts |= {word[1:] for word in text.split() if word[0] == "$"}
        operands = {
            letter: f"local.get {self._local(at, u)}"
            for letter, at in zip("abc", operation.reads, strict=False)
        }
        return f"{text.format(**operands)} {narrowed}"


def _along(dtype: DType) -> str:
    """Add the step's offset to an address."""
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
NEW_LANES = """
v128.const 0 1 2 3
local.get $at local.get $columns i32.sub i32.const 4 i32.add i32x4.splat
i32x4.ge_s local.set $fresh
"""


def while_steps(n: int) -> tuple[str, ...]:
    """Start a loop that ends when fewer than `n` vectors are left."""
    return (
        "block loop",
        f"local.get $at i32.const {LANES * n} i32.add local.get $columns i32.gt_s br_if 1",
    )


def next_step(n: int) -> tuple[str, ...]:
    """End a loop's round that has processed `n` vectors."""
    return (f"local.get $at i32.const {LANES * n} i32.add local.set $at br 0", "end end")
