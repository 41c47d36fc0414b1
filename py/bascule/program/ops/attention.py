"""Attention over whole texts: of all heads and queries, or of some."""

from __future__ import annotations

from collections.abc import Mapping

from bascule.arrays import Array, np
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
from bascule.program.program import Attribute, Shape


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

    qkv (B, T, 3*C) holds q, k and v side by side. A length of 0 counts as 1, so that every row
    has something to attend to. A part of it (see `parts`) reads a qkv (B, T, 3 * n_kept * D) and
    writes into `onto`.
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
    scores = np.where(hidden[:, None, None, :], -np.inf, scores)
    weights = np.exp(scores - scores.max(axis=-1, keepdims=True))
    weights /= weights.sum(axis=-1, keepdims=True)
    return (weights @ v).transpose(0, 2, 1, 3)


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
)
