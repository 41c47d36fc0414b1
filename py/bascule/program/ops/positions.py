"""What positions add to attention: biases by distance, and rotated heads without a cache."""

from __future__ import annotations

from collections.abc import Mapping
from math import log

from bascule.base.arrays import Array, np
from bascule.errors import InputError
from bascule.program.ops.table import Op, Operand, first_two, inputs, need
from bascule.program.program import Attribute, Dim, Shape

# In float32 the distance where a bucket begins comes out a little below it; the next smaller
# distance is many times as far away.
NUDGE = 1e-4


def _relative_bias(shapes: tuple[Shape | None, ...], attributes: Mapping[str, Attribute]) -> Shape:
    (table, lengths), op = shapes, "relative_bias"
    length, max_distance, causal = (
        attributes[name] for name in ("length", "max_distance", "causal")
    )
    if table is None or len(table) != 2:
        raise InputError(f"op {op}", "table (R, H)", str(table))
    buckets = table[0]
    by_fours = isinstance(buckets, int) and buckets >= 4 and buckets % 4 == 0
    need(by_fours, op, "table (R, H) of a multiple of 4 rows", table)
    assert isinstance(buckets, int)
    exact = buckets // (2 if causal else 4)
    need(
        isinstance(max_distance, int) and max_distance > exact,
        op,
        f"a max_distance above {exact}",
        attributes,
    )
    need(lengths is None or lengths == (1,), op, "lengths (1)", lengths)
    assert isinstance(length, int | Dim)
    need(isinstance(length, Dim) or length > 0, op, "a length of at least 1", length)
    return (table[1], length if lengths is None else 1, length)


def relative_bias(
    table: Array,
    lengths: Array | None = None,
    *,
    length: int,
    max_distance: int,
    causal: bool = False,
) -> Array:
    """y[h,q,k] = table[bucket(k - q), h] (Raffel et al. 2020), for `length` keys.

    As many queries, or the last of the first lengths[0] alone (0 counts as 1). Half of the R
    buckets are for keys behind the query; with `causal` all are, and keys ahead have the query's
    own. In each half, half of the buckets hold one distance each; the others grow wider, up to
    `max_distance`, from which on all share the last.
    """
    side = len(table) if causal else len(table) // 2
    exact = side // 2
    at = np.arange(length)
    queries = at if lengths is None else np.maximum(lengths.astype(np.int64), 1) - 1
    ahead = at[None, :] - queries[:, None]  # (Tq, Tk)
    distance = np.maximum(-ahead, 0) if causal else np.abs(ahead)
    wide = np.log(np.maximum(distance, 1) / exact) / log(max_distance / exact) * (side - exact)
    wide = np.minimum(exact + np.floor(wide + NUDGE).astype(np.int64), side - 1)
    bucket = np.where(distance < exact, distance, wide)
    if not causal:
        bucket = bucket + side * (ahead > 0)
    return np.ascontiguousarray(table[bucket].transpose(2, 0, 1))


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

    Row p of angles (P, D) holds the cosines and then the sines of position p; pairs are elements
    half a head apart. Positions past the table take its last row.
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
        (Operand("table", "parameter"), Operand("lengths", "lengths", optional=True)),
        {"length": Dim, "max_distance": int, "causal": bool},
        "y[h,q,k] = table[bucket(k - q), h]: a bucket for each small distance on either side "
        "(where causal: behind the query), and wider ones up to max_distance, whose last has all "
        "beyond; of all queries, or of the last of lengths[0] alone",
        _relative_bias,
        numpy=relative_bias,
        defaults={"causal": False},
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
