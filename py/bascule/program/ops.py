"""The op table: each op's operands, attributes, shape rule and meaning, in one place.

`backend/reference.py` holds an executable definition of each, `shaders/README.md` the kernels.
Shapes: B batch, T tokens, C hidden, K and N inner and outer size of a linear layer, V vocabulary.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

from bascule.errors import InputError
from bascule.program.program import Attribute, Shape

ACTIVATIONS = ("none", "gelu", "relu", "tanh", "silu")
POOLINGS = ("mean", "cls")

ShapeRule = Callable[[tuple[Shape | None, ...], Mapping[str, Attribute]], Shape]


@dataclass(frozen=True, slots=True)
class Op:
    """A row of the table. `operands` names end in "?" where an operand may be left out."""

    name: str
    operands: tuple[str, ...]
    attributes: Mapping[str, type]
    meaning: str
    shape: ShapeRule


def _need(ok: bool, op: str, expected: str, found: object) -> None:
    if not ok:
        raise InputError(f"op {op}", expected, str(found))


def _given(shapes: tuple[Shape | None, ...], op: str) -> tuple[Shape, Shape]:
    """The first two operands' shapes, where an op needs both."""
    first, second = shapes[:2]
    if first is None or second is None:
        raise InputError(f"op {op}", "its first two operands", str(shapes))
    return first, second


def _embedding(shapes: tuple[Shape | None, ...], _: Mapping[str, Attribute]) -> Shape:
    (ids, table), (position, bias) = _given(shapes, "embedding"), shapes[2:]
    _need(len(ids) == 2 and len(table) == 2, "embedding", "ids (B, T) and table (V, C)", shapes)
    hidden = table[1]
    _need(position is None or position[1:] == (hidden,), "embedding", "position (P, C)", position)
    _need(bias is None or bias == (hidden,), "embedding", "bias (C)", bias)
    return (*ids, hidden)


def _linear(shapes: tuple[Shape | None, ...], attributes: Mapping[str, Attribute]) -> Shape:
    (x, weight), bias = _given(shapes, "linear"), shapes[2]
    _need(len(weight) == 2 and x[-1] == weight[1], "linear", "x (..., K) and weight (N, K)", shapes)
    _need(bias is None or bias == (weight[0],), "linear", "bias (N)", bias)
    _need(attributes["activation"] in ACTIVATIONS, "linear", str(ACTIVATIONS), attributes)
    return (*x[:-1], weight[0])


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
    x, lengths = _given(shapes, "pool")
    _need(len(x) == 3 and lengths == (x[0],), "pool", "x (B, T, C) and lengths (B)", shapes)
    _need(attributes["kind"] in POOLINGS, "pool", f"kind in {POOLINGS}", attributes)
    return (x[0], x[2])


def _same(shapes: tuple[Shape | None, ...], attributes: Mapping[str, Attribute]) -> Shape:
    x = shapes[0] or ()
    _need(attributes.get("kind", "none") in ACTIVATIONS, "activate", str(ACTIVATIONS), attributes)
    return x


def _add(shapes: tuple[Shape | None, ...], _: Mapping[str, Attribute]) -> Shape:
    x, y = _given(shapes, "add")
    _need(x[len(x) - len(y) :] == y, "add", "y shaped like x or like its last axes", shapes)
    return x


OPS: Mapping[str, Op] = {
    op.name: op
    for op in (
        Op(
            "embedding",
            ("ids", "table", "position?", "bias?"),
            {},
            "y[b,t] = table[ids[b,t]] + position[t] + bias",
            _embedding,
        ),
        Op(
            "linear",
            ("x", "weight", "bias?"),
            {"activation": str},
            "y = activation(x @ weight.T + bias)",
            _linear,
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
            ("x", "lengths"),
            {"kind": str},
            "mean over the first lengths[b] tokens, or token 0 (cls)",
            _pool,
        ),
        Op("l2_normalise", ("x",), {"eps": float}, "y = x / max(|x|, eps) over C", _same),
        Op("activate", ("x",), {"kind": str}, "y = activation(x)", _same),
        Op("add", ("x", "y"), {}, "x + y, y repeated over x's leading axes", _add),
    )
}
