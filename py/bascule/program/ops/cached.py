"""Causal attention over a KV cache, and what goes into it."""

from __future__ import annotations

from collections.abc import Mapping

from bascule.arrays import Array, np
from bascule.errors import InputError
from bascule.program.ops.parts import KEPT, PART, checked, onto_shape
from bascule.program.ops.table import Op, first_two, need
from bascule.program.program import Attribute, Shape

ROTARY_PAIRS = ("adjacent", "halves")


def _rope_append(shapes: tuple[Shape | None, ...], attributes: Mapping[str, Attribute]) -> Shape:
    (qkv, cache), (angles, position) = first_two(shapes, "rope_append"), shapes[2:]
    heads, kv_heads, size = _heads(attributes)
    packed = (heads + 2 * kv_heads) * size
    told = f"qkv (T, {packed}), cache (S, {2 * kv_heads * size}), angles (R, {size}), position (1)"
    fits = len(qkv) == 2 and qkv[1] == packed and cache[1:] == (2 * kv_heads * size,)
    fits = fits and angles is not None and angles[1:] == (size,) and position == (1,)
    need(fits, "rope_append", told, shapes)
    need(attributes["pairs"] in ROTARY_PAIRS, "rope_append", str(ROTARY_PAIRS), attributes)
    return (qkv[0], heads * size)


def _cached_attention(
    shapes: tuple[Shape | None, ...], attributes: Mapping[str, Attribute]
) -> Shape:
    (q, cache), position = first_two(shapes, "cached_attention"), shapes[2]
    heads, kv_heads, size = _heads(attributes)
    told = f"q (T, {heads * size}), cache (S, {2 * kv_heads * size}) and position (1)"
    fits = len(q) == 2 and q[1] == heads * size and cache[1:] == (2 * kv_heads * size,)
    need(fits and position == (1,), "cached_attention", told, shapes)
    return q


def _heads(attributes: Mapping[str, Attribute]) -> tuple[int, int, int]:
    heads, kv_heads, size = (attributes[name] for name in ("heads", "kv_heads", "size"))
    assert isinstance(heads, int)
    assert isinstance(kv_heads, int)
    assert isinstance(size, int)
    if heads < 1 or kv_heads < 1 or heads % kv_heads or size < 4 or size % 4:
        told = f"{heads} heads over {kv_heads} of size {size}"
        raise InputError("op attention", "H a multiple of G, D a multiple of 4", told)
    return heads, kv_heads, size


def _rope_append_part(
    shapes: tuple[Shape | None, ...], attributes: Mapping[str, Attribute]
) -> Shape:
    """The shape rule of that op."""
    qkv, cache, angles, position, onto = shapes
    part, size = checked("rope_append_part", attributes), attributes["size"]
    assert isinstance(size, int)
    packed, width = (part.heads + 2 * part.kv_heads) * size, 2 * part.n_kept * size
    fits = qkv is not None and len(qkv) == 2 and qkv[1] == packed and position == (1,)
    fits = fits and cache is not None and cache[1:] == (width,)
    if qkv is None or not fits or angles is None or angles[1:] != (size,):
        told = f"qkv (T, {packed}), cache (S, {width}), angles (R, {size}), position (1)"
        raise InputError("op rope_append_part", told, str(shapes))
    return onto_shape("rope_append_part", (qkv[0], part.heads * size), onto)


def _cached_attention_part(
    shapes: tuple[Shape | None, ...], attributes: Mapping[str, Attribute]
) -> Shape:
    """The shape rule of that op."""
    q, cache, position, onto = shapes
    part, size = checked("cached_attention_part", attributes), attributes["size"]
    assert isinstance(size, int)
    wide, width = part.heads * size, 2 * part.n_kept * size
    fits = q is not None and len(q) == 2 and q[1] == wide and position == (1,)
    if q is None or not fits or cache is None or cache[1:] != (width,):
        told = f"q (T, {wide}), cache (S, {width}) and position (1)"
        raise InputError("op cached_attention_part", told, str(shapes))
    return onto_shape("cached_attention_part", q, onto)


def rope_append(
    qkv: Array,
    cache: Array,
    angles: Array,
    position: Array,
    *,
    heads: int,
    kv_heads: int,
    size: int,
    pairs: str,
) -> Array:
    """Rotary embedding (Su et al. 2021); k and v go into the cache (S, 2 * G * D), in place.

    angles (256 + R, D) hold cosine and sine side by side: row p the angles of position p, row
    256 + r those of position 256 * r. Two rows, multiplied as complex numbers, serve any position.
    """
    return rope_append_part(
        qkv,
        cache,
        angles,
        position,
        heads=heads,
        kv_heads=kv_heads,
        size=size,
        pairs=pairs,
        first_kept=0,
        n_kept=kv_heads,
    )


