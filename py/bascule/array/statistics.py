"""Reductions and running sums: each one kernel, fused with the expression before it."""

# pyright: reportPrivateUsage=false
# An array's node is private to this package.

from __future__ import annotations

from math import prod
from typing import Any

from bascule.array import build, dtypes
from bascule.array.array import Array
from bascule.array.dtypes import DType
from bascule.array.errors import DTypeError, ShapeError
from bascule.array.graph import Node

Axis = int | tuple[int, ...] | None


def sum(x: Array, /, *, axis: Axis = None, dtype: Any = None, keepdims: bool = False) -> Array:
    """Return the sum over axes, in float32 or an integer type of at least 32 bits."""
    return _reduced("sum", x, axis, keepdims, _wide(x, dtype, "xp.sum"))


def prod_(x: Array, /, *, axis: Axis = None, dtype: Any = None, keepdims: bool = False) -> Array:
    """Return the product over axes, in float32 or an integer type of at least 32 bits."""
    return _reduced("prod", x, axis, keepdims, _wide(x, dtype, "xp.prod"))


def max(x: Array, /, *, axis: Axis = None, keepdims: bool = False) -> Array:
    """Return the largest element over axes; NaN if there is one."""
    return _extreme("max", x, axis, keepdims)


def min(x: Array, /, *, axis: Axis = None, keepdims: bool = False) -> Array:
    """Return the smallest element over axes; NaN if there is one."""
    return _extreme("min", x, axis, keepdims)


def any(x: Array, /, *, axis: Axis = None, keepdims: bool = False) -> Array:
    """Return whether an element over axes is nonzero."""
    return _reduced("any", x, axis, keepdims, dtypes.named("bool"))


def all(x: Array, /, *, axis: Axis = None, keepdims: bool = False) -> Array:
    """Return whether all elements over axes are nonzero."""
    return _reduced("all", x, axis, keepdims, dtypes.named("bool"))


def mean(x: Array, /, *, axis: Axis = None, keepdims: bool = False) -> Array:
    """Return the mean over axes, summed in float32."""
    node = _floats(x, "xp.mean")
    total = _sum_wide(node, axis, keepdims, "xp.mean")
    n = build.number(_count(node, axis), total.dtype, node.device)
    return Array(build.cast(build.row("divide", [total, n]), node.dtype))


def var(
    x: Array, /, *, axis: Axis = None, correction: float = 0.0, keepdims: bool = False
) -> Array:
    """Return the variance over axes, divided by the count less `correction`."""
    node = _floats(x, "xp.var")
    return Array(build.cast(_variance(node, axis, correction, keepdims), node.dtype))


def std(
    x: Array, /, *, axis: Axis = None, correction: float = 0.0, keepdims: bool = False
) -> Array:
    """Return the standard deviation over axes, divided by the count less `correction`."""
    node = _floats(x, "xp.std")
    result = build.row("sqrt", [_variance(node, axis, correction, keepdims)])
    return Array(build.cast(result, node.dtype))


def argmax(x: Array, /, *, axis: int | None = None, keepdims: bool = False) -> Array:
    """Return the index of the first largest element, or of the first NaN, as int32."""
    return _best("max", x, axis, keepdims)


def argmin(x: Array, /, *, axis: int | None = None, keepdims: bool = False) -> Array:
    """Return the index of the first smallest element, or of the first NaN, as int32."""
    return _best("min", x, axis, keepdims)


def count_nonzero(x: Array, /, *, axis: Axis = None, keepdims: bool = False) -> Array:
    """Return how many elements over axes are nonzero, as int32."""
    flags = build.cast(build.node_of(x, "xp.count_nonzero"), dtypes.named("bool"))
    return _reduced("sum", Array(flags), axis, keepdims, dtypes.named("int32"))


def cumulative_sum(
    x: Array, /, *, axis: int | None = None, dtype: Any = None, include_initial: bool = False
) -> Array:
    """Return running sums along an axis; `include_initial` puts a 0 before them."""
    return _running("sum", x, axis, dtype, include_initial)


def cumulative_prod(
    x: Array, /, *, axis: int | None = None, dtype: Any = None, include_initial: bool = False
) -> Array:
    """Return running products along an axis; `include_initial` puts a 1 before them."""
    return _running("prod", x, axis, dtype, include_initial)


