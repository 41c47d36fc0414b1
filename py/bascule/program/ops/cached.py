"""Causal attention over a KV cache, and the append to it: all heads and queries, or some."""

from __future__ import annotations

from collections.abc import Mapping

from bascule.base.arrays import Array, np
from bascule.program.ops.attention import softmax_without
from bascule.program.ops.elementwise import softcap as capped
from bascule.program.ops.parts import (
    KEPT,
    PART,
    WHOLE,
    attention_work,
    checked,
    onto_shape,
    part_from,
)
from bascule.program.ops.states import POSITION
from bascule.program.ops.table import Op, Operand, first_two, inputs, need, onto
from bascule.program.program import Attribute, Shape

ROTARY_PAIRS = ("adjacent", "halves")

# The table of angles is read at p % 256 and at 256 + p // 256.
_ANGLES = Operand("angles", "state", rows=260)
_HEADS = {"heads": int, "kv_heads": int, "size": int}
_WHOLE_CACHE = dict.fromkeys(KEPT, 0)


def _rope_append(shapes: tuple[Shape | None, ...], attributes: Mapping[str, Attribute]) -> Shape:
    (qkv, cache), (angles, position, onto) = first_two(shapes, "rope_append"), shapes[2:]
    part, size = checked("rope_append", attributes), _size(attributes)
    packed, width = (part.heads + 2 * part.kv_heads) * size, 2 * part.n_kept * size
    expected = f"qkv (T, {packed}), cache (S, {width}), angles (R, {size}), position (1)"
    fits = len(qkv) == 2 and qkv[1] == packed and cache[1:] == (width,)
    fits = fits and angles is not None and angles[1:] == (size,) and position == (1,)
    need(fits, "rope_append", expected, shapes)
    need(attributes["pairs"] in ROTARY_PAIRS, "rope_append", str(ROTARY_PAIRS), attributes)
    return onto_shape("rope_append", (qkv[0], part.heads * size), onto)


def _kv_append(shapes: tuple[Shape | None, ...], _: Mapping[str, Attribute]) -> Shape:
    (kv, cache), position = first_two(shapes, "kv_append"), shapes[2]
    width = kv[-1]
    fits = len(kv) == len(cache) == 2 and cache[1] == width and position == (1,)
    even = isinstance(width, int) and width % 2 == 0
    need(fits and even, "kv_append", "kv (T, W), W even, cache (S, W) and position (1)", shapes)
    return (1,)


def _cached_attention(
    shapes: tuple[Shape | None, ...], attributes: Mapping[str, Attribute]
) -> Shape:
    (q, cache), (position, onto) = first_two(shapes, "cached_attention"), shapes[2:]
    part, size = checked("cached_attention", attributes), _size(attributes)
    wide, width = part.heads * size, 2 * part.n_kept * size
    expected = f"q (T, {wide}), cache (S, {width}) and position (1)"
    fits = len(q) == 2 and q[1] == wide and cache[1:] == (width,) and position == (1,)
    need(fits, "cached_attention", expected, shapes)
    return onto_shape("cached_attention", q, onto)


def _size(attributes: Mapping[str, Attribute]) -> int:
    size = attributes["size"]
    assert isinstance(size, int)  # `checked` says so
    return size


def rope_append(
    qkv: Array,
    cache: Array,
    angles: Array,
    position: Array,
    onto: Array | None = None,
    *,
    pairs: str,
    **attributes: int,
) -> Array:
    """Rotary embedding (Su et al. 2021); k and v are written to the cache (S, 2 * n_kept * D), in
    place.

    angles (256 + R, D) hold cosine and sine side by side: row p the angles of position p, row 256 +
    r those of position 256 * r. The complex product of two rows gives any position. If the cache
    has a part of the KV heads, only the heads over them are written to `onto`.
    """
    part, size = part_from(attributes), attributes["size"]
    positions = int(position[0]) + np.arange(len(qkv))
    width, kv_width = part.heads * size, part.kv_heads * size
    y = np.empty((len(qkv), width), qkv.dtype) if onto is None else onto
    columns = slice(part.first_kept * size, (part.first_kept + part.n_kept) * size)
    over = slice(part.first_head * size, (part.first_head + part.n_heads) * size)
    q, k, v = np.split(qkv, (width, width + kv_width), axis=1)
    at = positions % len(cache)
    y[:, over] = _rotated(q[:, over], angles, positions, size, pairs)
    cache[at, : part.n_kept * size] = _rotated(k[:, columns], angles, positions, size, pairs)
    cache[at, part.n_kept * size :] = v[:, columns]
    return y


