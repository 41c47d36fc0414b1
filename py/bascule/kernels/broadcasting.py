"""Broadcast shapes, as the numbers that shaders/user/index.wgsl takes."""

from __future__ import annotations

from collections.abc import Sequence
from math import prod
from typing import Any

from bascule.base.arrays import np
from bascule.errors import InputError

Shape = tuple[int, ...]

MAX_AXES = 8
MAX_OPERANDS = 8


def broadcast_shape(shapes: Sequence[Shape], where: str) -> Shape:
    """Return the broadcast shape; InputError if they do not fit, or are empty."""
    try:
        result = tuple(np.broadcast_shapes(*shapes))
    except ValueError:
        listed = " and ".join(map(str, shapes))
        raise InputError(where, "shapes that broadcast together", listed) from None
    if 0 in result:
        raise InputError(where, "non-empty arrays", f"shape {result}")
    return result


def strides_of(shape: Shape, target: Shape) -> list[int]:
    """Return strides in elements along `target`, of an array of `shape` broadcast to it."""
    own = [prod(shape[axis + 1 :]) if n > 1 else 0 for axis, n in enumerate(shape)]
    return [0] * (len(target) - len(shape)) + own


def index_of(shape: Shape, strides: Sequence[Sequence[int]], where: str) -> dict[str, Any]:
    """Return the value of a BasculeIndex; InputError if it has too many axes after merging."""
    sizes, merged = _merged(shape, strides)
    if len(sizes) > MAX_AXES:
        expected = f"shapes of at most {MAX_AXES} axes that cannot be merged"
        raise InputError(where, expected, f"{len(sizes)}")
    flat: list[int] = []
    for each in merged:
        flat += [*each, *[0] * (MAX_AXES - len(each))]
    flat += [0] * (MAX_AXES * MAX_OPERANDS - len(flat))
    padded = [*sizes, *[1] * (MAX_AXES - len(sizes))]
    return {
        "n": prod(shape),
        "rank": len(sizes),
        "shape": [padded[:4], padded[4:]],
        "strides": [flat[at : at + 4] for at in range(0, len(flat), 4)],
    }


def _merged(shape: Shape, strides: Sequence[Sequence[int]]) -> tuple[list[int], list[list[int]]]:
    """Return fewer axes for the same elements: neighbours that are one axis in every operand."""
    sizes: list[int] = []
    results: list[list[int]] = [[] for _ in strides]
    for axis, size in enumerate(shape):
        if size == 1:
            continue
        here = [each[axis] for each in strides]
        if sizes and all(own[-1] == size * step for own, step in zip(results, here, strict=True)):
            sizes[-1] *= size
            for own, step in zip(results, here, strict=True):
                own[-1] = step
            continue
        sizes.append(size)
        for own, step in zip(results, here, strict=True):
            own.append(step)
    if not sizes:
        return [1], [[0] for _ in strides]
    return sizes, results