def _wide(x: Any, dtype: Any, where: str) -> DType:
    """Return the dtype of a sum: `dtype`, or integers of at least 32 bits."""
    node = build.node_of(x, where)
    if dtype is not None:
        return dtypes.checked(dtype)
    if node.dtype.kind == "f":
        return node.dtype
    return dtypes.named("uint32" if node.dtype.kind == "u" else "int32")


def _reduced(name: str, x: Any, axis: Axis, keepdims: bool, dtype: DType) -> Array:
    node = build.node_of(x, f"xp.{name}")
    axes = build.axes_of(axis, len(node.shape), f"xp.{name}")
    node = build.cast(node, dtype)
    result = node if not axes else build.reduce("reduce", node, name, axes, dtype)
    return Array(_kept(result, node.shape, axes) if keepdims else result)


def _kept(found: Node, shape: tuple[int, ...], axes: tuple[int, ...]) -> Node:
    return build.reshape(found, tuple(1 if a in axes else n for a, n in enumerate(shape)))


def _extreme(name: str, x: Any, axis: Axis, keepdims: bool) -> Array:
    node = build.node_of(x, f"xp.{name}")
    if node.dtype.kind == "b":
        raise DTypeError(f"xp.{name}", "numbers", "dtype bool")
    axes = build.axes_of(axis, len(node.shape), f"xp.{name}")
    if not prod(node.shape[a] for a in axes):
        raise ShapeError(f"xp.{name}", "something to choose from", f"shape {node.shape}")
    return _reduced(name, x, axis, keepdims, node.dtype)


def _floats(x: Any, where: str) -> Node:
    node = build.node_of(x, where)
    return node if node.dtype.kind == "f" else build.cast(node, dtypes.named("float32"))


def _sum_wide(node: Node, axis: Axis, keepdims: bool, where: str) -> Node:
    del where
    wide = Array(build.cast(node, dtypes.named("float32")))
    return _reduced("sum", wide, axis, keepdims, dtypes.named("float32"))._node


def _count(node: Node, axis: Axis) -> int:
    return prod(node.shape[a] for a in build.axes_of(axis, len(node.shape), "xp.mean"))


def _variance(node: Node, axis: Axis, correction: float, keepdims: bool) -> Node:
    wide = build.cast(node, dtypes.named("float32"))
    count = build.number(_count(node, axis), wide.dtype, node.device)
    centre = build.row("divide", [_sum_wide(node, axis, True, "xp.var"), count])
    squares = build.row("square", [build.row("subtract", [wide, centre])])
    total = _sum_wide(squares, axis, keepdims, "xp.var")
    n = _count(node, axis) - correction
    return build.row("divide", [total, build.number(n if n > 0 else 0, wide.dtype, node.device)])


def _best(name: str, x: Any, axis: int | None, keepdims: bool) -> Array:
    where = f"xp.arg{name}"
    node = build.node_of(x, where)
    if node.dtype.kind == "b":
        node = build.cast(node, dtypes.named("int32"))
    axes = build.axes_of(axis, len(node.shape), where)
    if not prod(node.shape[a] for a in axes):
        raise ShapeError(where, "something to choose from", f"shape {node.shape}")
    if not axes:
        return Array(build.number(0, dtypes.named("int32"), node.device))
    result = build.reduce("best", node, name, axes, dtypes.named("int32"))
    return Array(_kept(result, node.shape, axes) if keepdims else result)


def _running(name: str, x: Any, axis: int | None, dtype: Any, initial: bool) -> Array:
    from bascule.array.manipulation import concat

    where = f"xp.cumulative_{name}"
    node = build.node_of(x, where)
    if axis is None and len(node.shape) != 1:
        raise ShapeError(where, "an axis", f"None for shape {node.shape}")
    at = build.axis_of(axis or 0 if axis is None else axis, len(node.shape), where)
    node = build.cast(node, _wide(x, dtype, where))
    order = [a for a in range(len(node.shape)) if a != at] + [at]
    turned = build.permute(node, order)
    last = len(order) - 1
    result = Node(node.device, "scan", (turned,), turned.shape, node.dtype, (name, last))
    result = build.permute(result, [order.index(a) for a in range(len(order))])
    if initial:
        shape = tuple(1 if a == at else n for a, n in enumerate(result.shape))
        one = build.number(0 if name == "sum" else 1, result.dtype, node.device)
        return concat([Array(build.broadcast(one, shape)), Array(result)], axis=at)
    return Array(result)
