"""The meaning of each node in numpy: the wasm and cpu tiers run this, and tests compare with it."""

from __future__ import annotations

from collections.abc import Callable
from math import prod
from typing import Any

from bascule.array.dtypes import DType
from bascule.array.graph import Node, Product
from bascule.array.rows import ROWS
from bascule.base.arrays import np

ELEMENTWISE = frozenset((*ROWS, "cast", "bits"))
# Terms of a product that are added one after the other.
_MAX_TERMS = 4096
# Elements along an axis from which two radix sorts are faster than one merge sort.
_MIN_FOR_RADIX = 4096


def evaluate(node: Node, inputs: list[Any]) -> Any:
    """Return the numbers of a node, from those of its inputs."""
    with np.errstate(all="ignore"):
        result = _evaluate(node, inputs)
        return np.asarray(result).astype(node.dtype, copy=False).reshape(node.shape)


def _evaluate(node: Node, inputs: list[Any]) -> Any:
    if node.op in ELEMENTWISE:
        # A row's own type is that of its operands, even if the result is wider.
        return np.broadcast_to(meaning(node)(*inputs), node.shape)
    if node.op == "iota":
        return _numbered(node)
    if node.op == "gather":
        return np.take(inputs[0].reshape(-1), inputs[1].astype(np.intp))
    if node.op == "view":
        return viewed(inputs[0], node)
    if node.op == "order":
        return _order(inputs[0])
    if node.op == "matmul":
        return _product(*factors(node, inputs))
    if node.op == "fft":
        return _transformed(inputs[0].reshape(node.shape), node.attribute[2])
    return _combined(node, inputs[0])


def meaning(node: Node) -> Callable[..., Any]:
    """Return an elementwise operation on numpy arrays that broadcast together."""
    if node.op == "cast":
        return lambda x: cast(x, node.dtype)
    return _bits if node.op == "bits" else ROWS[node.op].numpy


def _bits(x: Any) -> Any:
    return np.ascontiguousarray(x, np.float32).view(np.uint32)


def factors(node: Node, inputs: list[Any]) -> tuple[Any, Any]:
    """Return the matrices x (n, M, K) and y (K, N) or (n, K, N) of a "matmul", without a copy."""
    shapes: Product = node.attribute
    y = inputs[1].reshape(shapes.y)
    return inputs[0].reshape(shapes.x), y.swapaxes(-1, -2) if shapes.transposed else y


def _product(x: Any, y: Any) -> Any:
    """Compute x @ y; long sums of floats as sums of sums: without a BLAS numpy adds in a row."""
    terms = x.shape[-1]
    if x.dtype.kind != "f" or terms <= _MAX_TERMS:
        return np.matmul(x, y)
    result = np.zeros(1, np.float32)
    for start in range(0, terms, _MAX_TERMS):
        part = slice(start, start + _MAX_TERMS)
        result = result + np.matmul(x[..., part], y[..., part, :])
    return result


def _numbered(node: Node) -> Any:
    """Return the numbers of an "iota"; axes along which they do not change take no memory."""
    if node.attribute is None:
        return np.arange(node.size).astype(node.dtype)
    # Integers wrap as the result's type does; floats are exact until they are rounded once.
    dtype = node.dtype if node.dtype.kind in "iu" else np.dtype(np.int64)
    result = np.asarray(node.attribute.offset).astype(dtype)
    for axis, step in enumerate(node.attribute.strides):
        if step and node.shape[axis] > 1:
            shape = [-1 if a == axis else 1 for a in range(len(node.shape))]
            result = result + (step * np.arange(node.shape[axis])).astype(dtype).reshape(shape)
    return np.broadcast_to(result.astype(node.dtype, copy=False), node.shape)


def _order(keys: Any) -> Any:
    """Return the stable order of each row of uint32.

    By halves: numpy's radix sort is for 16 bits only, and 2 to 4 times as fast as its merge sort.
    """
    if keys.shape[-1] < _MIN_FOR_RADIX:
        return np.argsort(keys, axis=-1, kind="stable")
    result: Any = np.empty(keys.shape, np.int32)
    for row, order in zip(keys, result, strict=True):
        first = np.argsort(row.astype(np.uint16), kind="stable")  # the lower bits
        high = (row >> 16).astype(np.uint16)
        order[:] = first.take(high.take(first).argsort(kind="stable"))
    return result


def _transformed(x: Any, sign: int) -> Any:
    """Transform pairs along the last axis but one; in memory they are complex numbers."""
    pairs = np.ascontiguousarray(x, np.float32).view(np.complex64)[..., 0]
    result = np.fft.fft(pairs) if sign < 0 else np.fft.ifft(pairs, norm="forward")
    return result.astype(np.complex64, copy=False).view(np.float32).reshape(x.shape)


def _combined(node: Node, x: Any) -> Any:
    name, axes = node.attribute
    if node.op == "scan":
        along = np.cumsum if name == "sum" else np.cumprod
        return along(x, axis=axes, dtype=node.dtype)
    if node.op == "reduce" and name not in ("sum", "prod"):
        return getattr(np, name)(x, axis=axes)
    kept = [axis for axis in range(x.ndim) if axis not in axes]
    extent = prod(x.shape[axis] for axis in axes)
    flat = x.transpose(*kept, *axes).reshape(*(x.shape[axis] for axis in kept), extent)
    if node.op == "best":
        return (np.argmin if name == "min" else np.argmax)(flat, axis=-1)
    # In float32 also for float16, as on the GPU.
    wide = np.float32 if node.dtype.kind == "f" else node.dtype
    return getattr(np, name)(flat, axis=-1, dtype=wide)


def viewed(base: Any, node: Node) -> Any:
    """Return the elements of a dense array that a view shows, without a copy."""
    layout = node.attribute
    flat = base.reshape(-1)
    if not node.size:
        return np.empty(node.shape, node.dtype)
    # An array that was itself a view, such as a column, has gaps between its elements.
    strides = tuple(step * flat.strides[0] for step in layout.strides)
    return np.lib.stride_tricks.as_strided(
        flat[layout.offset :], node.shape, strides, writeable=False
    )


def cast(x: Any, dtype: DType) -> Any:
    """As numpy, but floats out of an integer's range saturate, and NaN becomes 0."""
    if x.dtype.kind == "f" and dtype.kind in "iu":
        limits = np.iinfo(np.int32 if dtype.kind == "i" else np.uint32)
        whole = np.nan_to_num(x.astype(np.float64), nan=0.0)
        low = limits.min if dtype.kind == "i" else np.iinfo(np.int32).min
        return np.clip(whole, low, limits.max).astype(np.int64).astype(dtype)
    return x.astype(dtype)
