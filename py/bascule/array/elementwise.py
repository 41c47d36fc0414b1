"""The standard's elementwise functions, from the table of rows."""

from __future__ import annotations

from typing import Any

from bascule.array import build, dtypes
from bascule.array.array import Array
from bascule.array.build import elementwise

_UNARY = [
    "abs",
    "acos",
    "acosh",
    "asin",
    "asinh",
    "atan",
    "atanh",
    "bitwise_invert",
    "ceil",
    "cos",
    "cosh",
    "exp",
    "expm1",
    "floor",
    "isfinite",
    "isinf",
    "isnan",
    "log",
    "log1p",
    "log2",
    "log10",
    "logical_not",
    "negative",
    "positive",
    "reciprocal",
    "round",
    "sign",
    "signbit",
    "sin",
    "sinh",
    "square",
    "sqrt",
    "tan",
    "tanh",
    "trunc",
]
_BINARY = [
    "add",
    "atan2",
    "bitwise_and",
    "bitwise_left_shift",
    "bitwise_or",
    "bitwise_right_shift",
    "bitwise_xor",
    "copysign",
    "divide",
    "equal",
    "floor_divide",
    "greater",
    "greater_equal",
    "hypot",
    "less",
    "less_equal",
    "logaddexp",
    "logical_and",
    "logical_or",
    "logical_xor",
    "maximum",
    "minimum",
    "multiply",
    "nextafter",
    "not_equal",
    "pow",
    "remainder",
    "subtract",
]
NAMES = (*_UNARY, *_BINARY)


def _unary(name: str) -> Any:
    def function(x: Any, /) -> Array:
        return Array(elementwise(name, x))

    return _named(function, name, f"{name} of each element.")


def _binary(name: str) -> Any:
    def function(x1: Any, x2: Any, /) -> Array:
        return Array(elementwise(name, x1, x2))

    return _named(function, name, f"{name} of the elements of two arrays, broadcast together.")


def _named(function: Any, name: str, text: str) -> Any:
    function.__name__ = function.__qualname__ = name
    function.__doc__ = text.replace("_", " ")
    return function


FUNCTIONS: dict[str, Any] = {
    **{name: _unary(name) for name in _UNARY},
    **{name: _binary(name) for name in _BINARY},
}


def clip(x: Array, /, min: Any = None, max: Any = None) -> Array:
    """Limit each element to at least `min` and at most `max`; NaN stays NaN."""
    node = build.node_of(x, "xp.clip")
    result = node
    for bound, op in ((min, "maximum"), (max, "minimum")):
        if bound is None:
            continue
        given = getattr(bound, "_node", None)
        if given is None:
            dtypes.for_scalar(bound, node.dtype, "xp.clip")
            given = build.number(bound, node.dtype, node.device)
        result = build.row(op, [result, build.cast(given, node.dtype)])
    return Array(result if result is not node else build.row("copy", [node]))


def conj(x: Array, /) -> Array:
    """Return x: there are no complex numbers."""
    return Array(build.row("copy", [build.node_of(x, "xp.conj")]))


def real(x: Array, /) -> Array:
    """Return x: there are no complex numbers."""
    return Array(build.row("copy", [build.node_of(x, "xp.real")]))


def imag(x: Array, /) -> Array:
    """Return zeros: there are no complex numbers."""
    node = build.node_of(x, "xp.imag")
    return Array(build.broadcast(build.number(0, node.dtype, node.device), node.shape))


def where(condition: Array, x1: Any, x2: Any, /) -> Array:
    """Return x1 where the condition is true, else x2."""
    chosen = build.cast(build.node_of(condition, "xp.where"), dtypes.named("bool"))
    if build.is_number(x1) and build.is_number(x2):
        dtype = dtypes.result_type(dtypes.of_number(x1), dtypes.of_number(x2))
        pair = [build.number(value, dtype, chosen.device) for value in (x1, x2)]
    else:
        pair = build.promoted_nodes("xp.where", (x1, x2))
    return Array(build.row("where", [*pair, chosen]))
