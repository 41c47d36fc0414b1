"""Normalisation over the last axis."""

from __future__ import annotations

from collections.abc import Mapping

from bascule.arrays import Array, np
from bascule.program.ops.table import Op, first_two, need, same_shape
from bascule.program.program import Attribute, Shape


def _layer_norm(shapes: tuple[Shape | None, ...], _: Mapping[str, Attribute]) -> Shape:
    (x, weight), (bias, residual) = first_two(shapes, "layer_norm"), shapes[2:]
    need(weight == bias == (x[-1],), "layer_norm", "weight (C) and bias (C)", shapes)
    need(residual is None or residual == x, "layer_norm", "residual shaped like x", residual)
    return x


def _rms_norm(shapes: tuple[Shape | None, ...], _: Mapping[str, Attribute]) -> Shape:
    x, weight = first_two(shapes, "rms_norm")
    need(weight == (x[-1],), "rms_norm", "weight (C)", shapes)
    return x


def layer_norm(
    x: Array, weight: Array, bias: Array, residual: Array | None = None, *, eps: float
) -> Array:
    """Normalise over the last axis, then scale and shift (Ba et al. 2016)."""
    s = x if residual is None else x + residual
    centred = s - s.mean(axis=-1, keepdims=True)
    variance = np.mean(centred * centred, axis=-1, keepdims=True)
    return centred / np.sqrt(variance + eps) * weight + bias


def rms_norm(x: Array, weight: Array, *, eps: float) -> Array:
    """y = x / sqrt(mean(x^2) + eps) * weight over the last axis (Zhang & Sennrich 2019)."""
    return x / np.sqrt(np.mean(x * x, axis=-1, keepdims=True) + eps) * weight


def l2_normalise(x: Array, *, eps: float) -> Array:
    """y = x / max(|x|, eps) over the last axis."""
    return x / np.maximum(np.sqrt((x * x).sum(axis=-1, keepdims=True)), x.dtype.type(eps))


ROWS = (
    Op(
        "layer_norm",
        ("x", "weight", "bias", "residual?"),
        {"eps": float},
        "s = x + residual; y = (s - mean(s)) / sqrt(var(s) + eps) * weight + bias over C",
        _layer_norm,
        numpy=layer_norm,
    ),
    Op(
        "rms_norm",
        ("x", "weight"),
        {"eps": float},
        "y = x / sqrt(mean(x^2) + eps) * weight over C",
        _rms_norm,
        numpy=rms_norm,
    ),
    Op(
        "l2_normalise",
        ("x",),
        {"eps": float},
        "y = x / max(|x|, eps) over C",
        same_shape,
        numpy=l2_normalise,
    ),
)
