"""Products of arrays: matrices of float32 by the op table's kernels, others as fused sums."""

from __future__ import annotations

from collections.abc import Sequence
from math import prod
from typing import Any

from bascule.array import build, dtypes
from bascule.array.array import Array
from bascule.array.errors import DTypeError, ShapeError
from bascule.array.graph import Node, Strided, dense


def matmul(x1: Array, x2: Array, /) -> Array:
    """x1 (..., M, K) @ x2 (..., K, N); an operand of one axis is a row or a column."""
    a, b = _numbers("matmul", x1, x2)
    if not a.shape or not b.shape:
        raise ShapeError("matmul", "arrays with axes", f"{a.shape} and {b.shape}")
    row, column = len(a.shape) == 1, len(b.shape) == 1
    a = build.reshape(a, (1, *a.shape)) if row else a
    b = build.reshape(b, (*b.shape, 1)) if column else b
    if a.shape[-1] != b.shape[-2]:
        expected = f"x1 (..., M, {a.shape[-1]}) and x2 (..., {a.shape[-1]}, N)"
        raise ShapeError("matmul", expected, f"{x1.shape} and {x2.shape}")
    found = _product(a, b)
    shape = list(found.shape)
    if row:
        del shape[-2]
    if column:
        del shape[-1]
    return Array(build.reshape(found, tuple(shape)))


def _numbers(where: str, *operands: Any) -> list[Node]:
    nodes = [build.node_of(each, f"xp.{where}") for each in operands]
    dtype = dtypes.promoted(nodes[0].dtype, nodes[1].dtype)
    if dtype.kind == "b":
        raise DTypeError(f"xp.{where}", "numbers", "dtype bool")
    build.one_device(f"xp.{where}", nodes)
    return [build.cast(node, dtype) for node in nodes]


def _product(a: Node, b: Node) -> Node:
    """Matrices of two nodes of one dtype, leading axes broadcast."""
    batch = build.broadcast_shape("xp.matmul", [a.shape[:-2], b.shape[:-2]])
    rows, inner, columns = a.shape[-2], a.shape[-1], b.shape[-1]
    shape = (*batch, rows, columns)
    if a.dtype.name == "float32" and prod(shape) and inner:
        shared = prod(b.shape[:-2]) == 1
        b = b if shared else build.broadcast(b, (*batch, inner, columns))
        shapes = (
            (prod(batch), rows, inner),
            (inner, columns) if shared else (prod(batch), inner, columns),
        )
        pair = [_dense(build.broadcast(a, (*batch, rows, inner))), _dense(b)]
        found = Node(a.device, "matmul", pair, (prod(batch), rows, columns), a.dtype, shapes)
        return build.reshape(found, shape)
    return _summed_product(a, b)


def _summed_product(a: Node, b: Node) -> Node:
    """The product as one fused sum over (..., M, N, K): for types that no kernel multiplies."""
    wide = dtypes.named("float32") if a.dtype.kind == "f" else a.dtype
    turned = [*range(len(b.shape) - 2), len(b.shape) - 1, len(b.shape) - 2]
    left = build.reshape(a, (*a.shape[:-1], 1, a.shape[-1]))
    b = build.permute(b, turned)
    right = build.reshape(b, (*b.shape[:-2], 1, *b.shape[-2:]))
    pair = [build.cast(each, wide) for each in (left, right)]
    products = build.row("multiply", pair)
    axis = len(products.shape) - 1
    return build.cast(build.reduce("reduce", products, "sum", (axis,), wide), a.dtype)


def _dense(node: Node) -> Node:
    """A node whose own memory holds all the elements row-major, whatever its shape."""
    base, lies = build.layout(node)
    if base.size == node.size and lies == Strided(0, dense(node.shape)):
        return base
    return Node(node.device, "copy", (node,), node.shape, node.dtype)


def matrix_transpose(x: Array, /) -> Array:
    """The matrices of the last two axes, transposed."""
    return x.mT


def outer(x1: Array, x2: Array, /) -> Array:
    """x1[i] * x2[j]."""
    a, b = _numbers("linalg.outer", x1, x2)
    if len(a.shape) != 1 or len(b.shape) != 1:
        raise ShapeError("xp.linalg.outer", "two arrays of one axis", f"{a.shape} and {b.shape}")
    return Array(build.row("multiply", [build.reshape(a, (*a.shape, 1)), b]))


def vecdot(x1: Array, x2: Array, /, *, axis: int = -1) -> Array:
    """The sum of products along an axis of both, broadcast."""
    a, b = _numbers("vecdot", x1, x2)
    if not a.shape or not b.shape or not -min(len(a.shape), len(b.shape)) <= axis < 0:
        raise ShapeError("xp.vecdot", "a negative axis that both have", f"axis {axis}")
    if a.shape[axis] != b.shape[axis]:
        raise ShapeError("xp.vecdot", f"{a.shape[axis]} elements on that axis", str(b.shape))
    a, b = (_to_last(each, axis) for each in (a, b))
    return Array(_sum_of_products(a, b))


def _to_last(node: Node, axis: int) -> Node:
    at = axis + len(node.shape)
    return build.permute(node, [*(i for i in range(len(node.shape)) if i != at), at])


def _sum_of_products(a: Node, b: Node) -> Node:
    wide = dtypes.named("float32") if a.dtype.kind == "f" else a.dtype
    products = build.row("multiply", [build.cast(a, wide), build.cast(b, wide)])
    axis = len(products.shape) - 1
    return build.cast(build.reduce("reduce", products, "sum", (axis,), wide), a.dtype)


def tensordot(
    x1: Array, x2: Array, /, *, axes: int | tuple[Sequence[int], Sequence[int]] = 2
) -> Array:
    """Sum of products over pairs of axes: the last n of x1 with the first n of x2, or as listed."""
    a, b = _numbers("tensordot", x1, x2)
    if isinstance(axes, int):
        first = list(range(len(a.shape) - axes, len(a.shape)))
        second = list(range(axes))
    else:
        first = [build.axis_of(i, len(a.shape), "xp.tensordot") for i in axes[0]]
        second = [build.axis_of(i, len(b.shape), "xp.tensordot") for i in axes[1]]
    sizes = [a.shape[i] for i in first]
    if (
        any(i < 0 for i in first)
        or len(second) > len(b.shape)
        or sizes != [b.shape[i] for i in second]
    ):
        raise ShapeError("xp.tensordot", f"axes of the sizes {sizes}", f"{x2.shape}, axes {axes}")
    free_a = [i for i in range(len(a.shape)) if i not in first]
    free_b = [i for i in range(len(b.shape)) if i not in second]
    shape = (*(a.shape[i] for i in free_a), *(b.shape[i] for i in free_b))
    inner = prod(sizes)
    a = build.reshape(
        build.permute(a, [*free_a, *first]), (prod(a.shape[i] for i in free_a), inner)
    )
    b = build.reshape(
        build.permute(b, [*second, *free_b]), (inner, prod(b.shape[i] for i in free_b))
    )
    return Array(build.reshape(_product(a, b), shape))
