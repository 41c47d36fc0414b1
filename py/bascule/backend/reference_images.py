"""The ops on images in numpy; see `backend/reference.py`."""

from __future__ import annotations

from bascule.arrays import Array, np
from bascule.program.images import windows_of


def patches(x: Array, **attributes: int) -> Array:
    """What a window of k_height x k_width sees of images (B, H, W, C), zeros around them: a row
    (KH * KW * C) for each of its places, of `lines` lines of places from `first` on.
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


def place_rows(x: Array, onto: Array | None = None, *, first: int, whole: int) -> Array:
    """x (rows, C) as rows `first` on of y (whole, C), which is `onto` itself where it is given."""
    y = np.empty((whole, x.shape[1]), x.dtype) if onto is None else onto
    y[first : first + len(x)] = x
    return y
