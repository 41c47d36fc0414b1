"""What positions add to attention: biases by distance, and rotated heads without a cache."""

from __future__ import annotations

from collections.abc import Mapping
from math import log

from bascule.base.arrays import Array, np
from bascule.errors import InputError
from bascule.program.ops.table import Op, Operand, first_two, inputs, need
from bascule.program.program import Attribute, Dim, Shape

# A distance where a bucket begins comes out a little below it in float32; the next smaller distance
# is many times as far away.
NUDGE = 1e-4


def _relative_bias(shapes: tuple[Shape | None, ...], attributes: Mapping[str, Attribute]) -> Shape:
    table, op = shapes[0], "relative_bias"
    length, most = attributes["length"], attributes["max_distance"]
    if table is None or len(table) != 2:
        raise InputError(f"op {op}", "table (R, H)", str(table))
    buckets = table[0]
    whole = isinstance(buckets, int) and buckets >= 4 and buckets % 4 == 0
    need(whole, op, "table (R, H) of a multiple of 4 rows", table)
    assert isinstance(buckets, int)
    far = isinstance(most, int) and most > buckets // 4
    need(far, op, f"a max_distance above {buckets // 4}", attributes)
    assert isinstance(length, int | Dim)
    need(isinstance(length, Dim) or length > 0, op, "a length from 1 on", length)
    return (table[1], length, length)


def relative_bias(table: Array, *, length: int, max_distance: int) -> Array:
    """y[h,q,k] = table[bucket(k - q), h] (Raffel et al. 2020), both directions.

    Half of the R buckets are for keys behind the query. Of each half, half hold one distance each;
    the others are wider and wider, up to `max_distance`, from which on all share the last.
    """
    half = len(table) // 2
    exact = half // 2
    at = np.arange(length)
    distance = at[None, :] - at[:, None]  # (Tq, Tk)
    n = np.maximum(np.abs(distance), 1)
    wide = np.log(n / exact) / log(max_distance / exact) * (half - exact)
    wide = np.minimum(exact + np.floor(wide + NUDGE).astype(np.int64), half - 1)
    bucket = np.where(np.abs(distance) < exact, np.abs(distance), wide)
    return np.ascontiguousarray(table[bucket + half * (distance > 0)].transpose(2, 0, 1))


def _rope(shapes: tuple[Shape | None, ...], attributes: Mapping[str, Attribute]) -> Shape:
    x, angles = first_two(shapes, "rope")
    width, size = x[-1], attributes["size"]
    if not (isinstance(size, int) and size > 0 and size % 2 == 0 and isinstance(width, int)):
        raise InputError("op rope", "heads of an even size", str(attributes))
    fits = len(x) == 3 and width % size == 0 and len(angles) == 2 and angles[1] == size
    need(fits, "rope", "x (B, T, H*D) and angles (P, D)", shapes)
    return x


def rope(x: Array, angles: Array, *, size: int) -> Array:
    """Rotate each head of x (B, T, H*D) by the angles of its token's position (Su et al. 2021).

    Row p of angles (P, D) holds the cosines and, behind them, the sines of position p; pairs are
    elements half a head apart. Positions past the table take its last row.
    """
    half = size // 2
    at = np.minimum(np.arange(x.shape[1]), len(angles) - 1)
    cosine, sine = (angles[at, part][None, :, None, :] for part in (slice(half), slice(half, None)))
    heads = x.reshape(*x.shape[:2], -1, size)
    a, b = heads[..., :half], heads[..., half:]
    rotated = np.concatenate((a * cosine - b * sine, a * sine + b * cosine), axis=-1)
    return rotated.reshape(x.shape).astype(x.dtype, copy=False)


ROWS = (
    Op(
        "relative_bias",
        (Operand("table", "parameter"),),
        {"length": Dim, "max_distance": int},
        "y[h,q,k] = table[bucket(k - q), h]: a bucket for each small distance on either side, and "
        "wider ones up to max_distance, whose last has all beyond",
        _relative_bias,
        numpy=relative_bias,
    ),
    Op(
        "rope",
        (*inputs("x"), Operand("angles", "parameter")),
        {"size": int},
        "each head's pairs (i, i + D/2) rotated by the angles of its token's position",
        _rope,
        numpy=rope,
    ),
)
