"""Data of trials: an operand of a small run, the same on every machine."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from math import prod
from typing import TYPE_CHECKING

from bascule.base.arrays import NUMPY, Array, np
from bascule.base.dtypes import BlockType, DType, block_of
from bascule.program.blocks import dequantize
from bascule.program.program import Call, Value

if TYPE_CHECKING:
    from numpy.random import Generator

# Rows of a table in a trial, so that tokens name some of them.
TABLE_ROWS = 97
# Ids of a vocabulary in a trial.
VOCABULARY = 1000
# Position of the text in its cache when the run starts.
_POSITION = 17
# Byte offsets of a block's float16 numbers, and their size: numbers come out at about 0.3.
_HALVES: Mapping[DType, tuple[tuple[int, float], ...]] = {
    "f16": ((0, 0.3),),
    "q4_0": ((0, 0.06),),
    "q4_1": ((0, 0.06), (2, 0.3)),
    "q8_0": ((0, 0.004),),
    "q4_k": ((0, 0.002), (2, 0.01)),
    "q5_k": ((0, 0.001), (2, 0.01)),
    "q6_k": ((208, 0.0005),),
}
# Far from the cuts of top-p and min-p, and from each other: rounding changes no draw.
_LIKELY = (6.0, 5.5, 5.0, 4.5, 4.0, -4.0)
_SEED = 11
# Numbers of a weight from which the RMS of all is estimated.
_SOME = 1 << 14


@dataclass(frozen=True, slots=True)
class Draw:
    """The operand whose data is wanted, its shape in the trial, and its call.

    `matrix` is the call's weight or table, and `data` returns another operand's data.
    """

    value: Value
    shape: tuple[int, ...]
    call: Call
    matrix: Value | None
    sizes: Mapping[str, int]
    data: Callable[[Value], Array]
    rng: Generator


Sample = Callable[[Draw], Array]


def normal(draw: Draw) -> Array:
    """Standard normals."""
    return draw.rng.standard_normal(draw.shape).astype(NUMPY[draw.value.dtype])


def before_product(draw: Draw) -> Array:
    """Normals whose product with the call's weight is about 1."""
    weight = draw.matrix
    assert weight is not None
    block = block_of(weight.dtype)
    count = min(prod(weight.limits), _SOME) // block.n_elements
    raw = draw.data(weight)[: count * block.nbytes]
    numbers = dequantize(BlockType[weight.dtype.upper()], raw, count * block.n_elements)
    scale = 1 / (float(np.sqrt(np.mean(np.square(numbers)))) * weight.limits[1] ** 0.5)
    return (draw.rng.standard_normal(draw.shape) * scale).astype(NUMPY[draw.value.dtype])


def ids(draw: Draw) -> Array:
    """Rows of the call's table, its last one first."""
    return _below(draw, draw.matrix.limits[0] if draw.matrix else 1)


def tokens(draw: Draw) -> Array:
    """Rows of a table as trials have it."""
    return _below(draw, TABLE_ROWS)


def lengths(draw: Draw) -> Array:
    """All tokens of the first text, half of them of the second, and so on."""
    first = draw.call.operands[0]
    maximum = first.sizes(draw.sizes)[1] if first else 1
    return np.maximum(maximum // (1 + np.arange(draw.shape[0])), 1).astype(np.uint32)


def skipped(draw: Draw) -> Array:
    """None, one or two tokens."""
    return (np.arange(prod(draw.shape)) % 3).astype(np.uint32)


def position(draw: Draw) -> Array:
    """The middle of a text."""
    return np.full(draw.shape, _POSITION, np.uint32)


def settings(draw: Draw) -> Array:
    """Temperature 1, top-p 0.97, min-p 0.01, a penalty of 1.25 on the last 8 tokens."""
    del draw
    numbers = np.array([1.0, 0, 0.97, 0.01, 1.25, 0, 0, 0], np.float32).view(np.uint32)
    numbers[[1, 5, 6]] = 0, 8, _SEED
    return numbers


def kinds(draw: Draw) -> Array:
    """Every fifth id is forbidden, every seventh as the first."""
    ids = np.arange(draw.shape[0])
    return np.where(ids % 5 == 0, 2, ids % 7 == 0).astype(np.uint32)


def rules(draw: Draw) -> Array:
    """All text and all times."""
    del draw
    return np.array([0, 0, 2**32 - 1, 0], np.uint32)


def logits(draw: Draw) -> Array:
    """Very negative except for a few likely ones."""
    numbers = draw.rng.uniform(-30, -20, draw.shape)
    places = draw.rng.permutation(draw.shape[-1])[: len(_LIKELY)]
    numbers[..., places] = _LIKELY[: len(places)]
    return numbers.astype(np.float32)


def matrix(draw: Draw) -> Array:
    """Random blocks with scales of a reasonable size and both signs, as bytes."""
    rng, value = draw.rng, draw.value
    count = prod(value.limits)
    if value.dtype == "f32":
        return rng.standard_normal(count).astype(np.float32).view(np.uint8)
    if value.dtype == "bf16":
        wide = rng.standard_normal(count).astype(np.float32).view(np.uint32)
        return (wide >> 16).astype(np.uint16).view(np.uint8)
    block = block_of(value.dtype)
    raw = rng.integers(0, 256, (count // block.n_elements, block.nbytes), np.uint8)
    for at, size in _HALVES[value.dtype]:
        scales = size * rng.uniform(0.5, 1.5, len(raw)) * rng.choice((-1, 1), len(raw))
        raw[:, at : at + 2] = scales.astype("<f2")[:, None].view(np.uint8)
    return raw.reshape(-1)


def _below(draw: Draw, count: int) -> Array:
    numbers = draw.rng.integers(0, count, draw.shape).astype(np.uint32)
    numbers.reshape(-1)[0] = count - 1
    return numbers


BY_ROLE: Mapping[str, Sample] = {
    "ids": ids,
    "lengths": lengths,
    "weight": matrix,
    "table": matrix,
}
