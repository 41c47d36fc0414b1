"""The standard's linalg extension.

numpy computes cholesky, solve, inv, pinv, det, slogdet, qr, svd, svdvals, eigh, eigvalsh and
matrix_rank on the CPU, in float64, whatever the device: operands are read at once, results are
copied to the device. eig and eigvals, whose results are complex, are missing.
"""

from __future__ import annotations

from collections.abc import Callable
from math import inf
from typing import Any, NamedTuple

from bascule.array import build, dtypes
from bascule.array.array import Array
from bascule.array.creation import coordinates
from bascule.array.errors import ShapeError
from bascule.array.linear import matmul, matrix_transpose, outer, tensordot, vecdot
from bascule.array.place import numbers_at_once
from bascule.array.statistics import Axis
from bascule.array.statistics import max as max_
from bascule.array.statistics import min as min_
from bascule.array.statistics import sum as sum_
from bascule.base.arrays import np

__all__ = [
    "cholesky", "cross", "det", "diagonal", "eigh", "eigvalsh", "inv", "matmul", "matrix_norm",
    "matrix_power", "matrix_rank", "matrix_transpose", "outer", "pinv", "qr", "slogdet", "solve",
    "svd", "svdvals", "tensordot", "trace", "vecdot", "vector_norm",
]  # fmt: skip


def vector_norm(x: Array, /, *, axis: Axis = None, keepdims: bool = False, ord: float = 2) -> Array:
    """Return (sum |x|**ord)**(1/ord) over axes; for infinite order the largest or smallest |x|."""
    size = abs(x)
    if ord == inf:
        return max_(size, axis=axis, keepdims=keepdims)
    if ord == -inf:
        return min_(size, axis=axis, keepdims=keepdims)
    if ord == 0:
        return _as(sum_(_as(size != 0, "float32"), axis=axis, keepdims=keepdims), x.dtype)
    if ord == 1:
        return sum_(size, axis=axis, keepdims=keepdims)
    if ord == 2:
        wide = _as(size, "float32")
        total = sum_(wide * wide, axis=axis, keepdims=keepdims)
        return _as(Array(build.elementwise("sqrt", total)), x.dtype)
    return sum_(size**ord, axis=axis, keepdims=keepdims) ** (1 / ord)


def matrix_norm(x: Array, /, *, keepdims: bool = False, ord: Any = "fro") -> Array:
    """Return the norm of matrices: "fro", 1, -1, inf, -inf, and by numpy's svd 2, -2 or "nuc"."""
    if x.ndim < 2:
        raise ShapeError("matrix_norm", "at least two axes", f"shape {x.shape}")
    if ord == "fro":
        return vector_norm(x, axis=(-2, -1), keepdims=keepdims)
    if ord in (1, -1, inf, -inf):
        sums = sum_(abs(x), axis=-2 if ord in (1, -1) else -1, keepdims=True)
        result = (max_ if ord in (1, inf) else min_)(sums, axis=(-2, -1), keepdims=keepdims)
        return result
    if ord in (2, -2, "nuc"):
        values = svdvals(x)
        result = {2: max_, -2: min_, "nuc": sum_}[ord](values, axis=-1)
        return result[..., None, None] if keepdims else result
    expected = "'fro', 'nuc', 1, -1, 2, -2, inf or -inf"
    raise ShapeError("matrix_norm", expected, repr(ord))


def trace(x: Array, /, *, offset: int = 0, dtype: Any = None) -> Array:
    """Return the sum of a diagonal of matrices."""
    return sum_(diagonal(x, offset=offset), axis=-1, dtype=dtype)


