"""Sums, products, caps, concatenation and transposition."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from bascule.base.arrays import Array, np
from bascule.program.ops.table import Op, first_two, inputs, need, same_shape
from bascule.program.program import Attribute, Shape

MAX_AXES = 4  # of transpose
MAX_JOINED = 7  # operands of concat: with its result as many as any adapter binds at once


def _repeated(op: str) -> Callable[[tuple[Shape | None, ...], Mapping[str, Attribute]], Shape]:
    def shape(shapes: tuple[Shape | None, ...], _: Mapping[str, Attribute]) -> Shape:
        x, y = first_two(shapes, op)
        need(x[len(x) - len(y) :] == y, op, "y shaped like x or like its last axes", shapes)
        return x

    return shape


def _softcap(shapes: tuple[Shape | None, ...], attributes: Mapping[str, Attribute]) -> Shape:
    cap = attributes["cap"]
    need(isinstance(cap, int | float) and cap > 0, "softcap", "a cap above 0", cap)
    return same_shape(shapes, attributes)


def _concat(shapes: tuple[Shape | None, ...], _: Mapping[str, Attribute]) -> Shape:
    present = [shape for shape in shapes if shape is not None]
    widths = [shape[-1] for shape in present if shape and isinstance(shape[-1], int)]
    same = len({shape[:-1] for shape in present}) == 1 and len(widths) == len(present)
    need(same, "concat", "tensors that differ in the last axis only", shapes)
    return (*present[0][:-1], sum(widths))


def _transpose(shapes: tuple[Shape | None, ...], attributes: Mapping[str, Attribute]) -> Shape:
    x, axes = shapes[0] or (), str(attributes["axes"])
    need(1 <= len(x) <= MAX_AXES, "transpose", "one to four axes", x)
    order = "".join(map(str, range(len(x))))
    need("".join(sorted(axes)) == order, "transpose", f"axes {order} in some order", repr(axes))
    return tuple(x[int(axis)] for axis in axes)


def add(x: Array, y: Array) -> Array:
    """x + y, y repeated over x's leading axes."""
    return x + y


def multiply(x: Array, y: Array) -> Array:
    """x * y, y repeated over x's leading axes."""
    return x * y


def scale(x: Array, *, by: float) -> Array:
    """x * by."""
    return x * x.dtype.type(by)


def softcap(x: Array, *, cap: float) -> Array:
    """cap * tanh(x / cap): between -cap and cap, monotonic, nearly x near 0."""
    return cap * np.tanh(x / x.dtype.type(cap))


def concat(*parts: Array | None) -> Array:
    """Concatenate on the last axis."""
    return np.concatenate([part for part in parts if part is not None], axis=-1)


def transpose(x: Array, *, axes: str) -> Array:
    """Transpose x, densely: axis i of y is axis axes[i] of x."""
    return np.ascontiguousarray(x.transpose([int(axis) for axis in axes]))


_REPEATED = "y repeated over x's leading axes"

ROWS = (
    Op("add", inputs("x", "y"), {}, f"x + y, {_REPEATED}", _repeated("add"), numpy=add),
    Op(
        "multiply", inputs("x", "y"), {}, f"x * y, {_REPEATED}", _repeated("multiply"),
        numpy=multiply,
    ),
    Op("scale", inputs("x"), {"by": float}, "x * by", same_shape, numpy=scale),
    Op("softcap", inputs("x"), {"cap": float}, "cap * tanh(x / cap)", _softcap, numpy=softcap),
    Op(
        "concat",
        inputs("a", "b", *(f"{name}?" for name in "cdefg")),
        {},
        "all of them side by side on the last axis",
        _concat,
        numpy=concat,
    ),
    Op(
        "transpose",
        inputs("x"),
        {"axes": str},
        "y's axis i is x's axis axes[i], a digit each",
        _transpose,
        numpy=transpose,
    ),
)  # fmt: skip
