"""Partitioned KV cache: one too large to bind becomes several, of some KV heads each."""

from __future__ import annotations

from dataclasses import dataclass, replace

from bascule.errors import LimitError
from bascule.program.ops import operand, with_operands
from bascule.program.ops.parts import Part, part_of
from bascule.program.program import Call, Program, Value
from bascule.program.rewrites.attention import Pieces, keeps_kv_heads, spans, split
from bascule.program.rewrites.rewrite import AppliedRewrite, Limits


@dataclass(frozen=True, slots=True)
class _Kept:
    """A partition: a state of its own for the `count` KV heads from `first` on."""

    state: Value
    first: int
    count: int


def partitioned_kv_cache(
    program: Program, limits: Limits
) -> tuple[Program, tuple[AppliedRewrite, ...]]:
    """See `Rewrite`. All programs over one cache divide it alike: by its size and the limit alone.

    LimitError if one KV head alone is too large to bind.
    """
    caches = {
        operand(call, "cache"): part_of(call) for call in program.calls if keeps_kv_heads(call)
    }
    divided = {
        cache.name: _divided(cache, part, limits.binding_nbytes)
        for cache, part in caches.items()
        if cache is not None and cache.nbytes > limits.binding_nbytes
    }

    def pieces(call: Call) -> tuple[Pieces, AppliedRewrite] | None:
        cache = operand(call, "cache") if keeps_kv_heads(call) else None
        if cache is None or cache.name not in divided:
            return None
        results = [
            (met, with_operands(call, cache=kept.state).operands)
            for kept in divided[cache.name]
            if (met := _met(part_of(call), kept)) is not None
        ]
        need = f"a KV cache of {cache.nbytes:,} bytes in bindings of at most "
        reason = f"{need}{limits.binding_nbytes:,.0f}"
        return results, AppliedRewrite("partitioned_kv_cache", reason, len(divided[cache.name]))

    states = [
        made
        for state in program.states
        for made in [kept.state for kept in divided.get(state.name, ())] or [state]
    ]
    return split(program, pieces, states=states)


def _divided(cache: Value, part: Part, limit: float) -> list[_Kept]:
    """Return the fewest partitions that fit the limit, with nearly equal numbers of KV heads."""
    each = cache.nbytes // part.n_kept
    if each > limit:
        raise LimitError(
            f"one KV head of {cache.name} over {cache.limits[0]:,} positions in {cache.dtype}",
            f"{each:,} bytes",
            f"a binding holds at most {limit:,.0f}",
            hint='Load with a smaller max_length or with cache_dtype="f16", or use tier="cpu".',
        )
    n = -(-part.n_kept // int(limit // each))
    return [
        _Kept(_state(cache, index, part, count), first, count)
        for index, (first, count) in enumerate(spans(part.first_kept, part.n_kept, n))
    ]


def _state(cache: Value, index: int, part: Part, count: int) -> Value:
    slots, width = cache.shape[0], cache.limits[1]
    shape = (slots, width // part.n_kept * count)
    return replace(cache, name=f"{cache.name}.{index}", shape=shape)


def _met(part: Part, shard: _Kept) -> Part | None:
    """Return what a partition does of a call: the heads over its KV heads; None if none."""
    shared = part.heads // part.kv_heads
    first = max(part.first_head, shard.first * shared)
    end = min(part.first_head + part.n_heads, (shard.first + shard.count) * shared)
    if first >= end:
        return None
    return replace(
        part, first_head=first, n_heads=end - first, first_kept=shard.first, n_kept=shard.count
    )
