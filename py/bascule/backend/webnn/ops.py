"""The ops that an MLGraph can take, in WebNN's methods; each as in `program/ops/`.

Sizes are a bucket's limits. What exceeds a text's length, or a run's actual size, is masked, so
that no padding reaches a result.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from math import prod

from bascule.backend.webnn.recipe import Recipe
from bascule.base.arrays import np
from bascule.program.program import Call, Dim

# Adds nothing to a softmax: its exp is 0 in float32.
_FAR_BELOW = -1e30
# The smallest finite float32.
_LOWEST = -(2 - 2.0**-23) * 2.0**127

Operands = tuple[int | None, ...]
Translation = Callable[[Recipe, Call, Operands], int]


def dim_input(dim: Dim) -> str:
    """Return the name of the input with a run's actual size of `dim`."""
    return f"size of {dim.name}"


def embedding(recipe: Recipe, call: Call, operands: Operands) -> int:
    """Rows of the table by gather; an id past the table takes its last row."""
    ids, table, position, bias = _two(operands)
    shape, (rows, _) = call.result.limits, recipe.shapes[table]
    # Through floats: exact for ids up to 2^24, and no runtime clamps unsigned integers.
    known = recipe.step("cast", [ids], shape[:2], "float32")
    known = recipe.step("clamp", [known], shape[:2], minValue=0.0, maxValue=float(rows - 1))
    known = recipe.step("cast", [known], shape[:2], "int32")
    y = recipe.step("gather", [table, known], shape, axis=0)
    if position is not None:
        n_rows = min(shape[1], recipe.shapes[position][0])
        rows_of = recipe.step("slice", [position], (n_rows, shape[2]), (0, 0), (n_rows, shape[2]))
        if n_rows < shape[1]:  # no run is as long as that, so any row will do
            zeros = recipe.array(f"{shape[1] - n_rows} x {shape[2]} zeros",
                                 np.zeros((shape[1] - n_rows, shape[2]), np.float32))  # fmt: skip
            rows_of = recipe.step("concat", [rows_of, zeros], shape[1:], 0)
        y = recipe.step("add", [y, rows_of], shape)
    return y if bias is None else recipe.step("add", [y, bias], shape)


def linear(recipe: Recipe, call: Call, operands: Operands) -> int:
    """One gemm over all rows, then activation and residual."""
    x, weight, bias, residual = _two(operands)
    shape = call.result.limits
    y = _gemm(recipe, x, weight, bias)
    y = recipe.step("reshape", [y], shape, shape)
    y = _activated(recipe, y, str(call.attribute("activation")))
    return y if residual is None else recipe.step("add", [y, residual], shape)


def gated_linear(recipe: Recipe, call: Call, operands: Operands) -> int:
    """One gemm whose halves are the gate and what it multiplies."""
    x, weight, *_ = _two(operands)
    shape = call.result.limits
    rows, n = prod(shape[:-1]), shape[-1]
    both = _gemm(recipe, x, weight, None)
    gate, up = (recipe.step("slice", [both], (rows, n), (0, at), (rows, n)) for at in (0, n))
    gate = _activated(recipe, gate, str(call.attribute("activation")))
    y = recipe.step("mul", [gate, up], (rows, n))
    return recipe.step("reshape", [y], shape, shape)


def layer_norm(recipe: Recipe, call: Call, operands: Operands) -> int:
    """WebNN's own, over the last axis."""
    x, weight, bias, residual = _two(operands)
    assert bias is not None
    shape = call.result.limits
    if residual is not None:
        x = recipe.step("add", [x, residual], shape)
    return recipe.step(
        "layerNormalization",
        [x],
        shape,
        named={"scale": weight, "bias": bias},
        axes=(len(shape) - 1,),
        epsilon=call.number("eps"),
    )


