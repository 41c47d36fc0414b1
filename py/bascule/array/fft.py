"""Fourier transforms: `xp.fft`. Complex numbers are pairs of arrays, since WebGPU has none."""

# pyright: reportPrivateUsage=false
# An array's node is private to this package.

from __future__ import annotations

from collections.abc import Sequence
from math import prod, sqrt
from typing import Any, NamedTuple

from bascule.array import build, dtypes, manipulation
from bascule.array.array import Array
from bascule.array.creation import arange, zeros
from bascule.array.errors import DTypeError, ShapeError
from bascule.array.graph import Node
from bascule.array.matrices import contiguous

_NORMS = ("backward", "ortho", "forward")


class ComplexPair(NamedTuple):
    """Complex numbers as two float32 arrays of one shape: real + imag * i."""

    real: Array
    imag: Array


def fft(
    x: Array | ComplexPair, /, *, n: int | None = None, axis: int = -1, norm: str = "backward"
) -> ComplexPair:
    """Transform along an axis, truncated or zero-padded to n; x is real or a pair."""
    return _transform("xp.fft.fft", _pair(x, "xp.fft.fft"), n, axis, norm, -1)


def ifft(
    x: Array | ComplexPair, /, *, n: int | None = None, axis: int = -1, norm: str = "backward"
) -> ComplexPair:
    """The inverse of `fft`."""
    return _transform("xp.fft.ifft", _pair(x, "xp.fft.ifft"), n, axis, norm, 1)


def fftn(
    x: Array | ComplexPair,
    /,
    *,
    s: Sequence[int] | None = None,
    axes: Sequence[int] | None = None,
    norm: str = "backward",
) -> ComplexPair:
    """Transform along several axes, by default all; `s` are their lengths."""
    return _along_all("xp.fft.fftn", x, s, axes, norm, -1)


def ifftn(
    x: Array | ComplexPair,
    /,
    *,
    s: Sequence[int] | None = None,
    axes: Sequence[int] | None = None,
    norm: str = "backward",
) -> ComplexPair:
    """The inverse of `fftn`."""
    return _along_all("xp.fft.ifftn", x, s, axes, norm, 1)


