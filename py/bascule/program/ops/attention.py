"""Attention over whole texts: all heads and queries, or some."""

from __future__ import annotations

from collections.abc import Mapping
from math import prod

from bascule.base.arrays import Array, np
from bascule.errors import InputError
from bascule.program.ops.parts import (
    KEPT,
    PART,
    WHOLE,
    attention_work,
    checked,
    onto_shape,
    part_from,
)
from bascule.program.ops.table import Op, Operand, first_two, inputs, need, onto
from bascule.program.program import Attribute, Call, Shape

_GENERAL = "dot_product_attention"


def _attention(shapes: tuple[Shape | None, ...], attributes: Mapping[str, Attribute]) -> Shape:
    qkv, lengths = first_two(shapes, "attention")
    expected = "qkv (B, T, 3*C), lengths (B)"
    need(len(qkv) == 3 and lengths == (qkv[0],), "attention", expected, shapes)
    part, packed = checked("attention", attributes), qkv[-1]
    if not isinstance(packed, int) or packed % (3 * part.n_kept):
        raise InputError("op attention", "C divisible by heads", f"{packed} / 3 by {part.n_kept}")
    size = packed // (3 * part.n_kept)
    return onto_shape("attention", (*qkv[:-1], part.heads * size), shapes[2])


def attention(
    qkv: Array, lengths: Array, onto: Array | None = None, *, heads: int, **attributes: int
) -> Array:
    """Bidirectional attention (Vaswani et al. 2017) over the first lengths[b] keys of each row.

    qkv (B, T, 3*C) holds q, k and v side by side. A length of 0 counts as 1, so that every row has
    something to attend to. A part of it (see `parts`) reads a qkv (B, T, 3 * n_kept * D) and writes
    into `onto`.
    """
    batch, tokens, packed = qkv.shape
    part = part_from({"heads": heads, **attributes}, tokens)
    size = packed // 3 // part.n_kept
    y = np.empty((batch, tokens, heads * size), qkv.dtype) if onto is None else onto
    begin = part.first_head - part.first_kept
    done = slice(begin, begin + part.n_heads)
    q, k, v = qkv.reshape(batch, tokens, 3, part.n_kept, size).transpose(2, 0, 3, 1, 4)[:, :, done]
    queries = slice(part.first_query, part.first_query + part.n_queries)
    columns = slice(part.first_head, part.first_head + part.n_heads)
    y.reshape(batch, tokens, heads, size)[:, queries, columns] = _attend(
        q[:, :, queries], k, v, lengths
    )
    return y


def _attend(q: Array, k: Array, v: Array, lengths: Array) -> Array:
    """q (B, H, Q, D), k and v (B, H, T, D) -> (B, Q, H, D)."""
    tokens, size = k.shape[2:]
    scores = q @ k.swapaxes(-1, -2) / np.sqrt(q.dtype.type(size))
    hidden = np.arange(tokens)[None, :] >= np.maximum(lengths, 1)[:, None]
    weights = softmax_without(hidden[:, None, None, :], scores)
    return (weights @ v).transpose(0, 2, 1, 3)


def softmax_without(hidden: Array, scores: Array) -> Array:
    """Softmax over the last axis, with a weight of 0 for hidden elements."""
    scores = np.where(hidden, -np.inf, scores)
    weights = np.exp(scores - scores.max(axis=-1, keepdims=True))
    weights /= weights.sum(axis=-1, keepdims=True)
    return weights


