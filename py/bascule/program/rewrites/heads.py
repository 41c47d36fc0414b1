"""Head partitioning: attention too large for one dispatch is divided into groups of heads."""

from __future__ import annotations

from dataclasses import replace

from bascule.errors import LimitError
from bascule.program.ops import cost_of, uses_state
from bascule.program.ops.parts import Part, part_of
from bascule.program.program import Call, Program
from bascule.program.rewrites.attention import (
    Pieces,
    does_attention,
    pieces_of,
    spans,
    split,
)
from bascule.program.rewrites.rewrite import AppliedRewrite, Limits


def head_partitioning(
    program: Program, limits: Limits
) -> tuple[Program, tuple[AppliedRewrite, ...]]:
    """See `Rewrite`. Down to one head per call; beyond that, chunks of queries follow.

    LimitError if qkv or the result is too large to bind: all parts share them.
    """

    def pieces(call: Call) -> tuple[Pieces, AppliedRewrite] | None:
        if not does_attention(call):
            return None
        if not uses_state(call.op):  # queries over a cache are few
            _check_bindings(call, limits)
        part, work = part_of(call), cost_of(call).multiply_adds
        if work <= limits.dispatch_work:
            return None
        max_heads = max(1, int(limits.dispatch_work // (work // part.n_heads)))
        parts = _groups(part, max_heads)
        work_text = f"{work:,} multiply-adds of {part.n_heads} heads in a dispatch of at most "
        reason = f"{work_text}{limits.dispatch_work:,.0f}"
        applied = AppliedRewrite("head_partitioning", reason, len(parts))
        return (pieces_of(call, parts), applied) if len(parts) > 1 else None

    return split(program, pieces)


def _check_bindings(call: Call, limits: Limits) -> None:
    for value in (call.operands[0], call.result):
        if value is not None and value.nbytes > limits.binding_nbytes:
            raise LimitError(
                value.name,
                f"{value.nbytes:,} bytes",
                f"a binding holds at most {limits.binding_nbytes:,.0f}",
                hint="Run fewer or shorter texts at once, or use a tier without such a limit.",
            )


def _groups(part: Part, max_heads: int) -> list[Part]:
    """Return parts of at most that many heads: of whole KV heads, or within one."""
    shared = part.sharing
    if max_heads >= shared:
        n = -(-part.n_kv_heads // (max_heads // shared))
        groups = spans(0, part.n_kv_heads, n)
        ranges = [(part.first_head + a * shared, count * shared) for a, count in groups]
    else:
        ranges = [
            (first, n)
            for kv_head in range(part.n_kv_heads)
            for first, n in spans(
                part.first_head + kv_head * shared, shared, -(-shared // max_heads)
            )
        ]
    return [replace(part, first_head=first, n_heads=n) for first, n in ranges]