def rms_norm(recipe: Recipe, call: Call, operands: Operands) -> int:
    """By its formula: WebNN has no method for it."""
    x, weight, *_ = _two(operands)
    full, run = call.result.limits, recipe.shapes[weight][0]
    shape = (*full[:-1], full[-1] // run, run)
    narrow = (*shape[:-1], 1)
    x = recipe.step("reshape", [x], shape, shape)
    square = recipe.step("mul", [x, x], shape)
    mean = recipe.step("reduceMean", [square], narrow, axes=_last(shape), keepDimensions=True)
    eps = recipe.number(call.number("eps"))
    root = recipe.step("sqrt", [recipe.step("add", [mean, eps], narrow)], narrow)
    if plus := call.number("plus"):
        weight = recipe.step("add", [weight, recipe.number(plus)], (run,))
    y = recipe.step("mul", [recipe.step("div", [x, root], shape), weight], shape)
    return recipe.step("reshape", [y], full, full)


def attention(recipe: Recipe, call: Call, operands: Operands) -> int:
    """Two matmuls per head with a softmax between, keys past a text's length masked."""
    qkv, lengths, *_ = _two(operands)
    (batch, tokens, hidden), heads = call.result.limits, call.integer("heads")
    size = hidden // heads
    parts: list[int] = []
    for at in range(3):
        one = (batch, tokens, hidden)
        part = recipe.step("slice", [qkv], one, (0, 0, at * hidden), one)
        split = (batch, tokens, heads, size)
        part = recipe.step("reshape", [part], split, split)
        order = (0, 2, 3, 1) if at == 1 else (0, 2, 1, 3)  # k lies transposed
        permuted = tuple(split[axis] for axis in order)
        parts.append(recipe.step("transpose", [part], permuted, permutation=order))
    q, k, v = parts
    square, mixed = (batch, heads, tokens, tokens), (batch, heads, tokens, size)
    scores = recipe.step("matmul", [q, k], square)
    scores = recipe.step("mul", [scores, recipe.number(size**-0.5)], square)
    along, flat = (1, 1, 1, tokens), (batch, 1, 1, 1)
    keys = recipe.array(f"keys of {tokens}", np.arange(tokens, dtype=np.float32).reshape(along))
    end = recipe.step("reshape", [_ends(recipe, call, lengths)], flat, flat)
    inside = recipe.step("lesser", [keys, end], (batch, 1, 1, tokens))
    scores = recipe.step("where", [inside, scores, recipe.number(_FAR_BELOW)], square)
    weights = recipe.step("softmax", [scores], square, 3)
    y = recipe.step("matmul", [weights, v], mixed)
    y = recipe.step("transpose", [y], (batch, tokens, heads, size), permutation=(0, 2, 1, 3))
    return recipe.step("reshape", [y], call.result.limits, call.result.limits)


def pool(recipe: Recipe, call: Call, operands: Operands) -> int:
    """The sum or maximum over a text's tokens; first and last are sums over one token."""
    x, lengths, skipped, _ = _two(operands)
    wide, kind = recipe.shapes[x], str(call.attribute("kind"))
    batch, tokens, hidden = wide
    mask, flat = (batch, tokens, 1), (batch, hidden)
    places = recipe.array(
        f"places of {tokens}", np.arange(tokens, dtype=np.float32).reshape(1, tokens, 1)
    )
    end = _ends(recipe, call, lengths)
    begin = _begins(recipe, skipped, end)
    one = recipe.number(1)
    if kind == "cls":
        end = recipe.step("add", [begin, one], (batch, 1, 1))
    if kind == "last":
        begin = recipe.step("sub", [end, one], (batch, 1, 1))
    before = recipe.step("lesser", [places, begin], mask)
    inside = recipe.step("lesser", [places, end], mask)
    if kind == "max":
        low = recipe.number(_LOWEST)
        masked = recipe.step("where", [before, low, x], wide)
        masked = recipe.step("where", [inside, masked, low], wide)
        return recipe.step("reduceMax", [masked], flat, axes=(1,), keepDimensions=False)
    weight = recipe.step("add", [places, one], (1, tokens, 1)) if kind == "weighted_mean" else one
    zero = recipe.number(0)
    weights = recipe.step("where", [before, zero, weight], mask)
    weights = recipe.step("where", [inside, weights, zero], mask)
    # Not a product with the weights alone: padding may be anything, including NaN.
    masked = recipe.step("where", [before, zero, x], wide)
    masked = recipe.step("where", [inside, masked, zero], wide)
    if kind == "weighted_mean":
        masked = recipe.step("mul", [masked, weights], wide)
    total = recipe.step("reduceSum", [masked], flat, axes=(1,), keepDimensions=False)
    divisor = recipe.step("reduceSum", [weights], (batch, 1), axes=(1,), keepDimensions=False)
    if kind == "mean_sqrt":
        divisor = recipe.step("sqrt", [divisor], (batch, 1))
    return recipe.step("div", [total, divisor], flat)


def l2_normalise(recipe: Recipe, call: Call, operands: Operands) -> int:
    """x over its length, or over eps if that is larger."""
    x, shape = _one(operands), call.result.limits
    narrow = (*shape[:-1], 1)
    square = recipe.step("mul", [x, x], shape)
    total = recipe.step("reduceSum", [square], narrow, axes=_last(shape), keepDimensions=True)
    norm = recipe.step("sqrt", [total], narrow)
    return recipe.step("div", [x, _at_least(recipe, norm, call.number("eps"))], shape)


def activate(recipe: Recipe, call: Call, operands: Operands) -> int:
    """See `_activated`."""
    return _activated(recipe, _one(operands), str(call.attribute("kind")))


def _binary(method: str, recipe: Recipe, call: Call, operands: Operands) -> int:
    """A method of two operands, the second broadcast."""
    x, y, *_ = _two(operands)
    return recipe.step(method, [x, y], call.result.limits)


def concat(recipe: Recipe, call: Call, operands: Operands) -> int:
    """Concatenate on the last axis."""
    shape = call.result.limits
    return recipe.step("concat", [o for o in operands if o is not None], shape, len(shape) - 1)


TRANSLATIONS: Mapping[str, Translation] = {
    f.__name__: f
    for f in (
        embedding,
        linear,
        gated_linear,
        layer_norm,
        rms_norm,
        attention,
        pool,
        l2_normalise,
        activate,
        concat,
    )
} | {"add": partial(_binary, "add"), "multiply": partial(_binary, "mul")}


def _one(operands: Operands) -> int:
    assert operands[0] is not None  # the op table: never left out
    return operands[0]


def _two(operands: Operands) -> tuple[int, int, int | None, int | None]:
    """Return the first two operands, which ops of two or more always have, and those after them."""
    assert operands[0] is not None
    assert operands[1] is not None
    third, fourth, *_ = (*operands[2:], None, None)
    return operands[0], operands[1], third, fourth


def _last(shape: tuple[int, ...]) -> tuple[int, ...]:
    return (len(shape) - 1,)


def _gemm(recipe: Recipe, x: int, weight: int, bias: int | None) -> int:
    """Compute x (..., K) @ weight (N, K).T + bias as (rows, N)."""
    wide, (n, inner) = recipe.shapes[x], recipe.shapes[weight]
    rows = prod(wide[:-1])
    flat = recipe.step("reshape", [x], (rows, inner), (rows, inner))
    named = {} if bias is None else {"c": bias}
    return recipe.step("gemm", [flat, weight], (rows, n), named=named, bTranspose=True)


def _activated(recipe: Recipe, x: int, kind: str) -> int:
    shape = recipe.shapes[x]
    match kind:
        case "gelu" | "tanh":
            return recipe.step(kind, [x], shape)
        case "relu":  # not WebNN's, which may turn NaN into 0
            return _at_least(recipe, x, 0)
        case "silu":  # not by WebNN's sigmoid: a runtime's may be off by 1e-7 of 1, however small
            c = _at_least(recipe, x, -80)  # below, exp overflows float32 and the value is 0
            exp = recipe.step("exp", [recipe.step("neg", [c], shape)], shape)
            return recipe.step(
                "div", [c, recipe.step("add", [exp, recipe.number(1)], shape)], shape
            )
        case "gelu_tanh":  # x * sigmoid(2u); past 10 it is x or 0
            c = recipe.step("clamp", [x], shape, minValue=-10.0, maxValue=10.0)
            square = recipe.step("mul", [c, c], shape)
            u = recipe.step("mul", [square, recipe.number(0.044715)], shape)
            u = recipe.step("mul", [recipe.step("add", [u, recipe.number(1)], shape), c], shape)
            u = recipe.step("mul", [u, recipe.number(-1.5957691216)], shape)
            below = recipe.step("add", [recipe.step("exp", [u], shape), recipe.number(1)], shape)
            return recipe.step("div", [_at_least(recipe, x, -10), below], shape)
        case _:
            return x


def _at_least(recipe: Recipe, x: int, minimum: float) -> int:
    """Compute the maximum; NaN stays, which a clamp may turn into its limit."""
    shape, limit = recipe.shapes[x], recipe.number(minimum)
    return recipe.step("where", [recipe.step("lesser", [x, limit], shape), limit, x], shape)


def _ends(recipe: Recipe, call: Call, lengths: int) -> int:
    """Compute how many tokens each text has in this run, at least 1, as floats (B, 1, 1)."""
    assert call.operands[0] is not None
    dim, flat = call.operands[0].shape[1], recipe.shapes[lengths]
    shape = (*flat, 1, 1)
    counts = recipe.step("cast", [lengths], flat, "float32")
    counts = recipe.step("clamp", [counts], flat, minValue=1.0, maxValue=float(2**32))
    counts = recipe.step("reshape", [counts], shape, shape)
    # A length may exceed this run's actual size, and what is there is padding.
    limit = recipe.input(dim_input(dim), (1,)) if isinstance(dim, Dim) else recipe.number(dim)
    fewer = recipe.step("lesser", [counts, limit], shape)
    return recipe.step("where", [fewer, counts, limit], shape)


def _begins(recipe: Recipe, skipped: int | None, end: int) -> int:
    """Compute the first token of each text that counts (at most its last), floats (B, 1, 1)."""
    if skipped is None:
        return recipe.number(0)
    wide = recipe.shapes[end]
    begin = recipe.step("cast", [skipped], recipe.shapes[skipped], "float32")
    begin = recipe.step("reshape", [begin], wide, wide)
    last = recipe.step("sub", [end, recipe.number(1)], wide)
    fewer = recipe.step("lesser", [begin, last], wide)
    return recipe.step("where", [fewer, begin, last], wide)