def rope_append_part(
    qkv: Array,
    cache: Array,
    angles: Array,
    position: Array,
    onto: Array | None = None,
    *,
    heads: int,
    kv_heads: int,
    size: int,
    pairs: str,
    first_kept: int,
    n_kept: int,
) -> Array:
    """rope_append of the KV heads that a cache (S, 2 * n_kept * D) keeps, and of the heads over
    them, into `onto`.
    """
    positions = int(position[0]) + np.arange(len(qkv))
    y = np.empty((len(qkv), heads * size), qkv.dtype) if onto is None else onto
    kept = slice(first_kept * size, (first_kept + n_kept) * size)
    over = slice(kept.start * heads // kv_heads, kept.stop * heads // kv_heads)
    q, k, v = np.split(qkv, (heads * size, (heads + kv_heads) * size), axis=1)
    at = positions % len(cache)
    y[:, over] = _turned(q[:, over], angles, positions, size, pairs)
    cache[at, : n_kept * size] = _turned(k[:, kept], angles, positions, size, pairs)
    cache[at, n_kept * size :] = v[:, kept]
    return y


def _turned(x: Array, angles: Array, positions: Array, size: int, pairs: str) -> Array:
    """Heads of that size, side by side in x (T, ...), turned by their positions' angles."""
    half = size // 2
    turns = angles[..., :half] + 1j * angles[..., half:]  # (256 + R, D / 2)
    turn = (turns[positions % 256] * turns[256 + positions // 256])[:, None, :]
    turned = x.reshape(len(x), -1, size)
    if pairs == "adjacent":
        z = (turned[..., 0::2] + 1j * turned[..., 1::2]) * turn
        turned = np.stack((z.real, z.imag), axis=-1).reshape(turned.shape)
    else:
        z = (turned[..., :half] + 1j * turned[..., half:]) * turn
        turned = np.concatenate((z.real, z.imag), axis=-1)
    return turned.reshape(x.shape).astype(x.dtype)


def cached_attention(
    q: Array,
    cache: Array,
    position: Array,
    *,
    heads: int,
    kv_heads: int,
    size: int,
    window: int,
) -> Array:
    """Causal attention of grouped queries (Ainslie et al. 2023) over a KV cache.

    The query in row t stands at position p = position + t and meets the keys of positions up to p,
    the last `window` of them where that is not 0.
    """
    return cached_attention_part(
        q,
        cache,
        position,
        heads=heads,
        kv_heads=kv_heads,
        size=size,
        window=window,
        first_head=0,
        n_heads=heads,
        first_query=0,
        n_queries=len(q),
        first_kept=0,
        n_kept=kv_heads,
    )


def cached_attention_part(
    q: Array,
    cache: Array,
    position: Array,
    onto: Array | None = None,
    *,
    heads: int,
    kv_heads: int,
    size: int,
    window: int,
    first_head: int,
    n_heads: int,
    first_query: int,
    n_queries: int,
    first_kept: int,
    n_kept: int,
) -> Array:
    """cached_attention of some heads and queries, over a cache (S, 2 * n_kept * D), into `onto`."""
    first, tokens = int(position[0]), len(q)
    y = np.empty(q.shape, q.dtype) if onto is None else onto
    end = first + tokens
    met = np.arange(max(0, end - len(cache)), end)  # positions that still stand in the cache
    sharing = min(n_heads, heads // kv_heads)
    begin, groups = first_head * kv_heads // heads - first_kept, n_heads // sharing
    rows = cache[met % len(cache)].reshape(len(met), 2, n_kept, size)[:, :, begin : begin + groups]
    k, v = rows.astype(q.dtype).transpose(1, 2, 0, 3)  # (G, S, D) each
    done = slice(first_query, first_query + n_queries), slice(first_head, first_head + n_heads)
    mine = q.reshape(tokens, heads, size)[done]
    grouped = mine.reshape(-1, groups, sharing, size).transpose(1, 2, 0, 3)  # (G, H/G, T, D)
    positions = (first + np.arange(tokens))[done[0]]
    scores = grouped @ k[:, None].swapaxes(-1, -2) / np.sqrt(q.dtype.type(size))  # (G, H/G, T, S)
    hidden = met[None, :] > positions[:, None]
    if window:
        hidden |= met[None, :] <= positions[:, None] - window
    scores = np.where(hidden, -np.inf, scores)
    weights = np.exp(scores - scores.max(axis=-1, keepdims=True))
    weights /= weights.sum(axis=-1, keepdims=True)
    mixed = (weights @ v[:, None]).transpose(2, 0, 1, 3)
    y.reshape(tokens, heads, size)[done] = mixed.reshape(mine.shape)
    return y


ROWS = (
    Op(
        "rope_append",
        ("qkv", "cache", "angles", "position"),
        {"heads": int, "kv_heads": int, "size": int, "pairs": str},
        "q and k turned by their positions' angles; k and v into the cache; y = q",
        _rope_append,
        updates=("cache",),
        numpy=rope_append,
    ),
    Op(
        "cached_attention",
        ("q", "cache", "position"),
        {"heads": int, "kv_heads": int, "size": int, "window": int},
        "per head: softmax(q @ k.T / sqrt(D)) @ v over positions up to the query's own, the "
        "last `window` of them (0: all)",
        _cached_attention,
        numpy=cached_attention,
    ),
    Op(
        "rope_append_part",
        ("qkv", "cache", "angles", "position", "onto?"),
        {"heads": int, "kv_heads": int, "size": int, "pairs": str, **KEPT},
        "rope_append of the KV heads that a cache keeps and the heads over them, into `onto`",
        _rope_append_part,
        updates=("cache",),
        numpy=rope_append_part,
    ),
    Op(
        "cached_attention_part",
        ("q", "cache", "position", "onto?"),
        {"heads": int, "kv_heads": int, "size": int, "window": int, **PART, **KEPT},
        "cached_attention of some heads and queries, over a cache of some heads, into `onto`",
        _cached_attention_part,
        numpy=cached_attention_part,
    ),
)
