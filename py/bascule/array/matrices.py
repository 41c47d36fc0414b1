"""Matrix products as nodes: float32 by the op table's kernels, others as fused sums."""

from __future__ import annotations

from functools import reduce
from math import prod
from typing import Any

from bascule.array import build, dtypes
from bascule.array.errors import DTypeError, ShapeError
from bascule.array.graph import Node, Product, Shape, dense

# lavapipe ends an invocation's loops after 65,535 rounds without an error; a kernel's round adds at
# least two terms. Sums of sums are also more exact.
_MAX_TERMS = 1 << 17


def multiplied(x1: Any, x2: Any) -> Node:
    """Compute x1 (..., M, K) @ x2 (..., K, N); an operand of one axis is a row or a column."""
    a, b = numbers("matmul", x1, x2)
    if not a.shape or not b.shape:
        raise ShapeError("matmul", "arrays with axes", f"{a.shape} and {b.shape}")
    row, column = len(a.shape) == 1, len(b.shape) == 1
    a = build.reshape(a, (1, *a.shape)) if row else a
    b = build.reshape(b, (*b.shape, 1)) if column else b
    if a.shape[-1] != b.shape[-2]:
        expected = f"x1 (..., M, {a.shape[-1]}) and x2 (..., {a.shape[-1]}, N)"
        raise ShapeError("matmul", expected, f"{x1.shape} and {x2.shape}")
    result = product(a, b)
    shape = list(result.shape)
    if row:
        del shape[-2]
    if column:
        del shape[-1]
    return build.reshape(result, tuple(shape))


def numbers(where: str, *operands: Any) -> list[Node]:
    """Return two arrays of numbers as nodes of one dtype on one device."""
    nodes = [build.node_of(each, f"xp.{where}") for each in operands]
    dtype = dtypes.promoted(nodes[0].dtype, nodes[1].dtype)
    if dtype.kind == "b":
        raise DTypeError(f"xp.{where}", "numbers", "dtype bool")
    build.one_device(f"xp.{where}", nodes)
    return [build.cast(node, dtype) for node in nodes]


def product(a: Node, b: Node) -> Node:
    """Multiply matrices of two nodes of one dtype, leading axes broadcast."""
    batch = build.broadcast_shape("xp.matmul", [a.shape[:-2], b.shape[:-2]])
    inner = a.shape[-1]
    if a.dtype.kind != "f" or not prod(batch) * a.shape[-2] * inner * b.shape[-1]:
        return _summed_product(a, b)
    wide = dtypes.named("float32")
    x, y = build.cast(a, wide), build.cast(b, wide)
    results: list[Node] = []
    for start in range(0, inner, _MAX_TERMS):
        stop = min(start + _MAX_TERMS, inner)
        part = build.narrow(x, -1, start, stop), build.narrow(y, -2, start, stop)
        results.append(_float_product(batch, *part))
    return build.cast(reduce(lambda one, other: build.row("add", [one, other]), results), a.dtype)


def _float_product(batch: Shape, x: Node, y: Node) -> Node:
    """Multiply x (..., M, K) by y (..., K, N) of float32 by the op, broadcast to `batch`."""
    rows, inner, columns = x.shape[-2], x.shape[-1], y.shape[-1]
    shape = (*batch, rows, columns)
    x = build.broadcast(x, (*batch, rows, inner))
    n = prod(batch)
    if prod(y.shape[:-2]) == 1:  # one y for all rows of x
        y = build.reshape(y, (inner, columns))
        n, rows = 1, n * rows
    else:
        y = build.broadcast(y, (*batch, inner, columns))
    if columns == 1:  # a matrix by a vector: the vector is the one row
        result = _op_product(n, _transposed(y), x, (1, inner, rows), transposed=True)
    else:
        turned = _transposed(y)
        transposed = _is_dense(turned)
        y = turned if transposed else y
        result = _op_product(n, x, y, (rows, inner, columns), transposed=transposed)
    return build.reshape(result, shape)


def _transposed(node: Node) -> Node:
    """Transpose its matrices, as a view."""
    axes = len(node.shape)
    return build.permute(node, [*range(axes - 2), axes - 1, axes - 2])


def _op_product(n: int, x: Node, y: Node, sides: tuple[int, int, int], *, transposed: bool) -> Node:
    """Return n products by the op: x (n, M, K), y (n or 1, K, N) or transposed (.., N, K)."""
    rows, inner, columns = sides
    matrix = (columns, inner) if transposed else (inner, columns)
    y_shape = matrix if n == 1 else (n, *matrix)
    x_shape = (n, rows, inner)
    pair = [contiguous(x), contiguous(y)]
    attribute = Product(x_shape, y_shape, transposed)
    return Node(x.device, "matmul", pair, (n, rows, columns), x.dtype, attribute)


def _summed_product(a: Node, b: Node) -> Node:
    """Return the product as one fused sum over (..., M, N, K): for types without a kernel."""
    wide = dtypes.named("float32") if a.dtype.kind == "f" else a.dtype
    left = build.reshape(a, (*a.shape[:-1], 1, a.shape[-1]))
    b = _transposed(b)
    right = build.reshape(b, (*b.shape[:-2], 1, *b.shape[-2:]))
    pair = [build.cast(each, wide) for each in (left, right)]
    products = build.row("multiply", pair)
    axis = len(products.shape) - 1
    return build.cast(build.reduce("reduce", products, "sum", (axis,), wide), a.dtype)


def contiguous(node: Node) -> Node:
    """Return a node whose own memory holds all the elements row-major, whatever its shape."""
    if _is_dense(node):
        return build.layout(node)[0]
    return Node(node.device, "copy", (node,), node.shape, node.dtype)


def _is_dense(node: Node) -> bool:
    """Whether it shows all of one node's memory, row-major."""
    base, lies = build.layout(node)
    steps = zip(node.shape, lies.strides, dense(node.shape), strict=True)
    return (
        base.size == node.size
        and lies.offset == 0
        and all(n == 1 or step == wanted for n, step, wanted in steps)
    )
