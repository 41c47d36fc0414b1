"""Chunked attention: attention too large for one dispatch is divided into chunks of queries."""

from __future__ import annotations

from dataclasses import replace

from bascule.errors import LimitError
from bascule.program.ops import cost_of
from bascule.program.ops.parts import part_of
from bascule.program.program import Call, Program
from bascule.program.rewrites.attention import (
    Pieces,
    does_attention,
    pieces_of,
    spans,
    split,
)
from bascule.program.rewrites.rewrite import AppliedRewrite, Limits


def chunked_attention(
    program: Program, limits: Limits
) -> tuple[Program, tuple[AppliedRewrite, ...]]:
    """See `Rewrite`. LimitError if a single query exceeds what a dispatch may have.

    Keys and the positions of queries do not change: a chunk whose queries a run does not have does
    nothing.
    """

    def pieces(call: Call) -> tuple[Pieces, AppliedRewrite] | None:
        work = cost_of(call).multiply_adds if does_attention(call) else 0
        if work <= limits.dispatch_work:
            return None
        part = part_of(call)
        count = part.queries(call.result.limits[-2])
        if work // count > limits.dispatch_work:
            raise LimitError(
                f"one query of {part.n_heads} heads of {call.result.name}",
                f"{work // count:,} multiply-adds",
                f"a dispatch may have {limits.dispatch_work:,.0f}",
                hint="Allow more, take head_partitioning before, or shorten the context.",
            )
        n = -(-count // int(limits.dispatch_work // (work // count)))
        ranges = spans(part.first_query, count, n)
        parts = [replace(part, first_query=first, n_queries=count) for first, count in ranges]
        reason = f"{work:,} multiply-adds of {count} queries in a dispatch of at most "
        applied = AppliedRewrite("chunked_attention", f"{reason}{limits.dispatch_work:,.0f}", n)
        return pieces_of(call, parts), applied

    return split(program, pieces)
