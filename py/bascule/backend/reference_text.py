"""The ops of language models in numpy; see `backend/reference.py`."""

from __future__ import annotations

from bascule.arrays import Array, np
from bascule.backend.quant import BlockMatrix


def rms_norm(x: Array, weight: Array, *, eps: float) -> Array:
    """y = x / sqrt(mean(x^2) + eps) * weight over the last axis (Zhang & Sennrich 2019)."""
    return x / np.sqrt(np.mean(x * x, axis=-1, keepdims=True) + eps) * weight


def token_embedding(
    table: Array | BlockMatrix,
    tokens: Array,
    position: Array,
    before: Array | None = None,
    *,
    length: int,
    first: int = 0,
    whole: int = 0,
) -> Array:
    """y[t] = table[tokens[(position + t) % S]]. An id past the table takes its last row.

    `before`, `first` and `whole` as in `embedding`.
    """
    slots = (int(position[0]) + np.arange(length)) % len(tokens)
    return taken(table, tokens[slots], before, first, whole)


def taken(
    table: Array | BlockMatrix, ids: Array, before: Array | None, first: int, whole: int
) -> Array:
    """Rows of a table by their ids (..., C), or `before` where they are in another part of it."""
    rows = table.shape[0]
    local = np.minimum(ids, (whole or rows) - 1).astype(np.int64) - first
    inside = ((local >= 0) & (local < rows))[..., None]
    local = np.clip(local, 0, rows - 1)
    y = table.take(local) if isinstance(table, BlockMatrix) else table[local]
    return y if inside.all() else np.where(inside, y, y.dtype.type(0) if before is None else before)


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
