"""Build the graph: operands and dtypes are checked here, nothing is computed."""

from __future__ import annotations

from collections.abc import Sequence
from math import prod
from typing import Any

from bascule.array import dtypes
from bascule.array.dtypes import DType
from bascule.array.errors import ArrayIndexError, DTypeError, ShapeError
from bascule.array.graph import Node, Shape, Strided, dense
from bascule.array.place import ArrayDevice, default_device
from bascule.array.rows import ROWS
from bascule.base.arrays import np

MAX_AXES = 32
_LETTERS = {"b": "bool", "i": "signed integers", "u": "unsigned integers", "f": "floats"}


def is_number(value: object) -> bool:
    """Whether it is a Python number, which takes the dtype of the arrays beside it."""
    return isinstance(value, bool | int | float | complex) and not isinstance(value, np.generic)


def node_of(x: Any, where: str) -> Node:
    """Return the node of an array; DTypeError for anything else."""
    result = getattr(x, "_node", None)
    if isinstance(result, Node):
        return result
    hint = "Make it one with xp.asarray."
    raise DTypeError(where, "an array", type(x).__name__, hint=hint)


def constant(numbers: Any, device: ArrayDevice) -> Node:
    """Return known numbers, of one of our dtypes, as a node; they are not copied."""
    node = Node(device, "data", (), numbers.shape, numbers.dtype)
    node.host = numbers
    return node


def number(value: Any, dtype: DType, device: ArrayDevice) -> Node:
    """Return one number as an array without axes."""
    return constant(np.asarray(value).astype(dtype), device)


def promoted_nodes(where: str, operands: Sequence[Any]) -> list[Node]:
    """Return arrays and Python numbers as nodes of one dtype on one device."""
    results = [getattr(each, "_node", None) for each in operands]
    nodes = [node for node in results if node is not None]
    if not nodes:
        raise DTypeError(where, "at least one array", ", ".join(type(o).__name__ for o in operands))
    device = one_device(where, nodes)
    dtype = nodes[0].dtype
    for node in nodes[1:]:
        dtype = dtypes.promoted(dtype, node.dtype)
    for each, node in zip(operands, results, strict=True):
        if node is None:
            if isinstance(each, np.ndarray | np.generic):
                raise DTypeError(
                    where, "arrays of bascule.array", "a numpy array",
                    hint="Copy it to the device with xp.asarray.",
                )  # fmt: skip
            dtype = dtypes.for_scalar(each, dtype, where)
    return [
        number(each, dtype, device) if node is None else cast(node, dtype)
        for each, node in zip(operands, results, strict=True)
    ]


def one_device(where: str, nodes: Sequence[Node]) -> ArrayDevice:
    """Return the device of all; ShapeError if there are several."""
    device = nodes[0].device
    for node in nodes[1:]:
        if node.device is not device:
            raise ShapeError(
                where, "arrays of one device", f"{device} and {node.device}",
                hint="Copy one of them with x.to_device.",
            )  # fmt: skip
    return device


def broadcast_shape(where: str, shapes: Sequence[Shape]) -> Shape:
    """Return the shape that these broadcast to; ShapeError with numpy's message."""
    with_axes = {shape for shape in shapes if shape}
    if len(with_axes) <= 1:
        return with_axes.pop() if with_axes else ()
    results: list[int] = []
    for sizes in zip(*(_padded(shape, max(map(len, shapes))) for shape in shapes), strict=True):
        wide = {size for size in sizes if size != 1}
        if len(wide) > 1:
            listed = " ".join(str(shape) for shape in shapes)
            raise ShapeError(
                where, "shapes that can be broadcast together", f"operands of shapes {listed}"
            )
        results.append(wide.pop() if wide else 1)
    return tuple(results)


def _padded(shape: Shape, n: int) -> Shape:
    return (1,) * (n - len(shape)) + tuple(shape)


def elementwise(op: str, *operands: Any) -> Node:
    """Apply a row of the table to arrays and numbers, broadcast and promoted."""
    return row(op, promoted_nodes(op, operands))


def row(op: str, nodes: Sequence[Node]) -> Node:
    """Apply a row to nodes of one dtype (the third of `where` is bool); DTypeError for others."""
    found = ROWS[op]
    dtype = nodes[0].dtype
    if found.result == "float" and dtype.kind in "biu":
        nodes = [cast(node, dtypes.named("float32")) for node in nodes]
        dtype = nodes[0].dtype
    if dtype.kind not in found.wgsl:
        expected = " or ".join(_LETTERS[kind] for kind in found.wgsl)
        raise DTypeError(f"xp.{op}", expected, f"dtype {dtype}")
    if op == "nextafter" and dtype.itemsize == 2:
        raise DTypeError("xp.nextafter", "float32", "dtype float16", hint="Use xp.astype.")
    shape = broadcast_shape(f"xp.{op}", [node.shape for node in nodes])
    result = dtypes.named("bool") if found.result == "bool" else dtype
    return Node(nodes[0].device, op, nodes, shape, result)


def cast(node: Node, dtype: DType) -> Node:
    """Convert to another dtype."""
    if node.dtype == dtype:
        return node
    made = Node(node.device, "cast", (node,), node.shape, dtype)
    if node.host is not None and node.size == 1:
        from bascule.array.evaluate import evaluate

        made.host = evaluate(made, [node.host])
        made.settle()
    return made


def iota(shape: Shape, device: ArrayDevice | None = None, dtype: str = "int32") -> Node:
    """Return 0, 1, 2, ... in row-major order."""
    return Node(device or default_device(), "iota", (), shape, dtypes.named(dtype))


def layout(node: Node) -> tuple[Node, Strided]:
    """Return the dense node under a view, and the view's layout in it."""
    if node.op == "view" and not node.is_known:
        return node.inputs[0], node.attribute
    return node, Strided(0, dense(node.shape))


