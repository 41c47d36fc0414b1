"""Ops on signals: overlapping frames, magnitudes, logarithms and range limits."""

from __future__ import annotations

from collections.abc import Mapping

from bascule.base.arrays import Array, np
from bascule.program.ops.table import Op, Operand, first_two, inputs, need
from bascule.program.program import Attribute, Shape


def _frames(shapes: tuple[Shape | None, ...], attributes: Mapping[str, Attribute]) -> Shape:
    x, window = first_two(shapes, "frames")
    sizes = [attributes[name] for name in ("step", "pad", "count")]
    step, pad, count = (size if isinstance(size, int) else -1 for size in sizes)
    samples, width = x[0], window[0]
    known = isinstance(samples, int) and isinstance(width, int) and len(x) == len(window) == 1
    need(known, "frames", "x (N) and window (K) of known sizes", shapes)
    assert isinstance(samples, int)
    assert isinstance(width, int)
    expected = f"step {step}, pad {pad}, count {count} of {samples} samples"
    sound = step > 0 and count > 0 and 0 <= pad < samples
    need(sound, "frames", "step and count of at least 1, 0 <= pad < N", expected)
    need((count - 1) * step + width <= samples + 2 * pad, "frames", "frames within x", expected)
    return (count, width)


def _largest(shapes: tuple[Shape | None, ...], _: Mapping[str, Attribute]) -> Shape:
    need(bool(shapes[0]), "largest", "x with an axis", shapes)
    return (1,)


def _magnitude(shapes: tuple[Shape | None, ...], _: Mapping[str, Attribute]) -> Shape:
    x = shapes[0] or ()
    width = x[-1] if x else 0
    even = isinstance(width, int) and width > 0 and width % 2 == 0
    need(even, "magnitude", "x (..., 2K)", shapes)
    assert isinstance(width, int)
    return (*x[:-1], width // 2)


def _log10(shapes: tuple[Shape | None, ...], attributes: Mapping[str, Attribute]) -> Shape:
    floor = attributes["floor"]
    need(isinstance(floor, float) and floor > 0, "log10", "a floor above 0", floor)
    return shapes[0] or ()


def _limit_range(shapes: tuple[Shape | None, ...], _: Mapping[str, Attribute]) -> Shape:
    x, top = first_two(shapes, "limit_range")
    need(top == (1,), "limit_range", "top (1)", top)
    return x


def frames(x: Array, window: Array, *, step: int, pad: int, count: int) -> Array:
    """Return `count` frames (count, K) of x (N), one every `step` samples, times the window (K).

    The first starts `pad` samples before x, which is reflected at both ends without repeating its
    end samples.
    """
    wide = np.pad(x, pad, mode="reflect")
    return np.lib.stride_tricks.sliding_window_view(wide, len(window))[::step][:count] * window


def magnitude(x: Array) -> Array:
    """sqrt(re^2 + im^2) of x (..., 2K), whose rows are K real and K imaginary parts."""
    real, imaginary = np.split(x, 2, axis=-1)
    return np.sqrt(real * real + imaginary * imaginary)


def log10(x: Array, *, floor: float) -> Array:
    """log10(max(x, floor))."""
    return np.log10(np.maximum(x, x.dtype.type(floor)))


def largest(x: Array) -> Array:
    """The largest number of x, as (1)."""
    return x.max().reshape(1)


def limit_range(x: Array, top: Array, *, span: float, scale: float, offset: float) -> Array:
    """max(x, top - span) * scale + offset."""
    kind = x.dtype.type
    return np.maximum(x, top[0] - kind(span)) * kind(scale) + kind(offset)


ROWS = (
    Op(
        "frames",
        (*inputs("x"), Operand("window", "parameter")),
        {"step": int, "pad": int, "count": int},
        "`count` frames of x, one every `step` samples from `pad` before the first on, each times "
        "the window; x is reflected at both ends",
        _frames,
        numpy=frames,
    ),
    Op(
        "magnitude",
        inputs("x"),
        {},
        "sqrt(re^2 + im^2); a row of x is K real parts and K imaginary ones",
        _magnitude,
        numpy=magnitude,
    ),
    Op(
        "log10",
        inputs("x"),
        {"floor": float},
        "y = log10(max(x, floor))",
        _log10,
        numpy=log10,
    ),
    Op("largest", inputs("x"), {}, "the largest number of x", _largest, numpy=largest),
    Op(
        "limit_range",
        inputs("x", "top"),
        {"span": float, "scale": float, "offset": float},
        "y = max(x, top - span) * scale + offset",
        _limit_range,
        numpy=limit_range,
    ),
)