def diagonal(x: Array, /, *, offset: int = 0) -> Array:
    """Return a diagonal of matrices, without a copy."""
    if x.ndim < 2:
        raise ShapeError("diagonal", "at least two axes", f"shape {x.shape}")
    node = build.node_of(x, "diagonal")
    _, lies = build.layout(node)
    rows, columns = node.shape[-2:]
    n = max(0, min(rows, columns - offset) if offset >= 0 else min(rows + offset, columns))
    first = offset * lies.strides[-1] if offset >= 0 else -offset * lies.strides[-2]
    strides = (*lies.strides[:-2], lies.strides[-2] + lies.strides[-1])
    return Array(
        build.view(node, (*node.shape[:-2], n), strides, lies.offset + (first if n else 0))
    )


def cross(x1: Array, x2: Array, /, *, axis: int = -1) -> Array:
    """Return the vector product of arrays of size 3 along an axis."""
    from bascule.array.manipulation import broadcast_arrays, moveaxis, stack

    a, b = broadcast_arrays(x1, x2)
    if a.shape[axis] != 3:
        raise ShapeError("cross", "3 elements on that axis", f"shape {a.shape}, axis {axis}")
    a, b = (moveaxis(each, axis, -1) for each in (a, b))
    ax, bx = ([each[..., i] for i in range(3)] for each in (a, b))
    parts = [ax[i - 2] * bx[i - 1] - ax[i - 1] * bx[i - 2] for i in range(3)]
    return moveaxis(stack(parts, axis=-1), -1, axis)


def matrix_power(x: Array, n: int, /) -> Array:
    """Return square matrices multiplied n times; negative powers of the inverse."""
    if x.ndim < 2 or x.shape[-1] != x.shape[-2]:
        raise ShapeError("matrix_power", "square matrices", f"shape {x.shape}")
    if n < 0:
        x, n = inv(x), -n
    row, column = coordinates(x.shape, x.device)
    result = _as(Array(build.row("equal", [row, column])), x.dtype)
    while n:
        result = matmul(result, x) if n & 1 else result
        x, n = matmul(x, x) if n > 1 else x, n >> 1
    return result


def _as(x: Array, dtype: Any) -> Array:
    return Array(build.cast(build.node_of(x, "linalg"), dtypes.checked(dtype)))


def _by_numpy(
    what: str, function: Callable[..., Any], *operands: Array, square: bool = True
) -> Any:
    """Compute on the CPU in float64; `_back` copies the result to the device."""
    nodes = [build.node_of(each, f"xp.linalg.{what}") for each in operands]
    build.one_device(f"xp.linalg.{what}", nodes)
    for node in nodes[:1]:
        if len(node.shape) < 2 or (square and node.shape[-1] != node.shape[-2]):
            expected = "square matrices" if square else "matrices"
            raise ShapeError(f"xp.linalg.{what}", expected, f"shape {node.shape}")
    numbers = [numbers_at_once(node, f"xp.linalg.{what}").astype(np.float64) for node in nodes]
    try:
        return function(*numbers)
    except (np.linalg.LinAlgError, ValueError) as error:
        shapes = " and ".join(str(node.shape) for node in nodes)
        raise ShapeError(f"xp.linalg.{what}", f"what has a solution ({error})", shapes) from None


def _back(numbers: Any, like: Array) -> Array:
    dtype = like.dtype if like.dtype.kind == "f" else dtypes.named("float32")
    return Array(build.constant(np.asarray(numbers).astype(dtype), like.device))


def cholesky(x: Array, /, *, upper: bool = False) -> Array:
    """Return the triangular factor of positive definite matrices, by numpy on the CPU."""
    result = _by_numpy("cholesky", np.linalg.cholesky, x)
    return _back(np.swapaxes(result, -1, -2) if upper else result, x)


def solve(x1: Array, x2: Array, /) -> Array:
    """Solve x1 @ x = x2, by numpy on the CPU; x2 of one axis is one column."""
    one = x2.ndim == 1
    result = _by_numpy("solve", lambda a, b: np.linalg.solve(a, b[..., None] if one else b), x1, x2)
    return _back(result[..., 0] if one else result, x1)


