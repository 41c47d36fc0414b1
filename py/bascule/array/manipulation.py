"""Other shapes of the same elements: views if strides allow, else one gather."""

from __future__ import annotations

from collections.abc import Sequence
from math import prod
from typing import Any

from bascule.array import build, dtypes
from bascule.array.array import Array
from bascule.array.errors import DTypeError, ShapeError
from bascule.array.graph import Node, Strided


def reshape(x: Array, /, shape: Sequence[int], *, copy: bool | None = None) -> Array:
    """Return the elements in row-major order in another shape; one axis may be -1."""
    del copy  # arrays never share what can be changed
    node = build.node_of(x, "xp.reshape")
    sizes = list(shape)
    if sizes.count(-1) == 1 and (rest := prod(n for n in sizes if n != -1)):
        sizes[sizes.index(-1)] = node.size // rest
    if any(n < 0 for n in sizes) or prod(sizes) != node.size:
        expected = f"a shape of {node.size} elements"
        raise ShapeError("xp.reshape", expected, f"{tuple(shape)} for shape {node.shape}")
    return Array(build.reshape(node, tuple(sizes)))


def permute_dims(x: Array, /, axes: Sequence[int]) -> Array:
    """Return the axes in the given order."""
    node = build.node_of(x, "xp.permute_dims")
    order = [build.axis_of(axis, len(node.shape), "xp.permute_dims") for axis in axes]
    if sorted(order) != list(range(len(node.shape))):
        raise ShapeError("xp.permute_dims", "each axis once", f"{tuple(axes)}")
    return Array(build.permute(node, order))


def moveaxis(x: Array, source: Any, destination: Any, /) -> Array:
    """Move axes to other positions; the others keep their order."""
    n = x.ndim
    sources = [source] if isinstance(source, int) else list(source)
    targets = [destination] if isinstance(destination, int) else list(destination)
    first = [build.axis_of(axis, n, "xp.moveaxis") for axis in sources]
    second = [build.axis_of(axis, n, "xp.moveaxis") for axis in targets]
    if len(set(first)) != len(set(second)) or len(first) != len(second):
        raise ShapeError("xp.moveaxis", "as many places as axes", f"{source} to {destination}")
    order = [axis for axis in range(n) if axis not in first]
    for target, axis in sorted(zip(second, first, strict=True)):
        order.insert(target, axis)
    return permute_dims(x, order)


def expand_dims(x: Array, /, axis: int | tuple[int, ...] = 0) -> Array:
    """Insert axes of size 1 at these positions of the result."""
    node = build.node_of(x, "xp.expand_dims")
    given = axis if isinstance(axis, tuple) else (axis,)
    n = len(node.shape) + len(given)
    places = build.axes_of(given, n, "xp.expand_dims")
    rest = iter(node.shape)
    return Array(build.reshape(node, tuple(1 if a in places else next(rest) for a in range(n))))


def squeeze(x: Array, /, axis: int | tuple[int, ...] | None = None) -> Array:
    """Remove these axes of size 1; None: all of them."""
    node = build.node_of(x, "xp.squeeze")
    if axis is None:
        axis = tuple(a for a, n in enumerate(node.shape) if n == 1)
    axes = build.axes_of(axis, len(node.shape), "xp.squeeze")
    if any(node.shape[a] != 1 for a in axes):
        raise ShapeError("xp.squeeze", "axes of size 1", f"axes {axis} of shape {node.shape}")
    return Array(build.reshape(node, tuple(n for a, n in enumerate(node.shape) if a not in axes)))


def broadcast_to(x: Array, /, shape: Sequence[int]) -> Array:
    """Repeat x along axes of size 1, or new ones, without a copy."""
    return Array(build.broadcast(build.node_of(x, "xp.broadcast_to"), tuple(shape)))


def broadcast_arrays(*arrays: Array) -> tuple[Array, ...]:
    """Broadcast all to one shape."""
    shape = build.broadcast_shape("xp.broadcast_arrays", [each.shape for each in arrays])
    return tuple(broadcast_to(each, shape) for each in arrays)


def broadcast_shapes(*shapes: Sequence[int]) -> tuple[int, ...]:
    """Return the shape that these broadcast to."""
    if not shapes:
        return ()
    return build.broadcast_shape("xp.broadcast_shapes", [tuple(shape) for shape in shapes])


