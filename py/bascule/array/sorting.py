"""Sorting, searching and sets. What has a data-dependent size is read at once."""

# pyright: reportPrivateUsage=false
# An array's node is private to this package.

from __future__ import annotations

from math import prod
from typing import Any, NamedTuple

from bascule.array import build, dtypes, indexing
from bascule.array.array import Array
from bascule.array.errors import DTypeError, ShapeError
from bascule.array.graph import Node
from bascule.array.manipulation import take_along
from bascule.array.place import numbers_at_once
from bascule.base.arrays import np


def argsort(x: Array, /, *, axis: int = -1, descending: bool = False, stable: bool = True) -> Array:
    """Return the order of elements along an axis, int32; always stable, NaN last."""
    del stable
    node = build.node_of(x, "xp.argsort")
    at = build.axis_of(axis, len(node.shape), "xp.argsort")
    return Array(_order(node, at, descending))


def sort(x: Array, /, *, axis: int = -1, descending: bool = False, stable: bool = True) -> Array:
    """Sort elements along an axis; NaN last."""
    del stable
    node = build.node_of(x, "xp.sort")
    at = build.axis_of(axis, len(node.shape), "xp.sort")
    return Array(take_along(node, at, _order(node, at, descending)))


def _order(node: Node, axis: int, descending: bool) -> Node:
    """Sort unsigned keys, rows of a power of two, on the device."""
    others = [a for a in range(len(node.shape)) if a != axis]
    n = node.shape[axis]
    rows = prod(node.shape[a] for a in others)
    keys = build.permute(_keys(node, descending), [*others, axis])
    padded = 1 << max(n - 1, 0).bit_length()
    keys = build.reshape(keys, (rows, n))
    int32 = dtypes.named("int32")
    if not rows * n:
        return build.broadcast(build.number(0, int32, node.device), node.shape)
    keys = _padded(keys, rows, n, padded)
    result = Node(node.device, "order", (keys,), (rows, padded), int32)
    inside = indexing.get(result, (slice(None), slice(0, n)))
    wide = build.reshape(inside, tuple(node.shape[a] for a in [*others, axis]))
    back = [[*others, axis].index(a) for a in range(len(node.shape))]
    return build.permute(wide, back)


def _padded(keys: Node, rows: int, n: int, padded: int) -> Node:
    """Return keys in their own memory, padded with the largest one: padding comes last."""
    from bascule.array.manipulation import _along, _clamped

    along = _along((rows, padded), 1, keys.device)
    inside = take_along(keys, 1, _clamped(along, n))
    last = build.number(0xFFFFFFFF, keys.dtype, keys.device)
    fits = build.row("less", [along, build.number(n, along.dtype, along.device)])
    return build.row("where", [inside, last, fits])


def _keys(node: Node, descending: bool) -> Node:
    """Return unsigned numbers in the order of the elements; NaN is largest in either direction."""
    device, unsigned = node.device, dtypes.named("uint32")

    def number(value: int) -> Node:
        return build.number(value, unsigned, device)

    if node.dtype.kind in "bu":
        keys = build.cast(node, unsigned)
    elif node.dtype.kind == "i":
        keys = build.row("bitwise_xor", [build.cast(node, unsigned), number(0x80000000)])
    else:
        wide = build.cast(node, dtypes.named("float32"))
        zero = build.number(0, wide.dtype, device)
        same = build.row("add", [wide, zero])  # -0 sorts as 0
        bits = Node(device, "bits", (same,), same.shape, unsigned)
        negative = build.row("greater_equal", [bits, number(0x80000000)])
        up = build.row("bitwise_xor", [bits, number(0x80000000)])
        keys = build.row("where", [build.row("bitwise_invert", [bits]), up, negative])
    if descending:
        keys = build.row("bitwise_invert", [keys])
    if node.dtype.kind == "f":
        keys = build.row("where", [number(0xFFFFFFFF), keys, build.row("isnan", [node])])
    return keys


def searchsorted(
    x1: Array, x2: Array, /, *, side: str = "left", sorter: Array | None = None
) -> Array:
    """Return where each element of x2 belongs in the sorted x1, int32."""
    if side not in ("left", "right"):
        raise ShapeError("xp.searchsorted", '"left" or "right"', repr(side))
    if x1.ndim != 1:
        raise ShapeError("xp.searchsorted", "x1 of one axis", f"shape {x1.shape}")
    if sorter is not None:
        x1 = x1[sorter]
    a, b = build.promoted_nodes("xp.searchsorted", (x1, x2))
    a = build.flat_of(a)
    n, int32 = a.size, dtypes.named("int32")

    def number(value: int) -> Node:
        return build.number(value, int32, a.device)

    low = build.broadcast(number(0), b.shape)
    if not n or not b.size:
        return Array(low)
    # A binary search without branches: steps of falling powers of two that do not go too far.
    step = 1 << (n.bit_length() - 1)
    while step:
        next_ = build.row("add", [low, number(step)])
        last = build.row("minimum", [next_, number(n)])
        at = build.row("subtract", [last, number(1)])
        value = Node(a.device, "gather", (a, at), b.shape, a.dtype)
        before = _before(value, b, side == "right")
        fits = build.row("less_equal", [next_, number(n)])
        low = build.row("where", [next_, low, build.row("logical_and", [before, fits])])
        step //= 2
    return Array(low)


