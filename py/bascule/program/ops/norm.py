"""Normalization over the last axis."""

from __future__ import annotations

from collections.abc import Mapping

from bascule.base.arrays import Array, np
from bascule.program.ops.table import Op, Operand, first_two, inputs, need, same_shape
from bascule.program.program import Attribute, Shape

_SCALE = (Operand("weight", "parameter"),)


def _layer_norm(shapes: tuple[Shape | None, ...], _: Mapping[str, Attribute]) -> Shape:
    (x, weight), (bias, residual) = first_two(shapes, "layer_norm"), shapes[2:]
    need(weight == bias == (x[-1],), "layer_norm", "weight (C) and bias (C)", shapes)
    need(residual is None or residual == x, "layer_norm", "residual shaped like x", residual)
    return x


def _rms_norm(shapes: tuple[Shape | None, ...], _: Mapping[str, Attribute]) -> Shape:
    x, weight = first_two(shapes, "rms_norm")
    columns, run = x[-1], weight[0]
    fits = len(weight) == 1 and isinstance(columns, int) and isinstance(run, int)
    need(fits, "rms_norm", "x (..., C) and weight (D)", shapes)
    assert isinstance(columns, int)
    assert isinstance(run, int)
    need(run > 0 and columns % run == 0, "rms_norm", "weight (D) whose D divides C", shapes)
    return x


def layer_norm(
    x: Array, weight: Array, bias: Array, residual: Array | None = None, *, eps: float
) -> Array:
    """Normalize over the last axis, then scale and shift (Ba et al. 2016)."""
    s = x if residual is None else x + residual
    centred = s - s.mean(axis=-1, keepdims=True)
    variance = np.mean(centred * centred, axis=-1, keepdims=True)
    return centred / np.sqrt(variance + eps) * weight + bias


def rms_norm(x: Array, weight: Array, *, eps: float, plus: float = 0.0) -> Array:
    """y = x / sqrt(mean(x^2) + eps) * (weight + plus) in runs of D (Zhang & Sennrich 2019).

    x (..., n * D), weight (D).
    """
    runs = x.reshape(*x.shape[:-1], -1, weight.shape[0])
    y = runs / np.sqrt(np.mean(runs * runs, axis=-1, keepdims=True) + eps) * (weight + plus)
    return y.reshape(x.shape)


def l2_normalise(x: Array, *, eps: float) -> Array:
    """y = x / max(|x|, eps) over the last axis."""
    return x / np.maximum(np.sqrt((x * x).sum(axis=-1, keepdims=True)), x.dtype.type(eps))


def softmax(x: Array) -> Array:
    """y = exp(x - max(x)) / sum(exp(x - max(x))) over the last axis."""
    y = np.exp(x - x.max(axis=-1, keepdims=True))
    y /= y.sum(axis=-1, keepdims=True)
    return y


ROWS = (
    Op(
        "layer_norm",
        (*inputs("x"), *_SCALE, Operand("bias", "parameter"), *inputs("residual?")),
        {"eps": float},
        "s = x + residual; y = (s - mean(s)) / sqrt(var(s) + eps) * weight + bias over C",
        _layer_norm,
        numpy=layer_norm,
    ),
    Op(
        "rms_norm",
        (*inputs("x"), *_SCALE),
        {"eps": float, "plus": float},
        "y = x / sqrt(mean(x^2) + eps) * (weight + plus) over each run of D, the weight's size",
        _rms_norm,
        numpy=rms_norm,
        defaults={"plus": 0.0},
    ),
    Op(
        "l2_normalise",
        inputs("x"),
        {"eps": float},
        "y = x / max(|x|, eps) over C",
        same_shape,
        numpy=l2_normalise,
    ),
    Op(
        "softmax",
        inputs("x"),
        {},
        "y = exp(x - max(x)) / sum(exp(x - max(x))) over C",
        same_shape,
        numpy=softmax,
    ),
)
