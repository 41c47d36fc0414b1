"""Every op in numpy: the living definition of the op set.

The functions compute in the dtype they are given: float64 when a test wants a yardstick, float32
on the CPU tier. Shapes as in `program/ops.py`. States are updated in place.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

from bascule.arrays import Array, np
from bascule.backend.quant import BlockMatrix
from bascule.backend.reference_activations import activate
from bascule.backend.reference_images import patches, place_rows
from bascule.backend.reference_sampling import argmax_token, penalise, sample_token
from bascule.backend.reference_text import (
    cached_attention,
    cached_attention_part,
    rms_norm,
    rope_append,
    rope_append_part,
    taken,
    token_embedding,
)


def embedding(
    ids: Array,
    table: Array | BlockMatrix,
    position: Array | None = None,
    bias: Array | None = None,
    before: Array | None = None,
    *,
    first: int = 0,
    whole: int = 0,
) -> Array:
    """y[b,t] = table[ids[b,t]] + position[t] + bias. An id past the table takes its last row.

    A table may be rows `first` on of one of `whole` rows: for an id of the others `before` (B, T,
    C), zeros by default, stands in its row's place.
    """
    y = taken(table, ids, before, first, whole)
    if position is not None:
        y = y + position[: ids.shape[1]]
    return y if bias is None else y + bias


def linear(
    x: Array,
    weight: Array | BlockMatrix,
    bias: Array | None = None,
    residual: Array | None = None,
    *,
    activation: str = "none",
) -> Array:
    """y = activation(x @ weight.T + bias) + residual. Blocks become numbers tile by tile."""
    # One flat product: numpy hands a 2-d one to BLAS whole, an n-d one matrix by matrix.
    flat = x.reshape(-1, x.shape[-1])
    if isinstance(weight, BlockMatrix):
        y = np.concatenate([flat @ tile.T.astype(x.dtype) for _, tile in weight.tiles()], axis=1)
    else:
        y = flat @ weight.T
    y = y.reshape(*x.shape[:-1], weight.shape[0])
    if bias is not None:
        y += bias
    y = activate(y, kind=activation, out=y)
    if residual is not None:
        y += residual
    return y


def gated_linear(x: Array, weight: Array | BlockMatrix, *, activation: str) -> Array:
    """y = activation(x @ weight[:N].T) * (x @ weight[N:].T) (Shazeer 2020)."""
    gate, up = np.split(linear(x, weight), 2, axis=-1)
    y = activate(gate, kind=activation)
    return np.multiply(y, up, out=None if y is gate else y)


def layer_norm(
    x: Array, weight: Array, bias: Array, residual: Array | None = None, *, eps: float
) -> Array:
    """Normalise over the last axis, then scale and shift (Ba et al. 2016)."""
    s = x if residual is None else x + residual
    centred = s - s.mean(axis=-1, keepdims=True)
    variance = np.mean(centred * centred, axis=-1, keepdims=True)
    return centred / np.sqrt(variance + eps) * weight + bias


def attention(qkv: Array, lengths: Array, *, heads: int) -> Array:
    """Bidirectional attention (Vaswani et al. 2017) over the first lengths[b] keys of each row.

    qkv (B, T, 3*C) holds q, k and v side by side. A length of 0 counts as 1, so that every row
    has something to attend to.
    """
    batch, tokens, packed = qkv.shape
    q, k, v = qkv.reshape(batch, tokens, 3, heads, -1).transpose(2, 0, 3, 1, 4)
    return _attend(q, k, v, lengths).reshape(batch, tokens, packed // 3)


def attention_part(
    qkv: Array,
    lengths: Array,
    onto: Array | None = None,
    *,
    heads: int,
    first_head: int,
    n_heads: int,
    first_query: int,
    n_queries: int,
    first_kept: int,
    n_kept: int,
) -> Array:
    """Attention of some heads and queries, out of a qkv (B, T, 3 * n_kept * D), into `onto`."""
    batch, tokens, packed = qkv.shape
    size = packed // 3 // n_kept
    y = np.empty((batch, tokens, heads * size), qkv.dtype) if onto is None else onto
    done = slice(first_head - first_kept, first_head - first_kept + n_heads)
    q, k, v = qkv.reshape(batch, tokens, 3, n_kept, size).transpose(2, 0, 3, 1, 4)[:, :, done]
    queries = slice(first_query, first_query + n_queries)
    part = y.reshape(batch, tokens, heads, size)[:, queries, first_head : first_head + n_heads]
    part[...] = _attend(q[:, :, queries], k, v, lengths)
    return y


def _attend(q: Array, k: Array, v: Array, lengths: Array) -> Array:
    """q (B, H, Q, D), k and v (B, H, T, D) -> (B, Q, H, D)."""
    tokens, size = k.shape[2:]
    scores = q @ k.swapaxes(-1, -2) / np.sqrt(q.dtype.type(size))
    hidden = np.arange(tokens)[None, :] >= np.maximum(lengths, 1)[:, None]
    scores = np.where(hidden[:, None, None, :], -np.inf, scores)
    weights = np.exp(scores - scores.max(axis=-1, keepdims=True))
    weights /= weights.sum(axis=-1, keepdims=True)
    return (weights @ v).transpose(0, 2, 1, 3)


def pool(x: Array, lengths: Array, skipped: Array | None = None, *, kind: str) -> Array:
    """One vector a text from its tokens skipped[b] (0) to lengths[b], at least one of them."""
    tokens = x.shape[1]
    end = np.clip(lengths.astype(np.int64), 1, tokens)
    begin = np.zeros_like(end) if skipped is None else np.minimum(skipped, end - 1)
    match kind:
        case "cls" | "last":
            return x[np.arange(len(x)), begin if kind == "cls" else end - 1]
        case _:
            at = np.arange(tokens)
            kept = ((at >= begin[:, None]) & (at < end[:, None]))[:, :, None]
    if kind == "max":
        return np.where(kept, x, -np.inf).max(axis=1).astype(x.dtype, copy=False)
    if kind == "weighted_mean":
        weights = np.where(kept, at[None, :, None] + 1, 0).astype(x.dtype)
        return (np.where(kept, x, 0) * weights).sum(axis=1, dtype=x.dtype) / weights.sum(axis=1)
    count = (end - begin).astype(x.dtype)[:, None]
    total = np.where(kept, x, 0).sum(axis=1, dtype=x.dtype)
    return total / (np.sqrt(count) if kind == "mean_sqrt" else count)


def l2_normalise(x: Array, *, eps: float) -> Array:
    """y = x / max(|x|, eps) over the last axis."""
    return x / np.maximum(np.sqrt((x * x).sum(axis=-1, keepdims=True)), x.dtype.type(eps))


def add(x: Array, y: Array) -> Array:
    """x + y, y repeated over x's leading axes."""
    return x + y


def multiply(x: Array, y: Array) -> Array:
    """x * y."""
    return x * y


def concat(*parts: Array | None) -> Array:
    """Side by side on the last axis."""
    return np.concatenate([part for part in parts if part is not None], axis=-1)


FUNCTIONS: Mapping[str, Callable[..., Array]] = {
    f.__name__: f
    for f in (
        embedding,
        linear,
        gated_linear,
        layer_norm,
        attention,
        attention_part,
        pool,
        l2_normalise,
        activate,
        add,
        multiply,
        concat,
        patches,
        place_rows,
        rms_norm,
        token_embedding,
        rope_append,
        rope_append_part,
        cached_attention,
        cached_attention_part,
        argmax_token,
        penalise,
        sample_token,
    )
}
