"""The op table: each op's operands, attributes, shape rule and meaning, in one place.

`backend/reference.py` holds an executable definition of each, `shaders/README.md` the kernels.
Shapes: B batch, T tokens, C hidden, K and N inner and outer size of a linear layer, V vocabulary,
H heads, G KV heads, D head size, S slots of a KV cache. What belongs to position p of a text stands
in slot p % S of every state.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

from bascule.dtypes import DType
from bascule.errors import InputError
from bascule.program.images import PATCHES, patches_shape, place_rows_shape
from bascule.program.parts import (
    KEPT,
    PART,
    attention_part,
    cached_attention_part,
    rope_append_part,
)
from bascule.program.program import Attribute, Call, Dim, Shape, Value

ACTIVATIONS = ("none", "gelu", "relu", "tanh", "silu")
POOLINGS = ("mean", "cls", "max", "mean_sqrt", "weighted_mean", "last")
ROTARY_PAIRS = ("adjacent", "halves")
MOST_JOINED = 7  # operands of concat: with its result as many as any adapter binds at once
SETTINGS = 8  # words of a sampler's settings; see `backend/reference_sampling.py`

_WHOLE_TABLE: Mapping[str, Attribute] = {"first": 0, "whole": 0}

ShapeRule = Callable[[tuple[Shape | None, ...], Mapping[str, Attribute]], Shape]


@dataclass(frozen=True, slots=True)
class Op:
    """A row of the table. `operands` names end in "?" where an operand may be left out.

    `updates` names the operands, states all of them, that a call changes in place; `defaults` has
    the attributes that a call may leave out. What `onto?` is at the end of the operands, the result
    takes over: its memory and what stands in it.
    """

    name: str
    operands: tuple[str, ...]
    attributes: Mapping[str, type]
    meaning: str
    shape: ShapeRule
    updates: tuple[str, ...] = ()
    result: DType = "f32"
    defaults: Mapping[str, Attribute] = field(default_factory=dict[str, Attribute])


def _need(ok: bool, op: str, expected: str, found: object) -> None:
    if not ok:
        raise InputError(f"op {op}", expected, str(found))


def _given(shapes: tuple[Shape | None, ...], op: str) -> tuple[Shape, Shape]:
    """The first two operands' shapes, where an op needs both."""
    first, second = shapes[:2]
    if first is None or second is None:
        raise InputError(f"op {op}", "its first two operands", str(shapes))
    return first, second


def _embedding(shapes: tuple[Shape | None, ...], attributes: Mapping[str, Attribute]) -> Shape:
    (ids, table), (position, bias, before) = _given(shapes, "embedding"), shapes[2:]
    _need(len(ids) == 2 and len(table) == 2, "embedding", "ids (B, T) and table (V, C)", shapes)
    _part("embedding", table, before, (*ids, table[1]), attributes)
    hidden = table[1]
    _need(position is None or position[1:] == (hidden,), "embedding", "position (P, C)", position)
    _need(bias is None or bias == (hidden,), "embedding", "bias (C)", bias)
    return (*ids, hidden)


def _part(
    op: str,
    table: Shape,
    before: Shape | None,
    y: Shape,
    attributes: Mapping[str, Attribute],
) -> None:
    """What an op over a part of a table's rows needs: a part within the whole, and y's shape."""
    first, whole, rows = attributes["first"], attributes["whole"], table[0]
    assert isinstance(first, int)
    assert isinstance(whole, int)
    inside = isinstance(rows, int) and first >= 0 and first + rows <= whole
    told = f"first {first}, rows {rows}, whole {whole}"
    _need(inside or (first, whole) == (0, 0), op, "rows first to first + V of the whole's", told)
    _need(before is None or before == y, op, f"before {y}", before)


def _linear(shapes: tuple[Shape | None, ...], attributes: Mapping[str, Attribute]) -> Shape:
    (x, weight), (bias, residual) = _given(shapes, "linear"), shapes[2:]
    _need(len(weight) == 2 and x[-1] == weight[1], "linear", "x (..., K) and weight (N, K)", shapes)
    _need(bias is None or bias == (weight[0],), "linear", "bias (N)", bias)
    _need(attributes["activation"] in ACTIVATIONS, "linear", str(ACTIVATIONS), attributes)
    y = (*x[:-1], weight[0])
    _need(residual is None or residual == y, "linear", f"residual {y}", residual)
    return y