def inv(x: Array, /) -> Array:
    """Return the inverse of square matrices, by numpy on the CPU."""
    return _back(_by_numpy("inv", np.linalg.inv, x), x)


def det(x: Array, /) -> Array:
    """Return the determinant of square matrices, by numpy on the CPU."""
    return _back(_by_numpy("det", np.linalg.det, x), x)


class SlogdetResult(NamedTuple):
    """The result of `slogdet`."""

    sign: Array
    logabsdet: Array


def slogdet(x: Array, /) -> SlogdetResult:
    """Return the sign and the logarithm of the size of determinants, by numpy on the CPU."""
    sign, size = _by_numpy("slogdet", np.linalg.slogdet, x)
    return SlogdetResult(_back(sign, x), _back(size, x))


class QRResult(NamedTuple):
    """The result of `qr`."""

    Q: Array
    R: Array


def qr(x: Array, /, *, mode: str = "reduced") -> QRResult:
    """Return x = Q @ R with orthonormal columns and a triangle, by numpy on the CPU."""
    if mode not in ("reduced", "complete"):
        raise ShapeError("xp.linalg.qr", '"reduced" or "complete"', repr(mode))
    result = _by_numpy("qr", lambda a: np.linalg.qr(a, mode=mode), x, square=False)
    return QRResult(*(_back(each, x) for each in result))


class SVDResult(NamedTuple):
    """The result of `svd`."""

    U: Array
    S: Array
    Vh: Array


def svd(x: Array, /, *, full_matrices: bool = True) -> SVDResult:
    """Return singular values and vectors, by numpy on the CPU."""
    result = _by_numpy("svd", lambda a: np.linalg.svd(a, full_matrices), x, square=False)
    return SVDResult(*(_back(each, x) for each in result))


def svdvals(x: Array, /) -> Array:
    """Return singular values, largest first, by numpy on the CPU."""
    result = _by_numpy("svdvals", lambda a: np.linalg.svd(a, compute_uv=False), x, square=False)
    return _back(result, x)


class EighResult(NamedTuple):
    """The result of `eigh`."""

    eigenvalues: Array
    eigenvectors: Array


def eigh(x: Array, /) -> EighResult:
    """Return eigenvalues and eigenvectors of symmetric matrices, by numpy on the CPU."""
    return EighResult(*(_back(each, x) for each in _by_numpy("eigh", np.linalg.eigh, x)))


def eigvalsh(x: Array, /) -> Array:
    """Return eigenvalues of symmetric matrices, by numpy on the CPU."""
    return _back(_by_numpy("eigvalsh", np.linalg.eigvalsh, x), x)


def matrix_rank(x: Array, /, *, rtol: float | Array | None = None) -> Array:
    """Count the singular values above rtol times the largest, int32, by numpy on the CPU."""
    result = _by_numpy("matrix_rank", lambda a: np.linalg.svd(a, compute_uv=False), x, square=False)
    limit = max(x.shape[-2:]) * float(np.finfo(np.float32).eps) if rtol is None else rtol
    if isinstance(limit, Array):
        limit = numbers_at_once(build.node_of(limit, "matrix_rank"), "matrix_rank")[..., None]
    maximum = result.max(axis=-1, keepdims=True) if result.shape[-1] else result
    counts = (result > maximum * limit).sum(axis=-1) if result.shape[-1] else result.sum(axis=-1)
    return Array(build.constant(np.asarray(counts).astype(np.int32), x.device))


def pinv(x: Array, /, *, rtol: float | Array | None = None) -> Array:
    """Return the pseudo-inverse of matrices, by numpy on the CPU."""
    limit: Any = max(x.shape[-2:], default=0) * float(np.finfo(np.float32).eps)
    if rtol is not None:
        limit = np.asarray(rtol)
    result = _by_numpy("pinv", lambda a: np.linalg.pinv(a, rcond=limit), x, square=False)
    return _back(result, x)
