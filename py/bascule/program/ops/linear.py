"""Products: linear layers, with what is fused with them, and batched matrix products."""

from __future__ import annotations

from collections.abc import Mapping
from math import prod

from bascule.base.arrays import Array, np
from bascule.errors import InputError
from bascule.program.blocks import BlockMatrix
from bascule.program.ops import samples
from bascule.program.ops.activations import ACTIVATIONS, activate
from bascule.program.ops.table import Op, Operand, first_two, inputs, need
from bascule.program.program import Attribute, Call, Shape

_COLUMNS = 72  # of a trial: past the edge of a tile


def _linear(shapes: tuple[Shape | None, ...], attributes: Mapping[str, Attribute]) -> Shape:
    (x, weight), (bias, residual) = first_two(shapes, "linear"), shapes[2:]
    need(len(weight) == 2 and x[-1] == weight[1], "linear", "x (..., K) and weight (N, K)", shapes)
    need(bias is None or bias == (weight[0],), "linear", "bias (N)", bias)
    need(attributes["activation"] in ACTIVATIONS, "linear", str(ACTIVATIONS), attributes)
    y = (*x[:-1], weight[0])
    need(residual is None or residual == y, "linear", f"residual {y}", residual)
    return y


def _gated_linear(shapes: tuple[Shape | None, ...], attributes: Mapping[str, Attribute]) -> Shape:
    x, weight = first_two(shapes, "gated_linear")
    outer = weight[0]
    if len(weight) != 2 or x[-1] != weight[1] or not isinstance(outer, int) or outer % 2:
        raise InputError("op gated_linear", "x (..., K) and weight (2 * N, K)", str(shapes))
    need(attributes["activation"] in ACTIVATIONS, "gated_linear", str(ACTIVATIONS), attributes)
    return (*x[:-1], outer // 2)


def _matmul(shapes: tuple[Shape | None, ...], attributes: Mapping[str, Attribute]) -> Shape:
    x, y = first_two(shapes, "matmul")
    expected = "x (..., M, K), y (..., K, N) or transposed (..., N, K), leading axes alike or none"
    need(min(len(x), len(y)) > 1, "matmul", expected, shapes)
    inner, cols = (-1, -2) if attributes["transposed"] else (-2, -1)
    need(x[-1] == y[inner] and y[:-2] in ((), x[:-2]), "matmul", expected, shapes)
    return (*x[:-1], y[cols])


def linear(
    x: Array,
    weight: Array | BlockMatrix,
    bias: Array | None = None,
    residual: Array | None = None,
    *,
    activation: str = "none",
) -> Array:
    """y = activation(x @ weight.T + bias) + residual. Blocks are dequantized tile by tile."""
    # One flat product: numpy passes a 2-d one to BLAS whole, an n-d one matrix by matrix.
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


def matmul(x: Array, y: Array, *, transposed: bool = False) -> Array:
    """x (..., M, K) @ y (..., K, N), or (..., N, K) if transposed, matrix by matrix."""
    return x @ (y.swapaxes(-1, -2) if transposed else y)


def _products(call: Call) -> int:
    x, weight = call.operands[:2]
    assert x is not None
    assert weight is not None
    return prod(x.limits) * weight.limits[0]


def _inner_products(call: Call) -> int:
    x = call.operands[0]
    assert x is not None
    return prod(x.limits) * call.result.limits[-1]


ROWS = (
    Op(
        "linear",
        (
            Operand("x", "input", sample=samples.before_product),
            Operand("weight", "weight", cut=(0, _COLUMNS)),
            Operand("bias", "parameter", optional=True, by_row=True, cut=(0, _COLUMNS)),
            Operand("residual", "input", optional=True, cut=(-1, _COLUMNS)),
        ),
        {"activation": str},
        "y = activation(x @ weight.T + bias) + residual",
        _linear,
        numpy=linear,
        multiply_adds=_products,
    ),
    Op(
        "gated_linear",
        (
            Operand("x", "input", sample=samples.before_product),
            Operand("weight", "weight", cut=(0, 2 * _COLUMNS)),
        ),
        {"activation": str},
        "y = activation(x @ weight[:N].T) * (x @ weight[N:].T)",
        _gated_linear,
        numpy=gated_linear,
        stacked=2,
        multiply_adds=_products,
    ),
    Op(
        "matmul",
        inputs("x", "y"),
        {"transposed": bool},
        "z = x @ y, or x @ y.T where y is transposed, for each of the leading axes; a y without "
        "those serves all of x",
        _matmul,
        numpy=matmul,
        defaults={"transposed": False},
        multiply_adds=_inner_products,
    ),
)