def _rotated(x: Array, angles: Array, positions: Array, size: int, pairs: str) -> Array:
    """Rotate heads of that size, side by side in x (T, ...), by their positions' angles."""
    half = size // 2
    turns = angles[..., :half] + 1j * angles[..., half:]  # (256 + R, D / 2)
    turn = (turns[positions % 256] * turns[256 + positions // 256])[:, None, :]
    rotated = x.reshape(len(x), -1, size)
    if pairs == "adjacent":
        z = (rotated[..., 0::2] + 1j * rotated[..., 1::2]) * turn
        rotated = np.stack((z.real, z.imag), axis=-1).reshape(rotated.shape)
    else:
        z = (rotated[..., :half] + 1j * rotated[..., half:]) * turn
        rotated = np.concatenate((z.real, z.imag), axis=-1)
    return rotated.reshape(x.shape).astype(x.dtype)


def kv_append(kv: Array, cache: Array, position: Array) -> Array:
    """Write rows of kv (T, W) to the cache (S, W), in place; return the position after them.

    Row t goes into slot (position + t) % S; if two go into one, the later row stays.
    """
    first, end = int(position[0]), int(position[0]) + len(kv)
    positions = np.arange(max(first, end - len(cache)), end)
    cache[positions % len(cache)] = kv[positions - first]
    return np.array([end], np.uint32)


def cached_attention(
    q: Array,
    cache: Array,
    position: Array,
    onto: Array | None = None,
    *,
    size: int,
    window: int,
    scale: float = 0.0,
    softcap: float = 0.0,
    **attributes: int,
) -> Array:
    """Causal attention of grouped queries (Ainslie et al. 2023) over a cache (S, 2 * n_kept * D).

    The query in row t is at position p = position + t and attends to the keys of positions up to p,
    the last `window` of them unless that is 0. A `scale` of 0 stands for 1 / sqrt(D); scores s
    become softcap * tanh(s / softcap) unless that is 0. A part of it writes into `onto`.
    """
    first, tokens = int(position[0]), len(q)
    part = part_from(attributes, tokens)
    y = np.empty(q.shape, q.dtype) if onto is None else onto
    end = first + tokens
    met = np.arange(max(0, end - len(cache)), end)  # positions that still stand in the cache
    begin, groups = part.first_kv_head - part.first_kept, part.n_kv_heads
    rows = cache[met % len(cache)].reshape(len(met), 2, part.n_kept, size)
    rows = rows[:, :, begin : begin + groups]
    k, v = rows.astype(q.dtype).transpose(1, 2, 0, 3)  # (G, S, D) each
    queries = slice(part.first_query, part.first_query + part.n_queries)
    done = queries, slice(part.first_head, part.first_head + part.n_heads)
    mine = q.reshape(tokens, part.heads, size)[done]
    grouped = mine.reshape(-1, groups, part.sharing, size).transpose(1, 2, 0, 3)  # (G, H/G, T, D)
    positions = (first + np.arange(tokens))[queries]
    scores = grouped @ k[:, None].swapaxes(-1, -2)  # (G, H/G, T, S)
    scores *= q.dtype.type(scale or size**-0.5)
    if softcap:
        scores = capped(scores, cap=softcap)
    hidden = met[None, :] > positions[:, None]
    if window:
        hidden |= met[None, :] <= positions[:, None] - window
    weights = softmax_without(hidden, scores)
    mixed = (weights @ v[:, None]).transpose(2, 0, 1, 3)
    y.reshape(tokens, part.heads, size)[done] = mixed.reshape(mine.shape)
    return y


ROWS = (
    Op(
        "rope_append",
        (*inputs("qkv"), Operand("cache", "state", updated=True), _ANGLES, POSITION, onto()),
        {**_HEADS, "pairs": str, **KEPT},
        "q and k rotated by their positions' angles; k and v into the cache; y = q; of the KV "
        "heads that the cache keeps and the heads over them, the rest as in `onto`",
        _rope_append,
        numpy=rope_append,
        defaults=_WHOLE_CACHE,
        parts=frozenset(_WHOLE_CACHE),
    ),
    Op(
        "kv_append",
        (*inputs("kv"), Operand("cache", "state", updated=True), POSITION),
        {},
        "row t of kv into slot (position + t) % S of the cache; y = position + T",
        _kv_append,
        result="u32",
        numpy=kv_append,
    ),
    Op(
        "cached_attention",
        (*inputs("q"), Operand("cache", "state"), POSITION, onto()),
        {**_HEADS, "window": int, "scale": float, "softcap": float, **PART, **KEPT},
        "per head: softmax(scale * q @ k.T) @ v over positions up to the query's own, the last "
        "`window` of them (0: all), scores softly capped (0: not); a scale of 0 is 1 / sqrt(D); of "
        "some heads and queries, over a cache of some heads, the rest as in `onto`",
        _cached_attention,
        numpy=cached_attention,
        defaults={**WHOLE, "scale": 0.0, "softcap": 0.0},
        parts=frozenset(WHOLE),
        multiply_adds=attention_work,
    ),
)
