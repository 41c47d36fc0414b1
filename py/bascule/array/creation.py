"""Create arrays from a rule; none of them is copied to the device."""

from __future__ import annotations

from math import ceil
from typing import Any

from bascule.array import build, dtypes
from bascule.array.array import Array
from bascule.array.errors import ShapeError
from bascule.array.graph import Node, Shape
from bascule.array.place import ArrayDevice
from bascule.array.place import device as place_of


def _shape_of(shape: Any) -> Shape:
    given = (shape,) if isinstance(shape, int) else tuple(shape)
    if any(not hasattr(n, "__index__") or int(n) < 0 for n in given):
        raise ShapeError("shape", "whole numbers of 0 or more", str(shape))
    return tuple(int(n) for n in given)


def _filled(shape: Shape, value: Any, dtype: Any, device: ArrayDevice) -> Array:
    return Array(build.broadcast(build.number(value, dtype, device), shape))


def full(shape: Any, fill_value: Any, *, dtype: Any = None, device: Any = None) -> Array:
    """Return an array filled with one number."""
    result = dtypes.of_number(fill_value) if dtype is None else dtypes.checked(dtype)
    dtypes.for_scalar(fill_value, result, "xp.full")
    return _filled(_shape_of(shape), fill_value, result, place_of(device))


def zeros(shape: Any, *, dtype: Any = None, device: Any = None) -> Array:
    """Return zeros, by default float32."""
    return _filled(_shape_of(shape), 0, dtypes.checked(dtype or "float32"), place_of(device))


def ones(shape: Any, *, dtype: Any = None, device: Any = None) -> Array:
    """Return ones, by default float32."""
    return _filled(_shape_of(shape), 1, dtypes.checked(dtype or "float32"), place_of(device))


def empty(shape: Any, *, dtype: Any = None, device: Any = None) -> Array:
    """Return zeros: WebGPU has no uninitialized memory."""
    return zeros(shape, dtype=dtype, device=device)


def full_like(x: Array, /, fill_value: Any, *, dtype: Any = None, device: Any = None) -> Array:
    """Return an array filled with one number, shaped like x."""
    result = x.dtype if dtype is None else dtypes.checked(dtype)
    dtypes.for_scalar(fill_value, result, "xp.full_like")
    return _filled(x.shape, fill_value, result, x.device if device is None else place_of(device))


def zeros_like(x: Array, /, *, dtype: Any = None, device: Any = None) -> Array:
    """Return zeros, shaped like x."""
    return full_like(x, False, dtype=dtype, device=device)


def ones_like(x: Array, /, *, dtype: Any = None, device: Any = None) -> Array:
    """Return ones, shaped like x."""
    return full_like(x, True, dtype=dtype, device=device)


def empty_like(x: Array, /, *, dtype: Any = None, device: Any = None) -> Array:
    """Return zeros, shaped like x."""
    return zeros_like(x, dtype=dtype, device=device)