def _before(value: Node, wanted: Node, or_equal: bool) -> Node:
    """Whether a sorted element comes before the insertion point of `wanted`; NaN is last."""
    if value.dtype.kind == "b":
        value, wanted = (build.cast(each, dtypes.named("int32")) for each in (value, wanted))
    result = build.row("less_equal" if or_equal else "less", [value, wanted])
    if value.dtype.kind != "f":
        return result
    nan = build.row("isnan", [wanted])
    if not or_equal:
        nan = build.row(
            "logical_and", [nan, build.row("logical_not", [build.row("isnan", [value])])]
        )
    return build.row("logical_or", [result, nan])


def nonzero(x: Array, /) -> tuple[Array, ...]:
    """Return the indices of nonzero elements, an array per axis; x is read at once."""
    node = build.node_of(x, "xp.nonzero")
    if not node.shape:
        raise ShapeError("xp.nonzero", "an array with axes", "shape ()")
    result = np.nonzero(numbers_at_once(node, "xp.nonzero"))
    return tuple(Array(build.constant(each.astype(np.int32), node.device)) for each in result)


class UniqueAll(NamedTuple):
    """The result of `unique_all`."""

    values: Array
    indices: Array
    inverse_indices: Array
    counts: Array


class UniqueCounts(NamedTuple):
    """The result of `unique_counts`."""

    values: Array
    counts: Array


class UniqueInverse(NamedTuple):
    """The result of `unique_inverse`."""

    values: Array
    inverse_indices: Array


def unique_all(x: Array, /) -> UniqueAll:
    """Return distinct values in order, their first indices, each element's value, and counts."""
    node = build.node_of(x, "xp.unique_all")
    numbers = numbers_at_once(node, "xp.unique_all")
    result = np.unique(
        numbers, return_index=True, return_inverse=True, return_counts=True, equal_nan=False
    )
    values, *indices = (Array(build.constant(_whole(each), node.device)) for each in result)
    first, inverse, counts = indices
    inverse = Array(build.reshape(inverse._node, node.shape))
    return UniqueAll(values, first, inverse, counts)


def _whole(numbers: Any) -> Any:
    return numbers.astype(np.int32) if numbers.dtype.name == "int64" else numbers


def unique_counts(x: Array, /) -> UniqueCounts:
    """Return distinct values in order, and their counts."""
    result = unique_all(x)
    return UniqueCounts(result.values, result.counts)


def unique_inverse(x: Array, /) -> UniqueInverse:
    """Return distinct values in order, and the index of each element's value."""
    result = unique_all(x)
    return UniqueInverse(result.values, result.inverse_indices)


def unique_values(x: Array, /) -> Array:
    """Return distinct values in order; x is read at once."""
    return unique_all(x).values


def isin(x1: Any, x2: Any, /, *, invert: bool = False) -> Array:
    """Return whether each element of x1 is one of x2."""
    a, b = build.promoted_nodes("xp.isin", (x1, x2))
    b = build.reshape(b, (b.size,))
    a = build.reshape(a, (*a.shape, 1))
    result = build.row("equal", [a, b])
    result = build.reduce("reduce", result, "any", (len(result.shape) - 1,), dtypes.named("bool"))
    return Array(build.row("logical_not", [result]) if invert else result)


def take(x: Array, indices: Array, /, *, axis: int | None = None) -> Array:
    """Return elements at indices of an axis. On a GPU indices out of bounds are clamped."""
    node, index = build.node_of(x, "xp.take"), build.node_of(indices, "xp.take")
    if axis is None and len(node.shape) != 1:
        raise ShapeError("xp.take", "an axis", f"None for shape {node.shape}")
    if index.dtype.kind not in "iu":
        raise DTypeError("xp.take", "whole numbers as indices", str(index.dtype))
    return Array(indexing.take(node, index, build.axis_of(axis or 0, len(node.shape), "xp.take")))


def take_along_axis(x: Array, indices: Array, /, *, axis: int = -1) -> Array:
    """Return x[..., indices[..., j], ...]: indices along an axis, the other axes broadcast."""
    node, index = build.node_of(x, "xp.take_along_axis"), build.node_of(indices, "indices")
    at = build.axis_of(axis, len(node.shape), "xp.take_along_axis")
    if index.dtype.kind not in "iu" or len(index.shape) != len(node.shape):
        raise ShapeError("xp.take_along_axis", "whole numbers, an axis for each", str(index.shape))
    sizes = [
        (n, m) for a, (n, m) in enumerate(zip(node.shape, index.shape, strict=True)) if a != at
    ]
    wide = build.broadcast_shape("xp.take_along_axis", [tuple(s) for s in zip(*sizes, strict=True)])
    full = [*wide[:at], 0, *wide[at:]]
    node = build.broadcast(
        node, tuple(node.shape[at] if a == at else n for a, n in enumerate(full))
    )
    shape = tuple(index.shape[at] if a == at else n for a, n in enumerate(full))
    index = build.cast(build.broadcast(index, shape), dtypes.named("int32"))
    return Array(take_along(node, at, indexing.clamped(index, node.shape[at])))


def diff(
    x: Array, /, *, axis: int = -1, n: int = 1, prepend: Array | None = None,
    append: Array | None = None,
) -> Array:  # fmt: skip
    """Return differences of neighbours along an axis, n times."""
    from bascule.array.manipulation import concat

    at = build.axis_of(axis, x.ndim, "xp.diff")
    parts = [each for each in (prepend, x, append) if each is not None]
    x = concat(parts, axis=at) if len(parts) > 1 else x
    op = "not_equal" if x.dtype.kind == "b" else "subtract"
    for _ in range(n):
        before = (slice(None),) * at
        x = Array(build.elementwise(op, x[(*before, slice(1, None))], x[(*before, slice(0, -1))]))
    return x