def view(node: Node, shape: Shape, strides: Sequence[int], offset: int) -> Node:
    """Return a view of the base of `node`; strides and offset count the base's elements."""
    if len(shape) > MAX_AXES:
        raise ShapeError("shape", f"at most {MAX_AXES} axes", f"{len(shape)}")
    base, _ = layout(node)
    if base.host is not None and base.size == 1 and prod(shape) == 1:
        return constant(base.host.reshape(shape), node.device)
    return Node(
        node.device, "view", (base,), tuple(shape), node.dtype, Strided(offset, tuple(strides))
    )


def broadcast(node: Node, shape: Shape) -> Node:
    """Return a view that repeats `node` along axes; ShapeError if the shapes do not broadcast."""
    if node.shape == shape:
        return node
    _, lies = layout(node)
    missing = len(shape) - len(node.shape)
    fits = missing >= 0 and all(
        n in (1, wide) for n, wide in zip(node.shape, shape[missing:], strict=True)
    )
    if not fits:
        raise ShapeError("broadcast_to", f"a shape that fits {shape}", str(node.shape))
    kept = zip(node.shape, lies.strides, shape[missing:], strict=True)
    strides = [0] * missing + [0 if n == 1 and wide != 1 else step for n, step, wide in kept]
    return view(node, shape, strides, lies.offset)


def narrow(node: Node, axis: int, start: int, stop: int) -> Node:
    """Return a view of the elements from `start` to `stop` along an axis, or the node itself."""
    if (start, stop) == (0, node.shape[axis]):
        return node
    _, lies = layout(node)
    shape = list(node.shape)
    shape[axis] = stop - start
    return view(node, tuple(shape), lies.strides, lies.offset + start * lies.strides[axis])


def permute(node: Node, axes: Sequence[int]) -> Node:
    """Return the axes in another order."""
    if list(axes) == list(range(len(axes))):
        return node
    _, lies = layout(node)
    shape = tuple(node.shape[axis] for axis in axes)
    return view(node, shape, [lies.strides[axis] for axis in axes], lies.offset)


def reshape(node: Node, shape: Shape) -> Node:
    """Return the same elements in row-major order; a view if strides allow it, else a copy."""
    if node.shape == shape:
        return node
    _, lies = layout(node)
    strides = _reshaped(node.shape, lies.strides, shape)
    if strides is None:
        node = dense_of(node)
        return view(node, shape, dense(shape), 0)
    return view(node, shape, strides, lies.offset)


def dense_of(node: Node) -> Node:
    """Return a node whose memory is row-major: itself, or a copy of a view."""
    if node.is_known or node.op != "view":
        return node
    base, lies = layout(node)
    if lies == Strided(0, dense(node.shape)) and base.size == node.size:
        return node if base.shape != node.shape else base
    return Node(node.device, "copy", (node,), node.shape, node.dtype)


def flat_of(node: Node) -> Node:
    """Return all elements along one axis in row-major order, in their own memory, for gathers."""
    result = reshape(node, (node.size,))
    if result.op == "view" and not result.is_known:
        base, lies = layout(result)
        if lies == Strided(0, (1,)) and base.size == result.size:
            return base
        return Node(result.device, "copy", (result,), result.shape, result.dtype)
    return result


def _reshaped(old: Shape, strides: Sequence[int], new: Shape) -> tuple[int, ...] | None:
    """Return strides of the same elements in another shape; None if there are none."""
    if not prod(old):
        return dense(new)
    runs = [(n, step) for n, step in zip(old, strides, strict=True) if n != 1]
    results: list[int] = []
    at = 0
    rest, step = 1, 1  # elements left in the run of axes that is being split, from the right
    runs.reverse()
    for size in reversed(new):
        if size == 1:
            results.append(step * rest if rest > 1 else 1)
            continue
        taken, first = 1, 0
        while taken < size:
            if rest == 1:
                if at == len(runs):
                    return None
                rest, step = runs[at]
                at += 1
            if taken == 1:
                first = step
            elif step != first * taken:
                return None
            if rest <= size // taken and (size // taken) % rest == 0:
                taken *= rest
                step, rest = step * rest, 1
            elif rest % (size // taken) == 0:
                part = size // taken
                taken, rest, step = size, rest // part, step * part
            else:
                return None
        results.append(first)
    return tuple(reversed(results))


def reduce(op: str, node: Node, name: str, axes: Sequence[int], dtype: DType) -> Node:
    """Reduce along axes; the result lacks them."""
    shape = tuple(n for axis, n in enumerate(node.shape) if axis not in axes)
    return Node(node.device, op, (node,), shape, dtype, (name, tuple(axes)))


def gather(data: Node, index: Node) -> Node:
    """Gather data's elements by row-major index (uint32 or int32, within bounds)."""
    return Node(data.device, "gather", (flat_of(data), index), index.shape, data.dtype)


def axis_of(axis: int, n_axes: int, where: str) -> int:
    """Return an axis counted from the front; ArrayIndexError if it does not exist."""
    result = axis + n_axes if axis < 0 else axis
    if not isinstance(axis, int) or not 0 <= result < n_axes:
        raise ArrayIndexError(where, f"an axis of an array of {n_axes} axes", f"axis {axis}")
    return result


def axes_of(axis: Any, n_axes: int, where: str) -> tuple[int, ...]:
    """Return axes counted from the front in ascending order; None means all."""
    if axis is None:
        return tuple(range(n_axes))
    given = axis if isinstance(axis, tuple | list) else (axis,)
    result = sorted(axis_of(each, n_axes, where) for each in given)
    if len(set(result)) != len(result):
        raise ShapeError(where, "each axis once", str(axis))
    return tuple(result)
