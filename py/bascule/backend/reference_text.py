"""The ops of language models in numpy; see `backend/reference.py`."""

from __future__ import annotations

from typing import Any

import numpy as np

from bascule.backend.quant import BlockMatrix

Array = np.ndarray[Any, np.dtype[Any]]


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
    positions = int(position[0]) + np.arange(len(qkv))
    half = size // 2
    turns = angles[..., :half] + 1j * angles[..., half:]  # (256 + R, D / 2)
    turn = (turns[positions % 256] * turns[256 + positions // 256])[:, None, :]
    turned = qkv[:, : (heads + kv_heads) * size].reshape(len(qkv), heads + kv_heads, size)
    if pairs == "adjacent":
        z = (turned[..., 0::2] + 1j * turned[..., 1::2]) * turn
        turned = np.stack((z.real, z.imag), axis=-1).reshape(turned.shape)
    else:
        z = (turned[..., :half] + 1j * turned[..., half:]) * turn
        turned = np.concatenate((z.real, z.imag), axis=-1)
    turned = turned.reshape(len(qkv), -1).astype(qkv.dtype)
    cache[positions % len(cache), : kv_heads * size] = turned[:, heads * size :]
    cache[positions % len(cache), kv_heads * size :] = qkv[:, (heads + kv_heads) * size :]
    return turned[:, : heads * size]


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
    first, tokens = int(position[0]), len(q)
    positions = first + np.arange(tokens)
    end = first + tokens
    met = np.arange(max(0, end - len(cache)), end)  # positions that still stand in the cache
    rows = cache[met % len(cache)].astype(q.dtype).reshape(len(met), 2, kv_heads, size)
    k, v = rows.transpose(1, 2, 0, 3)  # (G, S, D) each
    grouped = q.reshape(tokens, kv_heads, heads // kv_heads, size).transpose(1, 2, 0, 3)
    scores = grouped @ k[:, None].swapaxes(-1, -2) / np.sqrt(q.dtype.type(size))  # (G, H/G, T, S)
    hidden = met[None, :] > positions[:, None]
    if window:
        hidden |= met[None, :] <= positions[:, None] - window
    scores = np.where(hidden, -np.inf, scores)
    weights = np.exp(scores - scores.max(axis=-1, keepdims=True))
    weights /= weights.sum(axis=-1, keepdims=True)
    return (weights @ v[:, None]).transpose(2, 0, 1, 3).reshape(tokens, heads * size)
