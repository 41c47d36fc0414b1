"""Rows of a table by ids."""

from __future__ import annotations

from collections.abc import Mapping

from bascule.base.arrays import Array, np
from bascule.program.blocks import BlockMatrix
from bascule.program.ops import samples
from bascule.program.ops.states import POSITION, TOKENS
from bascule.program.ops.table import Op, Operand, first_two, inputs, need
from bascule.program.program import Attribute, Dim, Shape

_POSITIONS = 36  # of a trial: as many as its tokens
_TABLE = Operand("table", "table", cut=(0, samples.TABLE_ROWS))
_WHOLE_TABLE: Mapping[str, Attribute] = {"first": 0, "whole": 0}


def _embedding(shapes: tuple[Shape | None, ...], attributes: Mapping[str, Attribute]) -> Shape:
    (ids, table), (position, bias, before) = first_two(shapes, "embedding"), shapes[2:]
    need(len(ids) == 2 and len(table) == 2, "embedding", "ids (B, T) and table (V, C)", shapes)
    _part("embedding", table, before, (*ids, table[1]), attributes)
    hidden = table[1]
    expected = "position (P, C) of at least T rows"
    need(position is None or _has_rows(position, ids[1], hidden), "embedding", expected, position)
    need(bias is None or bias == (hidden,), "embedding", "bias (C)", bias)
    return (*ids, hidden)


def _has_rows(position: Shape, tokens: int | Dim, hidden: int | Dim) -> bool:
    """Whether it has a row per token; a run's number of tokens may be known only then."""
    short = isinstance(tokens, int) and isinstance(position[0], int) and position[0] < tokens
    return position[1:] == (hidden,) and not short


def _token_embedding(
    shapes: tuple[Shape | None, ...], attributes: Mapping[str, Attribute]
) -> Shape:
    (table, tokens), (position, before) = first_two(shapes, "token_embedding"), shapes[2:]
    expected = "table (V, C), tokens (S) and position (1)"
    fits = len(table) == 2 and len(tokens) == 1 and position == (1,)
    need(fits, "token_embedding", expected, shapes)
    length = attributes["length"]
    assert isinstance(length, int | Dim)
    _part("token_embedding", table, before, (length, table[1]), attributes)
    return (length, table[1])


def _part(
    op: str,
    table: Shape,
    before: Shape | None,
    y: Shape,
    attributes: Mapping[str, Attribute],
) -> None:
    """Check a part of a table: it must be within the whole, and fit y's shape."""
    first, whole, rows = attributes["first"], attributes["whole"], table[0]
    assert isinstance(first, int)
    assert isinstance(whole, int)
    inside = isinstance(rows, int) and first >= 0 and first + rows <= whole
    expected = f"first {first}, rows {rows}, whole {whole}"
    need(inside or (first, whole) == (0, 0), op, "rows first to first + V of the whole's", expected)
    need(before is None or before == y, op, f"before {y}", before)


def embedding(
    ids: Array,
    table: Array | BlockMatrix,
    position: Array | None = None,
    bias: Array | None = None,
    before: Array | None = None,
    *,
    first: int = 0,
    whole: int = 0,
) -> Array:
    """y[b,t] = table[ids[b,t]] + position[t] + bias. An id past the table takes its last row.

    A table may be rows `first` on of one of `whole` rows: an id of the other rows takes `before`
    (B, T, C), by default zeros.
    """
    y = taken(table, ids, before, first, whole)
    if position is not None:
        y = y + position[: ids.shape[1]]
    return y if bias is None else y + bias


def token_embedding(
    table: Array | BlockMatrix,
    tokens: Array,
    position: Array,
    before: Array | None = None,
    *,
    length: int,
    first: int = 0,
    whole: int = 0,
) -> Array:
    """y[t] = table[tokens[(position + t) % S]]. An id past the table takes its last row.

    `before`, `first` and `whole` as in `embedding`.
    """
    slots = (int(position[0]) + np.arange(length)) % len(tokens)
    return taken(table, tokens[slots], before, first, whole)


def taken(
    table: Array | BlockMatrix, ids: Array, before: Array | None, first: int, whole: int
) -> Array:
    """Gather rows of a table by ids (..., C), or `before` for ids in another part of it."""
    rows = table.shape[0]
    local = np.minimum(ids, (whole or rows) - 1).astype(np.int64) - first
    inside = ((local >= 0) & (local < rows))[..., None]
    local = np.clip(local, 0, rows - 1)
    y = table.take(local) if isinstance(table, BlockMatrix) else table[local]
    return y if inside.all() else np.where(inside, y, y.dtype.type(0) if before is None else before)


ROWS = (
    Op(
        "embedding",
        (
            Operand("ids", "ids"),
            _TABLE,
            Operand("position", "parameter", optional=True, cut=(0, _POSITIONS)),
            Operand("bias", "parameter", optional=True),
            *inputs("before?"),
        ),
        {"first": int, "whole": int},
        "y[b,t] = table[ids[b,t]] + position[t] + bias; a table that is rows `first` on of "
        "one of `whole` rows (0: it is all of it) leaves the others' rows as in before, or 0",
        _embedding,
        defaults=_WHOLE_TABLE,
        parts=frozenset(_WHOLE_TABLE),
        numpy=embedding,
    ),
    Op(
        "token_embedding",
        (_TABLE, TOKENS, POSITION, *inputs("before?")),
        {"length": Dim, "first": int, "whole": int},
        "y[t] = table[tokens[(position + t) % S]]; `first`, `whole` and before as in embedding",
        _token_embedding,
        defaults=_WHOLE_TABLE,
        parts=frozenset(_WHOLE_TABLE),
        numpy=token_embedding,
    ),
)
