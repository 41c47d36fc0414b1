"""Products of matrices as nodes: of float32 by the op table's kernels, others as fused sums."""

from __future__ import annotations

from math import prod
from typing import Any

from bascule.array import build, dtypes
from bascule.array.errors import DTypeError, ShapeError
from bascule.array.graph import Node, Strided, dense


def multiplied(x1: Any, x2: Any) -> Node:
    """x1 (..., M, K) @ x2 (..., K, N); an operand of one axis is a row or a column."""
    a, b = numbers("matmul", x1, x2)
    if not a.shape or not b.shape:
        raise ShapeError("matmul", "arrays with axes", f"{a.shape} and {b.shape}")
    row, column = len(a.shape) == 1, len(b.shape) == 1
    a = build.reshape(a, (1, *a.shape)) if row else a
    b = build.reshape(b, (*b.shape, 1)) if column else b
    if a.shape[-1] != b.shape[-2]:
        expected = f"x1 (..., M, {a.shape[-1]}) and x2 (..., {a.shape[-1]}, N)"
        raise ShapeError("matmul", expected, f"{x1.shape} and {x2.shape}")
    found = product(a, b)
    shape = list(found.shape)
    if row:
        del shape[-2]
    if column:
        del shape[-1]
    return build.reshape(found, tuple(shape))


def numbers(where: str, *operands: Any) -> list[Node]:
    """Two arrays of numbers as nodes of one dtype on one device."""
    nodes = [build.node_of(each, f"xp.{where}") for each in operands]
    dtype = dtypes.promoted(nodes[0].dtype, nodes[1].dtype)
    if dtype.kind == "b":
        raise DTypeError(f"xp.{where}", "numbers", "dtype bool")
    build.one_device(f"xp.{where}", nodes)
    return [build.cast(node, dtype) for node in nodes]


def product(a: Node, b: Node) -> Node:
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
        pair = [contiguous(build.broadcast(a, (*batch, rows, inner))), contiguous(b)]
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


def contiguous(node: Node) -> Node:
    """A node whose own memory holds all the elements row-major, whatever its shape."""
    base, lies = build.layout(node)
    if base.size == node.size and lies == Strided(0, dense(node.shape)):
        return base
    return Node(node.device, "copy", (node,), node.shape, node.dtype)
