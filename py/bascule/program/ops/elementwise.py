"""Sums, products and joins of tensors."""

from __future__ import annotations

from collections.abc import Mapping

from bascule.arrays import Array, np
from bascule.program.ops.table import Op, first_two, inputs, need
from bascule.program.program import Attribute, Shape

MOST_JOINED = 7  # operands of concat: with its result as many as any adapter binds at once


def _add(shapes: tuple[Shape | None, ...], _: Mapping[str, Attribute]) -> Shape:
    x, y = first_two(shapes, "add")
    need(x[len(x) - len(y) :] == y, "add", "y shaped like x or like its last axes", shapes)
    return x


def _equal(shapes: tuple[Shape | None, ...], _: Mapping[str, Attribute]) -> Shape:
    x, y = first_two(shapes, "multiply")
    need(x == y, "multiply", "two tensors of one shape", shapes)
    return x


def _concat(shapes: tuple[Shape | None, ...], _: Mapping[str, Attribute]) -> Shape:
    given = [shape for shape in shapes if shape is not None]
    widths = [shape[-1] for shape in given if shape and isinstance(shape[-1], int)]
    same = len({shape[:-1] for shape in given}) == 1 and len(widths) == len(given)
    need(same, "concat", "tensors that differ in the last axis only", shapes)
    return (*given[0][:-1], sum(widths))


def add(x: Array, y: Array) -> Array:
    """x + y, y repeated over x's leading axes."""
    return x + y


def multiply(x: Array, y: Array) -> Array:
    """x * y."""
    return x * y


def concat(*parts: Array | None) -> Array:
    """Side by side on the last axis."""
    return np.concatenate([part for part in parts if part is not None], axis=-1)


ROWS = (
    Op("add", inputs("x", "y"), {}, "x + y, y repeated over x's leading axes", _add, numpy=add),
    Op("multiply", inputs("x", "y"), {}, "x * y", _equal, numpy=multiply),
    Op(
        "concat",
        inputs("a", "b", *(f"{name}?" for name in "cdefg")),
        {},
        "all of them side by side on the last axis",
        _concat,
        numpy=concat,
    ),
)