def flip(x: Array, /, *, axis: int | tuple[int, ...] | None = None) -> Array:
    """Reverse axes; None: all of them."""
    node = build.node_of(x, "xp.flip")
    axes = build.axes_of(axis, len(node.shape), "xp.flip")
    _, lies = build.layout(node)
    strides, offset = list(lies.strides), lies.offset
    for a in axes:
        offset += max(node.shape[a] - 1, 0) * strides[a]
        strides[a] = -strides[a]
    return Array(build.view(node, node.shape, strides, offset))


def astype(x: Array, dtype: Any, /, *, copy: bool = True, device: Any = None) -> Array:
    """Convert to another dtype. Floats out of an integer's range saturate."""
    del copy
    result = Array(build.cast(build.node_of(x, "xp.astype"), dtypes.checked(dtype)))
    return result if device is None else result.to_device(device)


def _int32() -> Any:
    return dtypes.named("int32")


def _along(shape: tuple[int, ...], axis: int, device: Any) -> Node:
    """Return the index along one axis, int32 of that shape."""
    strides = tuple(int(a == axis) for a in range(len(shape)))
    return Node(device, "iota", (), shape, _int32(), Strided(0, strides))


def _plus(node: Node, value: int) -> Node:
    return build.row("add", [node, build.number(value, node.dtype, node.device)])


def _times(node: Node, value: int) -> Node:
    return build.row("multiply", [node, build.number(value, node.dtype, node.device)])


def _modulo(node: Node, value: int) -> Node:
    return build.row("remainder", [node, build.number(max(value, 1), node.dtype, node.device)])


def take_along(node: Node, axis: int, places: Node) -> Node:
    """Return elements at `places` (int32 indices of an axis, in the shape of the result)."""
    base, lies = build.layout(node)
    strides = tuple(0 if a == axis else step for a, step in enumerate(lies.strides))
    rest = Node(node.device, "iota", (), places.shape, _int32(), Strided(lies.offset, strides))
    index = build.row("add", [rest, _times(places, lies.strides[axis])])
    return Node(node.device, "gather", (base, index), places.shape, node.dtype)


def roll(x: Array, /, shift: int | tuple[int, ...], *, axis: Any = None) -> Array:
    """Shift elements along axes; those past the end wrap around."""
    node = build.node_of(x, "xp.roll")
    if axis is None:
        if not isinstance(shift, int):
            raise ShapeError("xp.roll", "one shift where there is no axis", str(shift))
        flat = build.reshape(node, (node.size,))
        return Array(build.reshape(_rolled(flat, shift, 0), node.shape))
    axes = axis if isinstance(axis, tuple) else (axis,)
    shifts = shift if isinstance(shift, tuple) else (shift,) * len(axes)
    if len(shifts) != len(axes):
        raise ShapeError("xp.roll", "a shift for each axis", f"{shift} and {axis}")
    for by, a in zip(shifts, axes, strict=True):
        node = _rolled(node, by, build.axis_of(a, len(node.shape), "xp.roll"))
    return Array(node)


def _rolled(node: Node, shift: int, axis: int) -> Node:
    n = node.shape[axis]
    if not node.size or not shift % n:
        return node
    along = _along(node.shape, axis, node.device)
    return take_along(node, axis, _modulo(_plus(along, n - shift % n), n))


def concat(arrays: Sequence[Array], /, *, axis: int | None = 0) -> Array:
    """Concatenate arrays along an axis; None: all their elements."""
    if not arrays:
        raise ShapeError("xp.concat", "at least one array", "none")
    nodes = [build.node_of(each, "xp.concat") for each in arrays]
    if axis is None:
        nodes = [build.reshape(node, (node.size,)) for node in nodes]
        axis = 0
    dtype = nodes[0].dtype
    for node in nodes[1:]:
        dtype = dtypes.promoted(dtype, node.dtype)
    build.one_device("xp.concat", nodes)
    at = build.axis_of(axis, len(nodes[0].shape), "xp.concat")
    for node in nodes:
        same = len(node.shape) == len(nodes[0].shape) and all(
            a == at or n == m
            for a, (n, m) in enumerate(zip(node.shape, nodes[0].shape, strict=True))
        )
        if not same:
            expected = f"shapes like {nodes[0].shape} but for axis {at}"
            raise ShapeError("xp.concat", expected, str(node.shape))
    nodes = [build.cast(node, dtype) for node in nodes if node.shape[at]] or [nodes[0]]
    return Array(_joined(nodes, at))


