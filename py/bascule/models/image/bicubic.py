"""Resize a line of numbers by cubic convolution (Keys 1981), without smoothing first."""

from __future__ import annotations

from math import floor

_A = -0.75  # the slope's parameter that PyTorch has


def bicubic(n: int, wanted: int) -> tuple[float, ...]:
    """Return the matrix (wanted, n), row-major, that resizes n numbers.

    Ends are half a step outside the first and the last number, which are repeated beyond them.
    """
    rows: list[float] = []
    for at in range(wanted):
        row = [0.0] * n
        place = (at + 0.5) * n / wanted - 0.5
        first = floor(place) - 1
        for near in range(first, first + 4):
            row[min(max(near, 0), n - 1)] += _cubic(abs(place - near))
        rows += row
    return tuple(rows)


def _cubic(x: float) -> float:
    """Return the weight of a number at a distance of at most 2 steps."""
    if x <= 1:
        return ((_A + 2) * x - (_A + 3)) * x * x + 1
    return ((_A * x - 5 * _A) * x + 8 * _A) * x - 4 * _A
