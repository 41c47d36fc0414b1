"""Pooling: one vector per text."""

from __future__ import annotations

from collections.abc import Mapping

from bascule.base.arrays import Array, np
from bascule.program.ops import samples
from bascule.program.ops.table import Op, Operand, first_two, inputs, need
from bascule.program.program import Attribute, Shape

POOLINGS = ("mean", "cls", "max", "mean_sqrt", "weighted_mean", "last")


def _pool(shapes: tuple[Shape | None, ...], attributes: Mapping[str, Attribute]) -> Shape:
    (x, lengths), skipped = first_two(shapes, "pool"), shapes[2]
    need(len(x) == 3 and lengths == (x[0],), "pool", "x (B, T, C) and lengths (B)", shapes)
    need(skipped is None or skipped == lengths, "pool", "skipped (B)", skipped)
    need(attributes["kind"] in POOLINGS, "pool", f"kind in {POOLINGS}", attributes)
    return (x[0], x[2])


def pool(x: Array, lengths: Array, skipped: Array | None = None, *, kind: str) -> Array:
    """Return one vector per text from its tokens skipped[b] (0) to lengths[b], at least one."""
    tokens = x.shape[1]
    end = np.clip(lengths.astype(np.int64), 1, tokens)
    begin = np.zeros_like(end) if skipped is None else np.minimum(skipped, end - 1)
    match kind:
        case "cls" | "last":
            return x[np.arange(len(x)), begin if kind == "cls" else end - 1]
        case _:
            at = np.arange(tokens)
            inside = ((at >= begin[:, None]) & (at < end[:, None]))[:, :, None]
    if kind == "max":
        return np.where(inside, x, -np.inf).max(axis=1).astype(x.dtype, copy=False)
    if kind == "weighted_mean":
        weights = np.where(inside, at[None, :, None] + 1, 0).astype(x.dtype)
        return (np.where(inside, x, 0) * weights).sum(axis=1, dtype=x.dtype) / weights.sum(axis=1)
    count = (end - begin).astype(x.dtype)[:, None]
    total = np.where(inside, x, 0).sum(axis=1, dtype=x.dtype)
    return total / (np.sqrt(count) if kind == "mean_sqrt" else count)


ROWS = (
    Op(
        "pool",
        (
            *inputs("x"),
            Operand("lengths", "lengths"),
            Operand("skipped", "lengths", optional=True, sample=samples.skipped),
        ),
        {"kind": str},
        "over the tokens t of skipped[b] (0) to lengths[b]: mean, the first (cls), the last, "
        "max, sum / sqrt(count) (mean_sqrt), or mean weighted by t + 1; always one token",
        _pool,
        numpy=pool,
    ),
)
