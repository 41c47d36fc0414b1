"""The work of a program, in the units in which the speed of tiers is measured."""

from __future__ import annotations

from bascule.program.ops import cost_of, matrix_of
from bascule.program.program import Call, Program


def work_of_program(program: Program) -> tuple[float, int]:
    """Return the multiply-adds of a program's products at its largest sizes, and their number."""
    works = [work for work in map(_products, program.calls) if work]
    return float(sum(works)), max(1, len(works))


def _products(call: Call) -> int:
    return cost_of(call).multiply_adds if matrix_of(call) is not None else 0
