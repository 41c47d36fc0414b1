"""What the rewrites of attention share: the work of a call, and its division into parts."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import asdict, replace
from itertools import pairwise

from bascule.program.ops import OPS, onto_of, operand
from bascule.program.ops.parts import KEPT, PART, Part
from bascule.program.program import Call, Program, Value
from bascule.program.rewrites.rewrite import AppliedRewrite, rebuilt

# The parts of a call, each with its operands.
Pieces = Sequence[tuple[Part, tuple[Value | None, ...]]]


def does_attention(call: Call) -> bool:
    """Whether it is attention, cached or not, that can be divided by heads and queries."""
    return OPS[call.op].parts >= PART.keys()


def keeps_kv_heads(call: Call) -> bool:
    """Whether it uses a KV cache, which may keep some of the heads."""
    return OPS[call.op].parts >= KEPT.keys() and operand(call, "cache") is not None


def spans(first: int, count: int, n: int) -> list[tuple[int, int]]:
    """Divide `count` things from `first` on into n ranges (first, count) of nearly equal length."""
    ends = [first + count * i // n for i in range(n + 1)]
    return [(a, b - a) for a, b in pairwise(ends)]


def pieces_of(call: Call, parts: Sequence[Part]) -> Pieces:
    """Return parts with the operands of the call itself."""
    return [(part, call.operands) for part in parts]


def chained(call: Call, pieces: Pieces) -> list[Call]:
    """Return the call as parts that write one after the other into its result."""
    onto = onto_of(call)
    chain: list[Call] = []
    for part, operands in pieces:
        attributes = {**dict(call.attributes), **asdict(part)}
        settings = tuple((n, attributes[n]) for n in sorted(OPS[call.op].attributes))
        name = f"{call.result.name}.h{part.first_head}.q{part.first_query}"
        chain.append(
            Call(call.op, (*operands[:-1], onto), replace(call.result, name=name), settings)
        )
        onto = chain[-1].result
    chain[-1] = replace(chain[-1], result=call.result)
    return chain


def split(
    program: Program,
    pieces: Callable[[Call], tuple[Pieces, AppliedRewrite] | None],
    *,
    states: Sequence[Value] | None = None,
) -> tuple[Program, tuple[AppliedRewrite, ...]]:
    """Split each call for which `pieces` returns any; return what was applied, without repeats."""
    calls: list[Call] = []
    applied: dict[AppliedRewrite, None] = {}
    for call in program.calls:
        result = pieces(call)
        if result is None:
            calls.append(call)
        else:
            parts, why = result
            calls += chained(call, parts)
            applied[why] = None
    return (rebuilt(program, calls, states=states), tuple(applied)) if applied else (program, ())