def rfft(
    x: Array, /, *, n: int | None = None, axis: int = -1, norm: str = "backward"
) -> ComplexPair:
    """Return the first n // 2 + 1 numbers of a real array's transform; the rest mirrors them."""
    result = _transform("xp.fft.rfft", _real(x, "xp.fft.rfft"), n, axis, norm, -1)
    length = result.real.shape[axis]
    return ComplexPair(*(_slice(part, axis, 0, length // 2 + 1) for part in result))


def irfft(
    x: Array | ComplexPair, /, *, n: int | None = None, axis: int = -1, norm: str = "backward"
) -> Array:
    """The inverse of `rfft`: n real numbers, by default 2 * (m - 1) of m."""
    where = "xp.fft.irfft"
    real, imag = _pair(x, where)
    at = build.axis_of(axis, real.ndim, where)
    length = 2 * (real.shape[at] - 1) if n is None else n
    if length < 1:
        raise ShapeError(where, "a length of 1 or more", f"{length}")
    half = ComplexPair(*(_fitted(part, at, length // 2 + 1) for part in (real, imag)))
    mirrored = [_slice(part, at, 1, length - length // 2) for part in half]
    mirrored = [manipulation.flip(part, axis=at) for part in mirrored]
    full = ComplexPair(
        manipulation.concat([half.real, mirrored[0]], axis=at),
        manipulation.concat([half.imag, -mirrored[1]], axis=at),
    )
    return _transform(where, full, None, at, norm, 1).real


def rfftn(
    x: Array,
    /,
    *,
    s: Sequence[int] | None = None,
    axes: Sequence[int] | None = None,
    norm: str = "backward",
) -> ComplexPair:
    """`rfft` along the last of several axes, `fft` along the others; see `fftn`."""
    where = "xp.fft.rfftn"
    others, (axis, n) = _split(where, _real(x, where).real.ndim, s, axes)
    result = rfft(x, n=n, axis=axis, norm=norm)
    return _along(where, result, others, norm, -1)


def irfftn(
    x: Array | ComplexPair,
    /,
    *,
    s: Sequence[int] | None = None,
    axes: Sequence[int] | None = None,
    norm: str = "backward",
) -> Array:
    """The inverse of `rfftn`; the last of the lengths is by default 2 * (m - 1) of m."""
    where = "xp.fft.irfftn"
    pair = _pair(x, where)
    others, (axis, n) = _split(where, pair.real.ndim, s, axes)
    return irfft(_along(where, pair, others, norm, 1), n=n, axis=axis, norm=norm)


def hfft(
    x: Array | ComplexPair, /, *, n: int | None = None, axis: int = -1, norm: str = "backward"
) -> Array:
    """Return the n real numbers, by default 2 * (m - 1), whose `ihfft` are these m.

    These are half of a signal that is symmetric up to the sign of its imaginary parts.
    """
    real, imag = _pair(x, "xp.fft.hfft")
    return irfft(ComplexPair(real, -imag), n=n, axis=axis, norm=_inverse_norm("xp.fft.hfft", norm))


def ihfft(
    x: Array, /, *, n: int | None = None, axis: int = -1, norm: str = "backward"
) -> ComplexPair:
    """The inverse of `hfft`: n // 2 + 1 numbers from n real ones."""
    real, imag = rfft(x, n=n, axis=axis, norm=_inverse_norm("xp.fft.ihfft", norm))
    return ComplexPair(real, -imag)


def fftfreq(n: int, /, *, d: float = 1.0, dtype: Any = None, device: Any = None) -> Array:
    """Return the frequencies of the results of `fft`, for samples d apart."""
    _positive("xp.fft.fftfreq", n)
    at = arange(n, dtype="float32", device=device)
    wrapped = (at > (n - 1) // 2) * 1.0
    return _frequencies("xp.fft.fftfreq", (at - wrapped * float(n)) / (n * d), dtype)


def rfftfreq(n: int, /, *, d: float = 1.0, dtype: Any = None, device: Any = None) -> Array:
    """Return the frequencies of the results of `rfft`, for samples d apart."""
    _positive("xp.fft.rfftfreq", n)
    at = arange(n // 2 + 1, dtype="float32", device=device)
    return _frequencies("xp.fft.rfftfreq", at / (n * d), dtype)


def fftshift(x: Array, /, *, axes: int | Sequence[int] | None = None) -> Array:
    """Move frequency 0 to the middle of these axes, by default all."""
    return _shifted(x, axes, "xp.fft.fftshift", 1)


def ifftshift(x: Array, /, *, axes: int | Sequence[int] | None = None) -> Array:
    """The inverse of `fftshift`."""
    return _shifted(x, axes, "xp.fft.ifftshift", -1)


def _shifted(x: Array, axes: Any, where: str, sign: int) -> Array:
    result = build.axes_of(axes, x.ndim, where)
    by = tuple(x.shape[a] // 2 if sign > 0 else -(x.shape[a] // 2) for a in result)
    return manipulation.roll(x, by, axis=result) if result else x


def _frequencies(where: str, found: Array, dtype: Any) -> Array:
    wanted = dtypes.checked(dtype or "float32")
    if wanted.kind != "f":
        raise DTypeError(where, "float32 or float16", str(wanted))
    return manipulation.astype(found, wanted)


def _positive(where: str, n: int) -> None:
    if n < 1:
        raise ShapeError(where, "a length of 1 or more", f"{n}")


def _pair(x: Any, where: str) -> ComplexPair:
    parts = x if isinstance(x, tuple) and len(x) == 2 else (x,)
    nodes = [build.node_of(part, where) for part in parts]
    for node in nodes:
        if node.dtype.kind != "f":
            raise DTypeError(where, "float32 or float16", str(node.dtype), hint="Use xp.astype.")
    build.one_device(where, nodes)
    if nodes[0].shape != nodes[-1].shape:
        shapes = f"{nodes[0].shape} and {nodes[-1].shape}"
        raise ShapeError(where, "two arrays of one shape", shapes)
    wide = [Array(build.cast(node, dtypes.named("float32"))) for node in nodes]
    if len(wide) == 1:
        wide.append(zeros(wide[0].shape, device=wide[0].device))
    return ComplexPair(*wide)


def _real(x: Any, where: str) -> ComplexPair:
    if not isinstance(x, Array):
        raise DTypeError(where, "an array of real numbers", type(x).__name__)
    return _pair(x, where)


def _slice(x: Array, axis: int, start: int, stop: int) -> Array:
    at = build.axis_of(axis, x.ndim, "xp.fft")
    return x[(*(slice(None),) * at, slice(start, stop))]


def _fitted(x: Array, axis: int, n: int) -> Array:
    """Truncate or zero-pad to n elements along an axis."""
    has = x.shape[axis]
    if n <= has:
        return x if n == has else _slice(x, axis, 0, n)
    shape = (*x.shape[:axis], n - has, *x.shape[axis + 1 :])
    return manipulation.concat([x, zeros(shape, device=x.device)], axis=axis)


def _transform(
    where: str, x: ComplexPair, n: int | None, axis: int, norm: str, sign: int
) -> ComplexPair:
    _check_norm(where, norm)
    at = build.axis_of(axis, x.real.ndim, where)
    length = x.real.shape[at] if n is None else n
    _positive(where, length)
    parts = [manipulation.moveaxis(_fitted(part, at, length), at, -1) for part in x]
    shape = parts[0].shape
    rows = prod(shape[:-1])
    joined = manipulation.reshape(manipulation.stack(parts, axis=-1), (rows, length, 2))
    found = joined if length == 1 else _transformed(joined._node, sign)
    scale = _scale(norm, length, sign)
    if scale != 1.0:
        found = found * scale
    result = [manipulation.reshape(found[:, :, i], shape) for i in (0, 1)]
    return ComplexPair(*(manipulation.moveaxis(part, -1, at) for part in result))


def _transformed(node: Node, sign: int) -> Array:
    rows, length, _ = node.shape
    attribute = (rows, length, sign)
    return Array(Node(node.device, "fft", (contiguous(node),), node.shape, node.dtype, attribute))


def _scale(norm: str, n: int, sign: int) -> float:
    if norm == "ortho":
        return 1 / sqrt(n)
    return 1 / n if (norm == "forward") == (sign < 0) else 1.0


def _inverse_norm(where: str, norm: str) -> str:
    """Return the norm of a transform whose inverse has that one."""
    _check_norm(where, norm)
    return {"backward": "forward", "forward": "backward"}.get(norm, norm)


def _check_norm(where: str, norm: str) -> None:
    if norm not in _NORMS:
        raise ShapeError(where, "norm of " + ", ".join(_NORMS), repr(norm))


def _along_all(
    where: str, x: Any, s: Sequence[int] | None, axes: Sequence[int] | None, norm: str, sign: int
) -> ComplexPair:
    result = _pair(x, where)
    return _along(where, result, _lengths(where, result.real.ndim, s, axes), norm, sign)


def _along(
    where: str, x: ComplexPair, lengths: Sequence[tuple[int, int | None]], norm: str, sign: int
) -> ComplexPair:
    for axis, n in lengths:
        x = _transform(where, x, n, axis, norm, sign)
    return x


def _lengths(
    where: str, n_axes: int, s: Sequence[int] | None, axes: Sequence[int] | None
) -> list[tuple[int, int | None]]:
    """Return each axis with its length, None for its current one."""
    if axes is None:
        axes = range(n_axes) if s is None else range(n_axes - len(s), n_axes)
    lengths: Sequence[int | None] = [None] * len(axes) if s is None else list(s)
    if len(lengths) != len(axes):
        raise ShapeError(where, "a length an axis", f"s={s}, axes={tuple(axes)}")
    return list(zip(axes, lengths, strict=True))


def _split(
    where: str, n_axes: int, s: Sequence[int] | None, axes: Sequence[int] | None
) -> tuple[list[tuple[int, int | None]], tuple[int, int | None]]:
    """Return the axes with their lengths, the last one separately."""
    result = _lengths(where, n_axes, s, axes)
    if not result:
        raise ShapeError(where, "one axis or more", "none")
    return result[:-1], result[-1]


__all__ = [
    "ComplexPair",
    "fft",
    "fftfreq",
    "fftn",
    "fftshift",
    "hfft",
    "ifft",
    "ifftn",
    "ifftshift",
    "ihfft",
    "irfft",
    "irfftn",
    "rfft",
    "rfftfreq",
    "rfftn",
]
