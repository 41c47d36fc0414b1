"""The KV cache on plain arrays: new rows put into slots; others need not be moved."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from bascule.base.arrays import np
from bascule.compat.fallback.operation_work import (
    Array,
    Axis,
    Division,
    Floats,
    NDArray,
    Request,
    Span,
    Work,
    single,
)
from bascule.program.graph import Graph

# Where a model's sliding context ends, too.
_MOST_POSITIONS = 1 << 20
_CACHES, _ROWS = ("key_cache", "value_cache"), ("key", "value")


def kv_cache_update(request: Request) -> Work:
    """Put key and value (T, ...) into key_cache and value_cache (S, ...) from `position` on.

    Arrays of three axes are (S, G, D): G KV heads, which a partitioned cache can divide. Gives both
    caches, as (2, S, ...) float32. A position past the end goes on at the start, as in
    a cache that slides: position p has slot p % S, and p is 2**20 at most.
    """
    caches, rows = _arrays(request, _CACHES), _arrays(request, _ROWS)
    shape, tokens = caches[0].shape, len(rows[0])
    fits = shape == caches[1].shape and rows[0].shape == rows[1].shape
    fits = fits and rows[0].shape[1:] == shape[1:] and tokens <= shape[0]
    expected = "caches (S, ...) and up to S rows key and value (T, ...)"
    request.need(fits, expected, *_CACHES, *_ROWS)
    position = _slot(request, shape[0])
    # The op `rope_append` reads heads by fours, and turns nothing by an angle of 0.
    heads, width = shape[1] if len(shape) == 3 else 1, shape[-1]
    size = -(-width // 4) * 4
    no_queries = np.zeros((tokens, heads, size), np.float32)
    packed = [no_queries, *(_wide(r.reshape(-1, heads, width), size) for r in rows)]
    qkv = np.concatenate(packed, axis=1).reshape(tokens, -1)
    angles = np.zeros((257 + (position + tokens) // 256, size), np.float32)
    angles[:, : size // 2] = 1
    graph = Graph(request.operation.name)
    result = graph.call(
        "rope_append",
        graph.input("qkv", qkv.shape),
        graph.state("cache", (shape[0], 2 * heads * size)),
        graph.input("angles", angles.shape),
        graph.input("position", (1,), "u32"),
        heads=heads,
        kv_heads=heads,
        size=size,
        pairs="halves",
    )

    def packed_cache() -> Array:
        return np.stack([_wide(c.reshape(-1, heads, width), size) for c in caches], axis=1)

    def finish(found: Mapping[str, Array]) -> Array:
        both = found["cache"].reshape(-1, 2, heads, size)[..., :width].swapaxes(0, 1)
        return both if len(shape) == 3 else both[:, :, 0]

    program, _ = single(graph, result, lambda y: y)
    inputs = {"qkv": qkv, "angles": angles, "position": np.array([position], np.uint32)}
    return Work(program, inputs, finish, states={"cache": packed_cache}, keeps_states=True)


def divide_cache(request: Request) -> Division:
    """A cache by its slots, and by its KV heads, or where there is one, by its columns.

    Slots that take no new row stay as they are, and are not moved to the device.
    """
    caches, rows = _arrays(request, _CACHES), _arrays(request, _ROWS)
    shape, tokens = caches[0].shape, len(rows[0])
    heads = len(shape) == 3 and shape[1] > 1
    position = _slot(request, shape[0])

    def piece(spans: tuple[Span, ...]) -> tuple[Request, Any] | None:
        taken = _rows_of(spans[0], position, tokens, shape[0])
        if taken is None:
            return None
        first, which = taken
        some, across = slice(*spans[0]), slice(*spans[1])
        beside = (across,) if heads else (..., across)
        arrays = {name: c[(some, *beside)] for name, c in zip(_CACHES, caches, strict=True)}
        arrays |= {name: r[(which, *beside)] for name, r in zip(_ROWS, rows, strict=True)}
        context = {**request.context, "position": first}
        return Request(request.operation, arrays, context), (slice(None), some, *beside)

    axes = (
        Axis("partitioned_kv_cache", "slots", shape[0]),
        Axis("partitioned_kv_cache", "heads" if heads else "columns", shape[1 if heads else -1]),
    )
    begin = None if tokens == shape[0] else lambda: np.stack(caches)
    return Division(axes, piece, (2, *shape), (2, *shape), alike=False, begin=begin)


def _arrays(request: Request, names: tuple[str, str]) -> tuple[Floats, Floats]:
    first, second = (request.floats(name, ndims=(2, 3)) for name in names)
    return first, second


def _slot(request: Request, slots: int) -> int:
    return request.whole("position", 0, most=_MOST_POSITIONS) % slots


def _rows_of(
    span: Span, position: int, tokens: int, slots: int
) -> tuple[int, NDArray[np.int64]] | None:
    """Return the slot within a span where its new rows begin, and which rows those are, in the
    order of the slots from there on, past the span's end from its start; None where it takes none.
    """
    rows = (np.arange(*span) - position) % slots
    (taken,) = np.nonzero(rows < tokens)
    if not taken.size:
        return None
    # Rows that go on at the start of a cache leave one gap at most, within the span or around it.
    gaps = np.nonzero(np.diff(taken) > 1)[0]
    first = int(taken[gaps[0] + 1]) if gaps.size else int(taken[0])
    return first, np.roll(rows, -first)[: taken.size]


def _wide(x: Floats, size: int) -> Floats:
    """(n, G, D) as (n, G, size), filled up with zeros."""
    missing = size - x.shape[2]
    return np.pad(x, ((0, 0), (0, 0), (0, missing))) if missing else x
