"""Products of arrays."""

from __future__ import annotations

from collections.abc import Sequence
from math import prod

from bascule.array import build, dtypes
from bascule.array.array import Array
from bascule.array.errors import ShapeError
from bascule.array.graph import Node
from bascule.array.matrices import multiplied, numbers, product


def matmul(x1: Array, x2: Array, /) -> Array:
    """Compute x1 (..., M, K) @ x2 (..., K, N); an operand of one axis is a row or a column."""
    return Array(multiplied(x1, x2))


def matrix_transpose(x: Array, /) -> Array:
    """Transpose the matrices of the last two axes."""
    return x.mT


def outer(x1: Array, x2: Array, /) -> Array:
    """Return x1[i] * x2[j]."""
    a, b = numbers("linalg.outer", x1, x2)
    if len(a.shape) != 1 or len(b.shape) != 1:
        raise ShapeError("xp.linalg.outer", "two arrays of one axis", f"{a.shape} and {b.shape}")
    return Array(build.row("multiply", [build.reshape(a, (*a.shape, 1)), b]))


def vecdot(x1: Array, x2: Array, /, *, axis: int = -1) -> Array:
    """Return the sum of products along an axis of both, broadcast."""
    a, b = numbers("vecdot", x1, x2)
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
    """Sum products over pairs of axes: the last n of x1 with the first n of x2, or as listed."""
    a, b = numbers("tensordot", x1, x2)
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
    return Array(build.reshape(product(a, b), shape))
