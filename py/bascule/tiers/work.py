"""How much work a program is, counted as the speeds of tiers are."""

from __future__ import annotations

from math import prod

from bascule.program.program import Call, Program

_WEIGHING = ("linear", "gated_linear")


def work_of_program(program: Program) -> tuple[float, int]:
    """Multiply-adds of a program's matrix products at its largest sizes, and how many these are."""
    works = [work for work in map(_products, program.calls) if work]
    return float(sum(works)), max(1, len(works))


def _products(call: Call) -> int:
    x, weight = call.operands[:2] if call.op in _WEIGHING else (None, None)
    return prod(x.limits) * weight.limits[0] if x and weight else 0
