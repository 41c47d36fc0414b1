"""The KV cache on numpy arrays: new rows are written to slots; the others are not copied."""

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

# As for a model's sliding context.
_MAX_POSITIONS = 1 << 20
_CACHES, _ROWS = ("key_cache", "value_cache"), ("key", "value")


def kv_cache_update(request: Request) -> Work:
    """Write key and value (T, ...) to key_cache and value_cache (S, ...) from `position` on.

    Arrays of three axes are (S, G, D): G KV heads, by which a partitioned cache can be divided.
    Returns both caches as (2, S, ...) float32. Positions wrap around as in a sliding cache:
    position p has slot p % S, and is at most 2**20.
    """
    caches, rows = _arrays(request, _CACHES), _arrays(request, _ROWS)
    shape, tokens = caches[0].shape, len(rows[0])
    fits = shape == caches[1].shape and rows[0].shape == rows[1].shape
    fits = fits and rows[0].shape[1:] == shape[1:] and tokens <= shape[0]
    expected = "caches (S, ...) and up to S rows key and value (T, ...)"
    request.require(fits, expected, *_CACHES, *_ROWS)
    position = _slot(request, shape[0])
    # The op `rope_append` needs a head_dim that is a multiple of 4; an angle of 0 rotates nothing.
    heads, width = shape[1] if len(shape) == 3 else 1, shape[-1]
    size = -(-width // 4) * 4
    no_queries = np.zeros((tokens, heads, size), np.float32)
    packed = [no_queries, *(_pad_heads(r.reshape(-1, heads, width), size) for r in rows)]
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
        return np.stack([_pad_heads(c.reshape(-1, heads, width), size) for c in caches], axis=1)

    def finish(states: Mapping[str, Array]) -> Array:
        both = states["cache"].reshape(-1, 2, heads, size)[..., :width].swapaxes(0, 1)
        return both if len(shape) == 3 else both[:, :, 0]

    program, _ = single(graph, result, lambda y: y)
    inputs = {"qkv": qkv, "angles": angles, "position": np.array([position], np.uint32)}
    return Work(program, inputs, finish, states={"cache": packed_cache}, keeps_states=True)


def divide_cache(request: Request) -> Division:
    """Divide a cache by its slots, and by its KV heads, or if there is one, by its columns.

    Slots without a new row are not copied to the device.
    """
    caches, rows = _arrays(request, _CACHES), _arrays(request, _ROWS)
    shape, tokens = caches[0].shape, len(rows[0])
    heads = len(shape) == 3 and shape[1] > 1
    position = _slot(request, shape[0])

    def piece(spans: tuple[Span, ...]) -> tuple[Request, Any] | None:
        new = _new_rows(spans[0], position, tokens, shape[0])
        if new is None:
            return None
        first, indices = new
        slots, part = slice(*spans[0]), slice(*spans[1])
        rest = (part,) if heads else (..., part)
        arrays = {name: c[(slots, *rest)] for name, c in zip(_CACHES, caches, strict=True)}
        arrays |= {name: r[(indices, *rest)] for name, r in zip(_ROWS, rows, strict=True)}
        context = {**request.context, "position": first}
        return Request(request.operation, arrays, context), (slice(None), slots, *rest)

    axes = (
        Axis("partitioned_kv_cache", "slots", shape[0]),
        Axis("partitioned_kv_cache", "heads" if heads else "columns", shape[1 if heads else -1]),
    )
    begin = None if tokens == shape[0] else lambda: np.stack(caches)
    return Division(axes, piece, (2, *shape), (2, *shape), same_program=False, begin=begin)


def _arrays(request: Request, names: tuple[str, str]) -> tuple[Floats, Floats]:
    first, second = (request.floats(name, ndims=(2, 3)) for name in names)
    return first, second


def _slot(request: Request, slots: int) -> int:
    return request.integer("position", 0, maximum=_MAX_POSITIONS) % slots


def _new_rows(
    span: Span, position: int, tokens: int, slots: int
) -> tuple[int, NDArray[np.int64]] | None:
    """Return the first slot of a span's new rows, relative to the span, and the indices of those
    rows in slot order from there, wrapping around at the span's end; None if it has none.
    """
    rows = (np.arange(*span) - position) % slots
    (slots_taken,) = np.nonzero(rows < tokens)
    if not slots_taken.size:
        return None
    # Rows that wrap around leave at most one gap between them.
    gaps = np.nonzero(np.diff(slots_taken) > 1)[0]
    first = int(slots_taken[gaps[0] + 1]) if gaps.size else int(slots_taken[0])
    return first, np.roll(rows, -first)[: slots_taken.size]


def _pad_heads(x: Floats, size: int) -> Floats:
    """Pad (n, G, D) with zeros to (n, G, size)."""
    missing = size - x.shape[2]
    return np.pad(x, ((0, 0), (0, 0), (0, missing))) if missing else x
