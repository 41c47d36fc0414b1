"""Ops on images: the windows of a convolution, as rows."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType

from bascule.base.arrays import Array, np
from bascule.errors import InputError
from bascule.program.ops.table import Op, inputs
from bascule.program.program import Attribute, Shape

# The window, in pixels; and which lines of the output, over all images, a call computes (0: all).
_NAMES = ("k_height", "k_width", "stride_y", "stride_x", "pad_y", "pad_x", "first", "lines")
PATCHES: Mapping[str, type] = MappingProxyType(dict.fromkeys(_NAMES, int))


@dataclass(frozen=True, slots=True)
class Windows:
    """Positions of a window on images (B, H, W, C)."""

    out_height: int
    out_width: int
    cols: int
    first: int
    lines: int


def windows_of(x: tuple[int, ...], attributes: Mapping[str, Attribute]) -> Windows:
    """Return the positions of a call's window; InputError if there are none."""
    numbers: dict[str, int] = {}
    for name in PATCHES:
        value = attributes[name]
        assert isinstance(value, int)
        numbers[name] = value
    _, height, width, channels = x
    k_height, k_width = numbers["k_height"], numbers["k_width"]
    sizes = min(k_height, k_width, numbers["stride_y"], numbers["stride_x"]) > 0
    if not sizes or min(numbers.values()) < 0:
        raise InputError("op patches", "a window and strides of at least 1", str(numbers))
    tall, wide = height + 2 * numbers["pad_y"] - k_height, width + 2 * numbers["pad_x"] - k_width
    if tall < 0 or wide < 0:
        result = f"a window of {k_height} x {k_width} on {height} x {width}"
        raise InputError("op patches", "an image as large as its window", result)
    out_height, out_width = tall // numbers["stride_y"] + 1, wide // numbers["stride_x"] + 1
    total, first = x[0] * out_height, numbers["first"]
    lines = numbers["lines"] or total
    if first + lines > total:
        raise InputError("op patches", f"lines of {total}", f"{first} to {first + lines}")
    return Windows(out_height, out_width, k_height * k_width * channels, first, lines)


def patches_shape(shapes: tuple[Shape | None, ...], attributes: Mapping[str, Attribute]) -> Shape:
    """(lines * OW, KH * KW * C)."""
    sizes = tuple(size for size in shapes[0] or () if isinstance(size, int))
    if len(sizes) != 4:
        raise InputError("op patches", "x (B, H, W, C) of known sizes", str(shapes[0]))
    windows = windows_of(sizes, attributes)
    return (windows.lines * windows.out_width, windows.cols)


def patches(x: Array, **attributes: int) -> Array:
    """Extract the k_height x k_width windows of images (B, H, W, C), zero-padded: a row (KH * KW *
    C) per position, for `lines` lines of positions from `first` on.
    """
    windows = windows_of(x.shape, attributes)
    pad_y, pad_x = attributes["pad_y"], attributes["pad_x"]
    framed = np.pad(x, ((0, 0), (pad_y, pad_y), (pad_x, pad_x), (0, 0)))
    k_height, k_width = attributes["k_height"], attributes["k_width"]
    y = np.empty((windows.lines, windows.out_width, k_height, k_width, x.shape[3]), x.dtype)
    line = windows.first + np.arange(windows.lines)
    top = line % windows.out_height * attributes["stride_y"]
    left = np.arange(windows.out_width) * attributes["stride_x"]
    image = line[:, None] // windows.out_height
    for ky in range(k_height):
        for kx in range(k_width):
            y[:, :, ky, kx] = framed[image, (top + ky)[:, None], (left + kx)[None, :]]
    return y.reshape(-1, windows.cols)


ROWS = (
    Op(
        "patches",
        inputs("x"),
        PATCHES,
        "a row for each place of a window on images: what it sees, zeros around the image",
        patches_shape,
        numpy=patches,
    ),
)
