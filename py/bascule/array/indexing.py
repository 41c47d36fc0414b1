"""Indexing: slices are views, arrays of integers gather, masks are read for their shape."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from bascule.array import build, dtypes
from bascule.array.errors import ArrayIndexError, ShapeError
from bascule.array.graph import Node, Strided
from bascule.array.place import numbers_at_once
from bascule.base.arrays import np


def get(node: Node, key: Any) -> Node:
    """Return x[key]; ArrayIndexError for an index out of bounds or too many of them."""
    alone: Any = key[0] if isinstance(key, tuple) and len(key) == 1 else key
    if isinstance(alone, bool) or (_is_array(alone) and _is_flag(alone._node)):
        chosen = alone if isinstance(alone, bool) else numbers_at_once(alone._node, "x[mask]")
        return get(build.reshape(node, (1, *node.shape)), slice(0, int(bool(chosen))))
    parts = _parts(node, key)
    shape, strides, arrays = list[int](), list[int](), dict[int, Node]()
    _, lies = build.layout(node)
    offset, axis = lies.offset, 0
    for part in parts:
        if part is None:
            shape.append(1)
            strides.append(0)
            continue
        n, step = node.shape[axis], lies.strides[axis]
        if isinstance(part, slice):
            start, stop, by = part.indices(n)
            count = len(range(start, stop, by))
            offset += start * step if count else 0
            shape.append(count)
            strides.append(step * by)
        elif isinstance(part, int):
            offset += _checked(part, n, axis, node.shape) * step
        else:
            arrays[len(shape)] = _wrapped(part, n, axis, node.shape)
            shape.append(-1)
            strides.append(step)
        axis += 1
    if not arrays:
        return build.view(node, tuple(shape), strides, offset)
    return _gathered(node, shape, strides, offset, arrays)


def put(node: Node, key: Any, value: Any) -> Node:
    """Return x after x[key] = value; ShapeError if the value cannot be broadcast."""
    (given,) = build.promoted_nodes("x[...] = y", (value,)) if _is_array(value) else (None,)
    if given is None:
        dtypes.for_scalar(value, node.dtype, "x[...] = y")
        given = build.number(value, node.dtype, node.device)
    elif dtypes.promoted(given.dtype, node.dtype) != node.dtype:
        raise dtypes.DTypeError("x[...] = y", f"what fits {node.dtype}", str(given.dtype))
    given = build.cast(given, node.dtype)
    mask: Node | None = getattr(key, "_node", None)
    if mask is None or mask.dtype.kind != "b" or not mask.shape:
        mask = None
    if mask is not None and not mask.size:
        _check_mask(mask.shape, node.shape)
        build.broadcast(given, (0, *node.shape[len(mask.shape) :]))
        return node
    if mask is not None and given.size == 1:
        _check_mask(mask.shape, node.shape)
        wide = build.reshape(mask, mask.shape + (1,) * (len(node.shape) - len(mask.shape)))
        return build.row("where", [build.reshape(given, ()), node, wide])
    places = np.full(node.shape, -1, np.int32)
    key = _host_key(key)
    try:
        count = places[key].size
        shape = places[key].shape
        places[key] = np.arange(count, dtype=np.int32).reshape(shape)
    except IndexError as error:
        raise ArrayIndexError("x[...] = y", f"an index of {node.shape}", str(error)) from None
    if len(given.shape) > len(shape) and all(n == 1 for n in given.shape[: -len(shape) or None]):
        given = build.reshape(given, given.shape[len(given.shape) - len(shape) :])
    given = build.broadcast(given, shape)
    if not count:
        return node
    index = build.constant(places, node.device)
    zero = build.number(0, index.dtype, node.device)
    taken = build.gather(given, build.row("maximum", [index, zero]))
    inside = build.row("greater_equal", [index, zero])
    return build.row("where", [taken, node, inside])


def _is_flag(node: Node) -> bool:
    return node.dtype.kind == "b" and not node.shape


def _is_array(value: Any) -> bool:
    return isinstance(getattr(value, "_node", None), Node)


def _host_key(key: Any) -> Any:
    if isinstance(key, tuple):
        return tuple(_host_key(each) for each in key)
    if _is_array(key):
        return numbers_at_once(key._node, "x[array] = y")
    return key


def _parts(node: Node, key: Any) -> list[Any]:
    """Return the key with an entry for each axis: None, int, slice, or a node of integers."""
    given = list(key) if isinstance(key, tuple) else [key]
    results: list[Any] = []
    n_axes = 0
    ellipsis = -1
    for each in given:
        if each is Ellipsis:
            if ellipsis >= 0:
                raise ArrayIndexError("x[...]", "one ellipsis", "several")
            ellipsis = len(results)
            continue
        if isinstance(each, list | np.ndarray | np.integer):
            each = np.asarray(each)
            if each.dtype.kind == "b":
                each = _true_places(each, node, n_axes)
            elif each.dtype.kind in "iu" and each.ndim:
                each = build.constant(each.astype(np.int32), node.device)
            elif each.dtype.kind in "iu":
                each = int(each)
        elif _is_array(each):
            array = each._node
            if array.dtype.kind == "b":
                each = _true_places(numbers_at_once(array, "x[mask]"), node, n_axes)
            elif array.dtype.kind in "iu" and array.shape:
                each = array
            elif array.dtype.kind in "iu":
                each = int(numbers_at_once(array, "x[array]"))
        new = each if isinstance(each, list) else [each]
        if any(not isinstance(e, slice | int | Node | None) or isinstance(e, bool) for e in new):
            hint = "Take integers, slices, None, ..., or arrays of integers or bool."
            raise ArrayIndexError("x[...]", "an index", repr(each)[:60], hint=hint)
        results += new
        n_axes += sum(e is not None for e in new)
    missing = len(node.shape) - n_axes
    if missing < 0:
        raise ArrayIndexError("x[...]", f"at most {len(node.shape)} indices", f"{n_axes}")
    at = len(results) if ellipsis < 0 else ellipsis
    return [*results[:at], *[slice(None)] * missing, *results[at:]]


def _true_places(mask: Any, node: Node, axis: int) -> list[Node]:
    """Return a mask as the indices of its true elements, one array per axis."""
    _check_mask(mask.shape, node.shape[axis:])
    if not mask.ndim:
        raise ArrayIndexError("x[mask]", "a mask with axes", "one number", hint="Use xp.where.")
    return [build.constant(each.astype(np.int32), node.device) for each in np.nonzero(mask)]


def _check_mask(mask: Any, shape: Any) -> None:
    """Check a mask; by the standard an axis has x's size or 0, and such a mask selects nothing."""
    result = shape[: len(mask)]
    if len(result) < len(mask) or any(m not in (n, 0) for m, n in zip(mask, result, strict=True)):
        raise ArrayIndexError("x[mask]", f"a mask of shape {result}", f"shape {mask}")