def arange(
    start: Any, /, stop: Any = None, step: Any = 1, *, dtype: Any = None,
    device: Any = None,
) -> Array:  # fmt: skip
    """Return start, start + step, ... below stop."""
    if stop is None:
        start, stop = 0, start
    if not step:
        raise ShapeError("xp.arange", "a step that is not 0", "0")
    whole = all(isinstance(each, int) for each in (start, stop, step))
    result = dtypes.checked(dtype or ("int32" if whole else "float32"))
    n = max(0, -(-(stop - start) // step) if whole else ceil((stop - start) / step))
    return _ramp(n, start, step, result, place_of(device))


def _ramp(n: int, start: float, step: float, dtype: Any, device: ArrayDevice) -> Array:
    if dtype.kind in "iu" and isinstance(start, int) and isinstance(step, int):
        wide = dtypes.named("uint32" if dtype.kind == "u" else "int32")
        steps = build.iota((n,), device, wide.name)
    else:
        wide = dtypes.named("float32")
        steps = build.cast(build.iota((n,), device), wide)
    scaled = build.row("multiply", [steps, _wrapped(step, wide, device)])
    return Array(build.cast(build.row("add", [scaled, _wrapped(start, wide, device)]), dtype))


def _wrapped(value: Any, dtype: Any, device: ArrayDevice) -> Node:
    return build.number(value & 0xFFFFFFFF if dtype.kind == "u" else value, dtype, device)


def linspace(
    start: float, stop: float, /, num: int, *, dtype: Any = None, device: Any = None,
    endpoint: bool = True,
) -> Array:  # fmt: skip
    """Return `num` evenly spaced numbers from start to stop."""
    if num < 0:
        raise ShapeError("xp.linspace", "num of 0 or more", str(num))
    place, float32 = place_of(device), dtypes.named("float32")
    parts = max(num - 1 if endpoint else num, 1)
    at = build.cast(build.iota((num,), place), float32)
    share = build.row("divide", [at, build.number(parts, float32, place)])
    one = build.number(1, float32, place)
    low = build.row(
        "multiply", [build.row("subtract", [one, share]), build.number(start, float32, place)]
    )
    high = build.row("multiply", [share, build.number(stop, float32, place)])
    result = dtypes.checked(dtype or "float32")
    return Array(build.cast(build.row("add", [low, high]), result))


def eye(
    n_rows: int, n_cols: int | None = None, /, *, k: int = 0, dtype: Any = None, device: Any = None
) -> Array:
    """Return ones on the k-th diagonal, zeros elsewhere."""
    shape = _shape_of((n_rows, n_rows if n_cols is None else n_cols))
    place = place_of(device)
    k = max(-shape[0], min(k, shape[1]))  # within int32, and outside all the same
    row, column = coordinates(shape, place)
    shifted = build.row("add", [row, build.number(k, row.dtype, place)])
    result = build.row("equal", [shifted, column])
    return Array(build.cast(result, dtypes.checked(dtype or "float32")))


def coordinates(shape: Shape, device: ArrayDevice) -> list[Node]:
    """Return the index along each of the last two axes, as int32 of that shape."""
    from bascule.array.graph import Strided

    int32 = dtypes.named("int32")
    zeros = [0] * len(shape)
    results: list[Node] = []
    for axis in (len(shape) - 2, len(shape) - 1):
        strides = tuple(1 if a == axis else 0 for a in range(len(zeros)))
        results.append(Node(device, "iota", (), shape, int32, Strided(0, strides)))
    return results


def tril(x: Array, /, *, k: int = 0) -> Array:
    """Return x with zeros above the k-th diagonal of its matrices."""
    return _triangle(x, k, "greater_equal", "xp.tril")


def triu(x: Array, /, *, k: int = 0) -> Array:
    """Return x with zeros below the k-th diagonal of its matrices."""
    return _triangle(x, k, "less_equal", "xp.triu")


def _triangle(x: Array, k: int, op: str, where: str) -> Array:
    node = build.node_of(x, where)
    if len(node.shape) < 2:
        raise ShapeError(where, "at least two axes", f"shape {node.shape}")
    k = max(-node.shape[-2] - 1, min(k, node.shape[-1] + 1))  # within int32
    row, column = coordinates(node.shape, node.device)
    shifted = build.row("add", [row, build.number(k, row.dtype, node.device)])
    zero = build.number(0, node.dtype, node.device)
    return Array(build.row("where", [node, zero, build.row(op, [shifted, column])]))


def meshgrid(*arrays: Array, indexing: str = "xy") -> tuple[Array, ...]:
    """Return each array broadcast over the axes of all; "xy" exchanges the first two."""
    if indexing not in ("xy", "ij"):
        raise ShapeError("xp.meshgrid", '"xy" or "ij"', repr(indexing))
    nodes = [build.node_of(each, "xp.meshgrid") for each in arrays]
    if any(len(node.shape) > 1 for node in nodes):
        raise ShapeError("xp.meshgrid", "arrays of one axis", str([n.shape for n in nodes]))
    sizes = tuple(node.size for node in nodes)
    results: list[Array] = []
    for at, node in enumerate(nodes):
        shape = tuple(n if i == at else 1 for i, n in enumerate(sizes))
        wide = build.broadcast(build.reshape(node, shape), sizes)
        if indexing == "xy" and len(nodes) > 1:
            wide = build.permute(wide, (1, 0, *range(2, len(nodes))))
        results.append(Array(wide))
    return tuple(results)
