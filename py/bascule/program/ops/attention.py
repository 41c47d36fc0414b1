"""Attention of whole texts, and parts of it."""

from __future__ import annotations

from collections.abc import Mapping

from bascule.arrays import Array, np
from bascule.errors import InputError
from bascule.program.ops.parts import KEPT, PART, checked, onto_shape
from bascule.program.ops.table import Op, first_two, need
from bascule.program.program import Attribute, Shape


def _attention(shapes: tuple[Shape | None, ...], attributes: Mapping[str, Attribute]) -> Shape:
    qkv, lengths = first_two(shapes, "attention")
    heads, packed = attributes["heads"], qkv[-1]
    need(
        len(qkv) == 3 and lengths == (qkv[0],), "attention", "qkv (B, T, 3*C), lengths (B)", shapes
    )
    if (
        not (isinstance(packed, int) and isinstance(heads, int))
        or heads < 1
        or packed % (3 * heads)
    ):
        raise InputError("op attention", "C divisible by heads", f"{packed} / 3 by {heads}")
    return (*qkv[:-1], packed // 3)


def _attention_part(shapes: tuple[Shape | None, ...], attributes: Mapping[str, Attribute]) -> Shape:
    """The shape rule of that op."""
    qkv, lengths, onto = shapes
    part = checked("attention_part", attributes)
    packed = qkv[-1] if qkv else 0
    if qkv is None or len(qkv) != 3 or lengths != (qkv[0],) or not isinstance(packed, int):
        told = "qkv (B, T, 3 * n_kept * D), lengths (B)"
        raise InputError("op attention_part", told, str(shapes))
    size, rest = divmod(packed, 3 * part.n_kept)
    if rest:
        raise InputError("op attention_part", f"q, k and v of {part.n_kept} heads", str(packed))
    return onto_shape("attention_part", (*qkv[:-1], part.heads * size), onto)


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


ROWS = (
    Op(
        "attention",
        ("qkv", "lengths"),
        {"heads": int},
        "per batch b and head: softmax(q @ k.T / sqrt(D)) @ v over the first lengths[b] keys",
        _attention,
        numpy=attention,
    ),
    Op(
        "attention_part",
        ("qkv", "lengths", "onto?"),
        {"heads": int, **PART, **KEPT},
        "attention of some heads and queries, out of a qkv of some heads, into `onto`",
        _attention_part,
        numpy=attention_part,
    ),
)