def _checked(index: int, n: int, axis: int, shape: Any) -> int:
    if not -n <= index < n:
        where = f"x[...] of shape {shape}"
        raise ArrayIndexError(where, f"an index from {-n} to {n - 1}", f"{index} for axis {axis}")
    return index + n if index < 0 else index


def _wrapped(index: Node, n: int, axis: int, shape: Any) -> Node:
    """Return indices from the front. Known ones are checked; others are clamped into the axis."""
    if index.host is not None:
        numbers = index.host
        if numbers.size:
            for extreme in (int(numbers.min()), int(numbers.max())):
                _checked(extreme, n, axis, shape)
        wide = numbers.astype(np.int32)
        return build.constant(np.where(wide < 0, wide + n, wide).astype(np.int32), index.device)
    index = build.cast(index, dtypes.named("int32"))
    return clamped(index, n)


def clamped(index: Node, n: int) -> Node:
    """Clamp to the axis; negative indices count from the end."""
    zero, size, last = (build.number(v, index.dtype, index.device) for v in (0, n, max(n - 1, 0)))
    wrapped = build.row("add", [index, size])
    result = build.row("where", [wrapped, index, build.row("less", [index, zero])])
    return build.row("minimum", [build.row("maximum", [result, zero]), last])


def _gathered(
    node: Node, shape: Sequence[int], strides: Sequence[int], offset: int, arrays: dict[int, Node]
) -> Node:
    """Gather elements at the given indices; non-adjacent index arrays give leading axes."""
    places = sorted(arrays)
    wide = build.broadcast_shape("x[arrays]", [arrays[at].shape for at in places])
    adjacent = places == list(range(places[0], places[-1] + 1))
    first = places[0] if adjacent else 0
    rest = [at for at in range(len(shape)) if at not in arrays]
    before, after = [at for at in rest if at < first], [at for at in rest if at >= first]
    result = (*(shape[at] for at in before), *wide, *(shape[at] for at in after))
    steps = [*(strides[at] for at in before), *[0] * len(wide), *(strides[at] for at in after)]
    base, _ = build.layout(node)
    int32 = dtypes.named("int32")
    index = Node(node.device, "iota", (), result, int32, Strided(offset, tuple(steps)))
    for at in places:
        step = build.number(strides[at], int32, node.device)
        each = build.reshape(build.broadcast(arrays[at], wide), (*wide, *(1,) * len(after)))
        index = build.row("add", [index, build.row("multiply", [each, step])])
    return Node(node.device, "gather", (base_memory(base), index), result, node.dtype)


def base_memory(base: Node) -> Node:
    """Return the base of a view as gathers bind it."""
    return base


def take(node: Node, index: Node, axis: int) -> Node:
    """Return x[:, index] along that axis."""
    if len(index.shape) != 1:
        raise ShapeError("take", "indices of one axis", f"shape {index.shape}")
    return get(node, (*[slice(None)] * axis, _Wrapper(index)))


class _Wrapper:
    """A node as a key."""

    def __init__(self, node: Node) -> None:
        self._node = node
