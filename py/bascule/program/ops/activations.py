"""Activation functions; in numpy they are exact in float64 and fast in float32."""

from __future__ import annotations

from collections.abc import Mapping
from math import erfc, pi

from bascule.base.arrays import Array, np
from bascule.program.ops.table import Op, inputs, need
from bascule.program.program import Attribute, Shape

ACTIVATIONS = ("none", "gelu", "relu", "tanh", "silu", "gelu_tanh")

# Numbers of a block: it and two of scratch stay in a core's cache over all passes.
_BLOCK = 1 << 14
# ln(erfc(a / sqrt(2)) / 2) for a from 0 to 6, highest power first: a minimax fit, weighted so that
# a * exp(polynomial) is within 1e-8. Past 6 it keeps falling, to -72 at the clamp.
_LOG_TAIL = (
    -1.362796693e-06,
    2.004680435e-05,
    -9.438316955e-05,
    -1.794656234e-04,
    5.008051209e-03,
    -3.646695597e-02,
    -3.182715503e-01,
    -7.978888960e-01,
    -6.931471027e-01,
)
_CLAMP = 10.0


def _activate(shapes: tuple[Shape | None, ...], attributes: Mapping[str, Attribute]) -> Shape:
    need(attributes["kind"] in ACTIVATIONS, "activate", str(ACTIVATIONS), attributes)
    return shapes[0] or ()


def activate(x: Array, *, kind: str, out: Array | None = None) -> Array:
    """none, gelu (exact, Hendrycks & Gimpel 2016), relu, tanh, silu or gelu_tanh (approximate).

    The result is `out` if given (it may be x), else a new array; x itself for "none".
    """
    match kind:
        case "gelu":
            return _gelu(x, out)
        case "relu":
            return np.maximum(x, 0, out=out)
        case "tanh":
            return np.tanh(x, out=out)
        case "silu":
            c = np.maximum(x, -80)  # below, exp overflows float32 and the value is 0
            return np.divide(c, 1 + np.exp(-c), out=out)
        case "gelu_tanh":
            return _gelu_tanh(x, out)
        case _:
            return x


def _gelu_tanh(x: Array, out: Array | None) -> Array:
    """x * (1 + tanh(sqrt(2 / pi) * (x + 0.044715 * x^3))) / 2, as x * sigmoid(2 ...)."""
    c = np.clip(x, -_CLAMP, _CLAMP)  # past them it is 0 and x, and x^3 might overflow
    c *= 1 + 0.044715 * c * c
    c *= -2 * (2 / pi) ** 0.5
    return np.divide(np.maximum(x, -_CLAMP), 1 + np.exp(c), out=out)


def _gelu(x: Array, out: Array | None) -> Array:
    """x * P(X <= x), X normally distributed, as max(x, 0) - |x| * P(X > |x|)."""
    y = np.empty(x.shape, x.dtype) if out is None else out
    if x.dtype != np.float32:
        y[...] = _gelu_exact(x)
        return y
    if not (x.flags.c_contiguous and y.flags.c_contiguous):
        y[...] = _gelu(np.ascontiguousarray(x), None)
        return y
    source, target = x.reshape(-1), y.reshape(-1)
    scratch = np.empty((2, min(_BLOCK, x.size)), np.float32)
    for start in range(0, x.size, _BLOCK):
        block = source[start : start + _BLOCK]
        magnitude, tail = scratch[:, : block.size]
        np.abs(block, out=magnitude)
        np.minimum(magnitude, _CLAMP, out=magnitude)
        np.multiply(magnitude, _LOG_TAIL[0], out=tail)
        for coefficient in _LOG_TAIL[1:-1]:
            tail += coefficient
            tail *= magnitude
        tail += _LOG_TAIL[-1]
        np.exp(tail, out=tail)
        tail *= magnitude
        result = target[start : start + _BLOCK]
        np.maximum(block, 0, out=result)
        result -= tail
    return y


def _gelu_exact(x: Array) -> Array:
    """By the standard library, value by value: slow, for reference only."""
    values = [v * 0.5 * erfc(-v * 0.5**0.5) for v in x.ravel().tolist()]
    return np.array(values, dtype=x.dtype).reshape(x.shape)


ROWS = (Op("activate", inputs("x"), {"kind": str}, "y = activation(x)", _activate, numpy=activate),)