def _joined(nodes: list[Node], axis: int) -> Node:
    """Join halves pair by pair, so that many arrays do not nest as deeply."""
    if len(nodes) == 1:
        return nodes[0]
    if len(nodes) > 4:
        middle = len(nodes) // 2
        nodes = [_joined(nodes[:middle], axis), _joined(nodes[middle:], axis)]
    total = sum(node.shape[axis] for node in nodes)
    shape = tuple(total if a == axis else n for a, n in enumerate(nodes[0].shape))
    along = _along(shape, axis, nodes[0].device)
    start = total
    result: Node | None = None
    for node in reversed(nodes):
        start -= node.shape[axis]
        if node.shape[axis] == 1:  # read by its strides, without an index
            here = build.broadcast(node, shape)
        else:
            here = take_along(node, axis, _clamped(_plus(along, -start), node.shape[axis]))
        if result is None:
            result = here
        else:
            end = build.number(start + node.shape[axis], along.dtype, along.device)
            result = build.row("where", [here, result, build.row("less", [along, end])])
    assert result is not None
    return result


def _clamped(node: Node, n: int) -> Node:
    low, high = (build.number(v, node.dtype, node.device) for v in (0, max(n - 1, 0)))
    return build.row("minimum", [build.row("maximum", [node, low]), high])


def stack(arrays: Sequence[Array], /, *, axis: int = 0) -> Array:
    """Stack arrays of one shape along a new axis."""
    if len({each.shape for each in arrays}) != 1:
        raise ShapeError("xp.stack", "arrays of one shape", str([each.shape for each in arrays]))
    at = build.axis_of(axis, arrays[0].ndim + 1, "xp.stack")
    return concat([expand_dims(each, at) for each in arrays], axis=at)


def unstack(x: Array, /, *, axis: int = 0) -> tuple[Array, ...]:
    """Return the arrays along an axis."""
    at = build.axis_of(axis, x.ndim, "xp.unstack")
    return tuple(x[(*[slice(None)] * at, i)] for i in range(x.shape[at]))


def tile(x: Array, repetitions: Sequence[int], /) -> Array:
    """Repeat x as a block, that often along each axis."""
    counts = tuple(repetitions)
    n = max(len(counts), x.ndim)
    counts = (1,) * (n - len(counts)) + counts
    shape = (1,) * (n - x.ndim) + x.shape
    node = build.reshape(build.node_of(x, "xp.tile"), shape)
    spread = [size for pair in zip((1,) * n, shape, strict=True) for size in pair]
    wide = [size for pair in zip(counts, shape, strict=True) for size in pair]
    result = build.broadcast(build.reshape(node, tuple(spread)), tuple(wide))
    return Array(build.reshape(result, tuple(c * m for c, m in zip(counts, shape, strict=True))))


def repeat(x: Array, repeats: Any, /, *, axis: int | None = None) -> Array:
    """Repeat each element that often. An array of counts is read at once."""
    node = build.node_of(x, "xp.repeat")
    if axis is None:
        node, axis = build.reshape(node, (node.size,)), 0
    at = build.axis_of(axis, len(node.shape), "xp.repeat")
    if isinstance(repeats, Array):
        return _repeated_by(node, repeats, at)
    if not isinstance(repeats, int) or repeats < 0:
        raise ShapeError("xp.repeat", "counts of 0 or more", repr(repeats))
    shape = tuple(n * repeats if a == at else n for a, n in enumerate(node.shape))
    if not prod(shape):
        return Array(build.broadcast(build.number(0, node.dtype, node.device), shape))
    along = _along(shape, at, node.device)
    count = build.number(repeats, along.dtype, node.device)
    return Array(take_along(node, at, build.row("floor_divide", [along, count])))


def _repeated_by(node: Node, repeats: Array, axis: int) -> Array:
    from bascule.array.place import numbers_at_once
    from bascule.base.arrays import np

    counts = numbers_at_once(build.node_of(repeats, "xp.repeat"), "xp.repeat by an array")
    if counts.dtype.kind not in "iu":
        raise DTypeError("xp.repeat", "counts of whole numbers", str(counts.dtype))
    if counts.size not in (1, node.shape[axis]) or counts.ndim > 1:
        raise ShapeError("xp.repeat", f"{node.shape[axis]} counts", f"shape {counts.shape}")
    counts = np.broadcast_to(counts.reshape(-1), (node.shape[axis],))
    places = np.repeat(np.arange(node.shape[axis], dtype=np.int32), counts)
    index = Array(build.constant(places, node.device))
    return Array(node)[(*[slice(None)] * axis, index)]