def _gated_linear(shapes: tuple[Shape | None, ...], attributes: Mapping[str, Attribute]) -> Shape:
    x, weight = _given(shapes, "gated_linear")
    outer = weight[0]
    if len(weight) != 2 or x[-1] != weight[1] or not isinstance(outer, int) or outer % 2:
        raise InputError("op gated_linear", "x (..., K) and weight (2 * N, K)", str(shapes))
    _need(attributes["activation"] in ACTIVATIONS, "gated_linear", str(ACTIVATIONS), attributes)
    return (*x[:-1], outer // 2)


def _layer_norm(shapes: tuple[Shape | None, ...], _: Mapping[str, Attribute]) -> Shape:
    (x, weight), (bias, residual) = _given(shapes, "layer_norm"), shapes[2:]
    _need(weight == bias == (x[-1],), "layer_norm", "weight (C) and bias (C)", shapes)
    _need(residual is None or residual == x, "layer_norm", "residual shaped like x", residual)
    return x


def _attention(shapes: tuple[Shape | None, ...], attributes: Mapping[str, Attribute]) -> Shape:
    qkv, lengths = _given(shapes, "attention")
    heads, packed = attributes["heads"], qkv[-1]
    _need(
        len(qkv) == 3 and lengths == (qkv[0],), "attention", "qkv (B, T, 3*C), lengths (B)", shapes
    )
    if (
        not (isinstance(packed, int) and isinstance(heads, int))
        or heads < 1
        or packed % (3 * heads)
    ):
        raise InputError("op attention", "C divisible by heads", f"{packed} / 3 by {heads}")
    return (*qkv[:-1], packed // 3)


def _pool(shapes: tuple[Shape | None, ...], attributes: Mapping[str, Attribute]) -> Shape:
    (x, lengths), skipped = _given(shapes, "pool"), shapes[2]
    _need(len(x) == 3 and lengths == (x[0],), "pool", "x (B, T, C) and lengths (B)", shapes)
    _need(skipped is None or skipped == lengths, "pool", "skipped (B)", skipped)
    _need(attributes["kind"] in POOLINGS, "pool", f"kind in {POOLINGS}", attributes)
    return (x[0], x[2])


def _same(shapes: tuple[Shape | None, ...], attributes: Mapping[str, Attribute]) -> Shape:
    x = shapes[0] or ()
    _need(attributes.get("kind", "none") in ACTIVATIONS, "activate", str(ACTIVATIONS), attributes)
    return x


def _rms_norm(shapes: tuple[Shape | None, ...], _: Mapping[str, Attribute]) -> Shape:
    x, weight = _given(shapes, "rms_norm")
    _need(weight == (x[-1],), "rms_norm", "weight (C)", shapes)
    return x


def _equal(shapes: tuple[Shape | None, ...], _: Mapping[str, Attribute]) -> Shape:
    x, y = _given(shapes, "multiply")
    _need(x == y, "multiply", "two tensors of one shape", shapes)
    return x


def _concat(shapes: tuple[Shape | None, ...], _: Mapping[str, Attribute]) -> Shape:
    given = [shape for shape in shapes if shape is not None]
    widths = [shape[-1] for shape in given if shape and isinstance(shape[-1], int)]
    same = len({shape[:-1] for shape in given}) == 1 and len(widths) == len(given)
    _need(same, "concat", "tensors that differ in the last axis only", shapes)
    return (*given[0][:-1], sum(widths))


def _token_embedding(
    shapes: tuple[Shape | None, ...], attributes: Mapping[str, Attribute]
) -> Shape:
    (table, tokens), (position, before) = _given(shapes, "token_embedding"), shapes[2:]
    told = "table (V, C), tokens (S) and position (1)"
    fits = len(table) == 2 and len(tokens) == 1 and position == (1,)
    _need(fits, "token_embedding", told, shapes)
    length = attributes["length"]
    assert isinstance(length, int | Dim)
    _part("token_embedding", table, before, (length, table[1]), attributes)
    return (length, table[1])


def _rope_append(shapes: tuple[Shape | None, ...], attributes: Mapping[str, Attribute]) -> Shape:
    (qkv, cache), (angles, position) = _given(shapes, "rope_append"), shapes[2:]
    heads, kv_heads, size = _heads(attributes)
    packed = (heads + 2 * kv_heads) * size
    told = f"qkv (T, {packed}), cache (S, {2 * kv_heads * size}), angles (R, {size}), position (1)"
    fits = len(qkv) == 2 and qkv[1] == packed and cache[1:] == (2 * kv_heads * size,)
    fits = fits and angles is not None and angles[1:] == (size,) and position == (1,)
    _need(fits, "rope_append", told, shapes)
    _need(attributes["pairs"] in ROTARY_PAIRS, "rope_append", str(ROTARY_PAIRS), attributes)
    return (qkv[0], heads * size)


def _cached_attention(
    shapes: tuple[Shape | None, ...], attributes: Mapping[str, Attribute]
) -> Shape:
    (q, cache), position = _given(shapes, "cached_attention"), shapes[2]
    heads, kv_heads, size = _heads(attributes)
    told = f"q (T, {heads * size}), cache (S, {2 * kv_heads * size}) and position (1)"
    fits = len(q) == 2 and q[1] == heads * size and cache[1:] == (2 * kv_heads * size,)
    _need(fits and position == (1,), "cached_attention", told, shapes)
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


def _token(shapes: tuple[Shape | None, ...], _: Mapping[str, Attribute]) -> Shape:
    (logits, tokens), position = _given(shapes, "sampling"), shapes[2]
    fits = len(logits) == 2 and logits[0] == 1 and len(tokens) == 1 and position == (1,)
    _need(fits, "sampling", "logits (1, V), tokens (S) and position (1)", shapes)
    _need(shapes[3:] in ((), ((SETTINGS,),)), "sampling", f"settings ({SETTINGS})", shapes[3:])
    return (1,)


def _penalise(shapes: tuple[Shape | None, ...], attributes: Mapping[str, Attribute]) -> Shape:
    _token(shapes, attributes)
    return shapes[0] or ()


def _add(shapes: tuple[Shape | None, ...], _: Mapping[str, Attribute]) -> Shape:
    x, y = _given(shapes, "add")
    _need(x[len(x) - len(y) :] == y, "add", "y shaped like x or like its last axes", shapes)
    return x


OPS: Mapping[str, Op] = {
    op.name: op
    for op in (
        Op(
            "embedding",
            ("ids", "table", "position?", "bias?", "before?"),
            {"first": int, "whole": int},
            "y[b,t] = table[ids[b,t]] + position[t] + bias; a table that is rows `first` on of "
            "one of `whole` rows (0: it is all of it) leaves the others' rows as in before, or 0",
            _embedding,
            defaults=_WHOLE_TABLE,
        ),
        Op(
            "linear",
            ("x", "weight", "bias?", "residual?"),
            {"activation": str},
            "y = activation(x @ weight.T + bias) + residual",
            _linear,
        ),
        Op(
            "gated_linear",
            ("x", "weight"),
            {"activation": str},
            "y = activation(x @ weight[:N].T) * (x @ weight[N:].T)",
            _gated_linear,
        ),
        Op(
            "layer_norm",
            ("x", "weight", "bias", "residual?"),
            {"eps": float},
            "s = x + residual; y = (s - mean(s)) / sqrt(var(s) + eps) * weight + bias over C",
            _layer_norm,
        ),
        Op(
            "attention",
            ("qkv", "lengths"),
            {"heads": int},
            "per batch b and head: softmax(q @ k.T / sqrt(D)) @ v over the first lengths[b] keys",
            _attention,
        ),
        Op(
            "pool",
            ("x", "lengths", "skipped?"),
            {"kind": str},
            "over the tokens t of skipped[b] (0) to lengths[b]: mean, the first (cls), the last, "
            "max, sum / sqrt(count) (mean_sqrt), or mean weighted by t + 1; always one token",
            _pool,
        ),
        Op("l2_normalise", ("x",), {"eps": float}, "y = x / max(|x|, eps) over C", _same),
        Op("activate", ("x",), {"kind": str}, "y = activation(x)", _same),
        Op("add", ("x", "y"), {}, "x + y, y repeated over x's leading axes", _add),
        Op("multiply", ("x", "y"), {}, "x * y", _equal),
        Op(
            "concat",
            ("a", "b", *(f"{name}?" for name in "cdefg")),
            {},
            "all of them side by side on the last axis",
            _concat,
        ),
        Op(
            "patches",
            ("x",),
            PATCHES,
            "a row for each place of a window on images: what it sees, zeros around the image",
            patches_shape,
        ),
        Op(
            "place_rows",
            ("x", "onto?"),
            {"first": int, "whole": int},
            "x as rows `first` on of `whole` ones; the others are those of `onto`",
            place_rows_shape,
        ),
        Op(
            "rms_norm",
            ("x", "weight"),
            {"eps": float},
            "y = x / sqrt(mean(x^2) + eps) * weight over C",
            _rms_norm,
        ),
        Op(
            "token_embedding",
            ("table", "tokens", "position", "before?"),
            {"length": Dim, "first": int, "whole": int},
            "y[t] = table[tokens[(position + t) % S]]; `first`, `whole` and before as in embedding",
            _token_embedding,
            defaults=_WHOLE_TABLE,
        ),
        Op(
            "rope_append",
            ("qkv", "cache", "angles", "position"),
            {"heads": int, "kv_heads": int, "size": int, "pairs": str},
            "q and k turned by their positions' angles; k and v into the cache; y = q",
            _rope_append,
            updates=("cache",),
        ),
        Op(
            "cached_attention",
            ("q", "cache", "position"),
            {"heads": int, "kv_heads": int, "size": int, "window": int},
            "per head: softmax(q @ k.T / sqrt(D)) @ v over positions up to the query's own, the "
            "last `window` of them (0: all)",
            _cached_attention,
        ),
        Op(
            "attention_part",
            ("qkv", "lengths", "onto?"),
            {"heads": int, **PART, **KEPT},
            "attention of some heads and queries, out of a qkv of some heads, into `onto`",
            attention_part,
        ),
        Op(
            "rope_append_part",
            ("qkv", "cache", "angles", "position", "onto?"),
            {"heads": int, "kv_heads": int, "size": int, "pairs": str, **KEPT},
            "rope_append of the KV heads that a cache keeps and the heads over them, into `onto`",
            rope_append_part,
            updates=("cache",),
        ),
        Op(
            "cached_attention_part",
            ("q", "cache", "position", "onto?"),
            {"heads": int, "kv_heads": int, "size": int, "window": int, **PART, **KEPT},
            "cached_attention of some heads and queries, over a cache of some heads, into `onto`",
            cached_attention_part,
        ),
        Op(
            "argmax_token",
            ("logits", "tokens", "position"),
            {},
            "y = argmax(logits); tokens[(position + 1) % S] = y; position += 1",
            _token,
            updates=("tokens", "position"),
            result="u32",
        ),
        Op(
            "penalise",
            ("logits", "tokens", "position", "settings"),
            {},
            "logits, less likely for each token among the last `window`",
            _penalise,
        ),
        Op(
            "sample_token",
            ("logits", "tokens", "position", "settings"),
            {},
            "like argmax_token, but y is drawn from softmax(logits / temperature) after top-k, "
            "top-p and min-p",
            _token,
            updates=("tokens", "position"),
            result="u32",
        ),
    )
}


def works_on_a_state(op: str) -> bool:
    """Whether an op reads or changes what outlives a run."""
    return not {"tokens", "cache"}.isdisjoint(OPS[op].operands)


def takes_over(call: Call) -> bool:
    """Whether it is a part of a result, so that what stands there already stays."""
    row = OPS.get(call.op)
    return row is not None and row.operands[-1] == "onto?"


def onto_of(call: Call) -> Value | None:
    """The operand whose memory the call's result takes over, if there is one."""
    return call.operands[-1] if takes_over(call) else None
