"""The three kinds of loops: vectors along a kept axis, along a reduced one, and row by row."""

from __future__ import annotations

from dataclasses import dataclass

from bascule.array.loop_stages import LoopNest
from bascule.array.loops import (
    BACK,
    LANES,
    OFFSETS,
    REST,
    LoopText,
    next_step,
    while_steps,
)
from bascule.array.reducing_loops import ACCUMULATORS_NBYTES, COLUMNS
from bascule.array.wasm_rows import STORES_ONE

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


def text_of(nest: LoopNest) -> LoopText:
    """Return the writer of a nest's loop."""
    kind = RowLoop if nest.by_rows else ReducedAxisLoop if nest.reduces else KeptAxisLoop
    return kind(nest)


@dataclass(slots=True)
class KeptAxisLoop(LoopText):
    """Vectors along a kept axis: each lane has a result of its own."""

    def scratch_nbytes(self, columns: int, rounds: int) -> int:
        del columns
        return rounds * 4 * LANES * self.unrolled

    def _row(self) -> list[str]:
        """Vectors along a kept axis: each lane has a result of its own."""
        lines = [self._splat(at) for at in self._operands(inner=False, along=False)]
        lines.append("i32.const 0 local.set $at")
        if self.unrolled > 1:
            lines += [
                *while_steps(self.unrolled),
                *self._kept_step(self.unrolled),
                *next_step(self.unrolled),
            ]
        return [*lines, REST, BACK, *self._kept_step(1), *next_step(1)]

    def _kept_step(self, n: int) -> list[str]:
        loads = self._operands(inner=False, along=True)
        lines = [OFFSETS]
        lines += [self._load(at, u) for u in range(n) for at in loads]
        lines += self._computed(self.stages.before, n)
        for stage in self.stages.passes:
            lines += [
                self._accumulator(at).initialized(f"r{at}_{u}")
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


@dataclass(slots=True)
class ReducedAxisLoop(LoopText):
    """Vectors along a reduced axis: their lanes are combined at the end."""

    def scratch_nbytes(self, columns: int, rounds: int) -> int:
        return rounds * 4 * columns

    def _row(self) -> list[str]:
        """Vectors along a reduced axis: their lanes are combined at the end."""
        lines = [self._splat(at) for at in self._operands(inner=False)]
        lines += self._computed(self.stages.before, 1)
        for stage in self.stages.passes:
            n = self.unrolled
            lines += [
                self._accumulator(at).initialized(f"r{at}_{u}")
                for at in stage.reductions
                for u in range(n)
            ]
            steps = ["i32.const 0 local.set $at"]
            if n > 1:
                steps += [
                    *while_steps(n),
                    OFFSETS,
                    *self._elements(stage, n, masked=False),
                    *next_step(n),
                ]
            steps.append(REST)
            masked = bool(stage.reductions)
            steps += [self._new_lanes() if masked else "", BACK, OFFSETS]
            steps += [*self._elements(stage, 1, masked=masked), *next_step(1)]
            lines += self._pass(stage, steps, "local.get $columns i32.const 2 i32.shl")
            for at in stage.reductions:
                accumulator = self._accumulator(at)
                lines += [accumulator.merged(f"r{at}_0", f"r{at}_{u}") for u in range(1, n)]
                lines.append(f"{accumulator.one(f'r{at}_0')} local.set {self._local(at, 0)}")
            lines += self._computed(stage.afterwards, 1)
        if not self.nest.has_inner_result:
            store = STORES_ONE[self.nest.dtype(self.nest.last).name]
            value = store.format(a=f"local.get {self._local(self.nest.last, 0)}")
            lines.append(f"local.get $p{self.nest.n_kept}_0 {value}")
        return lines


@dataclass(slots=True)
class RowLoop(LoopText):
    """Vectors along a kept axis, whose accumulators are loaded and stored for each row."""

    @property
    def scratch(self) -> tuple[int, ...]:
        return tuple(at for stage in self.stages.passes for at in stage.reductions)

    def scratch_nbytes(self, columns: int, rounds: int) -> int:
        del columns, rounds
        return ACCUMULATORS_NBYTES

    def _row(self) -> list[str]:
        """Vectors along a kept axis, whose accumulators are loaded and stored for each row."""
        self._locals |= dict.fromkeys(("total", "begin", "place"), "i32")
        (stage,) = self.stages.passes
        n = self.unrolled
        steps = ["local.get $begin local.set $at"]
        if n > 1:
            elements = self._elements(stage, n, masked=False)
            steps += [*while_steps(n), OFFSETS, *self._of_columns(n), *elements, *next_step(n)]
        steps += [REST, self._new_lanes(), BACK, OFFSETS, *self._of_columns(1)]
        steps += [*self._elements(stage, 1, masked=True), *next_step(1)]
        ends: list[str] = []
        for at in stage.reductions:
            ends.append(self._accumulator(at).loaded(f"r{at}_0", f"scratch{at}", 0))
            ends.append(f"{self._accumulator(at).four(f'r{at}_0')} local.set {self._local(at, 0)}")
        initialized = [
            f"{self._accumulator(at).initialized(f'r{at}_0')}\n"
            f"{self._accumulator(at).stored(f'r{at}_0', f'scratch{at}', 0)}"
            for at in stage.reductions
        ]
        splats = [self._splat(at) for at in self._operands(inner=False, along=False)]
        begin = "local.get $begin local.set $at"
        return [
            *splats, COLUMNS_BEGIN,
            begin, REST, OFFSETS, *initialized, "local.get $at i32.const 4 i32.add local.set $at",
            "local.get $at local.get $columns i32.gt_s if local.get $columns local.set $at end",
            "br 0 end end",
            *self._pass(stage, steps, ""),
            begin, REST, BACK, OFFSETS, *self._of_columns(1), *ends,
            *self._computed(stage.afterwards, 1), self._store(0), *next_step(1),
            COLUMNS_END,
        ]  # fmt: skip

    def _of_columns(self, n: int) -> list[str]:
        """Compute what the elements of a column share, for `n` vectors of columns."""
        loads = self._operands(inner=False, along=True)
        lines = [self._load(at, u) for u in range(n) for at in loads]
        return [*lines, *self._computed(self.stages.before, n)]

    def _accumulated(self, at: int, u: int, combined: str) -> str:
        accumulator, name = self._accumulator(at), f"r{at}_{u}"
        loaded, stored = (
            way(name, f"scratch{at}", u) for way in (accumulator.loaded, accumulator.stored)
        )
        return f"{loaded}\n{combined}\n{stored}"