def _dot_product_attention(
    shapes: tuple[Shape | None, ...], attributes: Mapping[str, Attribute]
) -> Shape:
    op, (q, k), (v, lengths, bias) = _GENERAL, first_two(shapes, _GENERAL), shapes[2:]
    numbers = [attributes[name] for name in ("heads", "kv_heads", "window")]
    counts = [n for n in numbers if isinstance(n, int) and n >= 0]
    heads, kv_heads, _ = counts if len(counts) == 3 else (0, 0, 0)
    need(heads > 0 and kv_heads > 0 and heads % kv_heads == 0, op, "H a multiple of G", attributes)
    need(len(q) == len(k) == 3, op, "q (B, Tq, H*D), k and v (B, Tk, G*D)", shapes)
    width, kv_width = q[2], k[2]
    if not isinstance(width, int) or width % heads:
        raise InputError(f"op {op}", "C divisible by heads", f"{width} by {heads}")
    fits = v == k and k[0] == q[0] and kv_width == width // heads * kv_heads
    need(fits, op, "q (B, Tq, H*D), k and v (B, Tk, G*D)", shapes)
    need(lengths is None or lengths == (q[0],), op, "lengths (B)", lengths)
    need(bias is None or bias == (heads, q[1], k[1]), op, "bias (H, Tq, Tk)", bias)
    return q


def dot_product_attention(
    q: Array,
    k: Array,
    v: Array,
    lengths: Array | None = None,
    bias: Array | None = None,
    *,
    heads: int,
    kv_heads: int,
    causal: bool = False,
    window: int = 0,
    scale: float = 0.0,
) -> Array:
    """softmax(scale * q @ k.T + bias) @ v over the keys that a query may see, at least one.

    q (B, Tq, H*D), k and v (B, Tk, G*D); a scale of 0 stands for 1 / sqrt(D). The first lengths[b]
    keys are visible, by default all; the last query has the position of the last key, and with
    `causal` a query sees no key after its position. A query sees keys less than `window` (0: all)
    from its position.
    """
    (batch, queries, width), keys = q.shape, k.shape[1]
    size, sharing = width // heads, heads // kv_heads
    apart = q.reshape(batch, queries, heads, size).transpose(0, 2, 1, 3)
    k, v = (
        np.repeat(x.reshape(batch, keys, kv_heads, size).transpose(0, 2, 1, 3), sharing, axis=1)
        for x in (k, v)
    )
    scores = apart @ k.swapaxes(-1, -2) * q.dtype.type(scale or size**-0.5)
    if bias is not None:
        scores = scores + bias
    own = (np.arange(queries) + 1 + keys - queries)[None, :]
    count = np.full(batch, keys) if lengths is None else lengths.astype(np.int64)
    end = np.clip(count, 1, keys)[:, None] + np.zeros_like(own)  # (B, Tq)
    end = np.clip(own, 1, end) if causal else end
    if window and not causal:
        end = np.clip(own + window - 1, 1, end)
    begin = np.minimum(np.maximum(own - window, 0), end - 1) if window else np.zeros_like(end)
    at = np.arange(keys)
    seen = (at >= begin[..., None]) & (at < end[..., None])
    weights = softmax_without(~seen[:, None], scores)
    return np.ascontiguousarray((weights @ v).transpose(0, 2, 1, 3)).reshape(q.shape)


def _general_work(call: Call) -> int:
    q, k = call.operands[:2]
    assert q is not None
    assert k is not None
    return 2 * prod(q.limits) * k.limits[1]


ROWS = (
    Op(
        "attention",
        (*inputs("qkv"), Operand("lengths", "lengths"), onto()),
        {"heads": int, **PART, **KEPT},
        "per batch b and head: softmax(q @ k.T / sqrt(D)) @ v over the first lengths[b] keys; of "
        "some heads and queries, out of a qkv of some heads, the rest as in `onto`",
        _attention,
        numpy=attention,
        defaults=WHOLE,
        parts=frozenset(WHOLE),
        multiply_adds=attention_work,
    ),
    Op(
        _GENERAL,
        (
            *inputs("q", "k", "v"),
            Operand("lengths", "lengths", optional=True),
            *inputs("bias?"),
        ),
        {"heads": int, "kv_heads": int, "causal": bool, "window": int, "scale": float},
        "per batch b and head: softmax(scale * q @ k.T + bias) @ v over the first lengths[b] keys, "
        "where causal up to the query's own, less than `window` (0: any) from it",
        _dot_product_attention,
        numpy=dot_product_attention,
        defaults={"causal": False, "window": 0, "scale": 0.0},
        multiply_adds=_general_work,
    ),
)
