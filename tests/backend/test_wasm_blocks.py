"""Weights in blocks on the WebAssembly tier, every format at odd sizes, against float64.

Exact where nothing is summed: a row out of its blocks is numpy's bit by bit.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pytest

from bascule.backend.reference import FUNCTIONS
from bascule.backend.wasm.kernels_native import NativeKernels
from bascule.backend.wasm.language import LanguageFunctions
from bascule.base.arrays import Array
from bascule.program.blocks import BLOCKS, BlockMatrix, BlockType
from bascule.program.ops import ACTIVATIONS
from tests.backend.guarded import GuardedKernels, NumpyOps

BLOCKED = [type for type in BlockType if type is not BlockType.F32]
# Where each format keeps its float16 scales.
SCALES_AT = {
    BlockType.Q4_0: [0],
    BlockType.Q4_1: [0, 2],
    BlockType.Q8_0: [0],
    BlockType.Q4_K: [0, 2],
    BlockType.Q5_K: [0, 2],
    BlockType.Q6_K: [208],
}
EXTREMES = [0, -0.0, np.inf, -np.inf, np.nan, 65504, -65504, 2**-24, -(2**-24), 2**-14, 1]
every_type = pytest.mark.parametrize("type", BLOCKED, ids=lambda t: t.name)


@pytest.fixture
def ops(kernels: NativeKernels) -> Iterator[NumpyOps]:
    guarded = GuardedKernels(kernels)
    yield NumpyOps(LanguageFunctions(guarded))
    guarded.check()


def inner_sizes(type: BlockType) -> list[int]:
    """One block, an odd number of them, and more than four, whose scales are read together."""
    n = BLOCKS[type].n_elements
    return [1, 3, 8, 9, 100] if n == 1 else [n, 3 * n, 5 * n]


def blocks_of(rng: np.random.Generator, type: BlockType, rows: int, inner: int) -> BlockMatrix:
    """Random codes, and scales that make numbers of a weight's size out of them."""
    block, largest = BLOCKS[type], 0.02 if BLOCKS[type].n_elements < 256 else 0.0004
    raw = rng.integers(0, 256, (rows * inner // block.n_elements, block.nbytes), np.uint8)
    for at in SCALES_AT.get(type, []):
        raw[:, at : at + 2] = halves(rng.uniform(-largest, largest, len(raw)))
    if type is BlockType.F16:
        raw = halves(rng.standard_normal(len(raw)))
    elif type is BlockType.BF16:
        floats = rng.standard_normal(len(raw)).astype("<f4")
        raw = np.ascontiguousarray(floats.view(np.uint8).reshape(-1, 4)[:, 2:])
    return BlockMatrix(type, (rows, inner), raw.reshape(-1))


def halves(values: Array | list[float]) -> Array:
    """Numbers as the two bytes of a float16 each, (n, 2)."""
    return np.asarray(values).astype("<f2").view(np.uint8).reshape(-1, 2)


def summed(x: Array, weight: Array) -> Array:
    """The sizes of what the products sum: their errors are a few roundings of these."""
    return np.abs(x) @ np.abs(weight).T


def agree(found: Array, x: Array, weight: Array) -> None:
    """x @ weight.T within a few roundings of what is summed."""
    assert found.dtype == np.float32
    expected, size = x.astype(np.float64) @ weight.T, summed(x, weight)
    assert found.shape == expected.shape
    assert np.isfinite(found).all()
    assert (np.abs(found - expected) <= 2e-6 * size + 1e-30).all()


@every_type
@pytest.mark.parametrize("rows", [1, 2, 7, 33])
def test_rows_are_numpy_s_bit_by_bit(
    type: BlockType, rows: int, ops: NumpyOps, rng: np.random.Generator
) -> None:
    for inner in inner_sizes(type):
        table = blocks_of(rng, type, rows, inner)
        tokens = rng.integers(0, rows + 2, 11).astype(np.uint32)  # two past the table's end
        position = np.array([7], np.uint32)
        result = ops.token_embedding(table, tokens, position, length=9)
        expected = FUNCTIONS["token_embedding"](table, tokens, position, length=9)
        np.testing.assert_array_equal(result.view(np.uint32), expected.view(np.uint32))


@pytest.mark.parametrize("type", SCALES_AT, ids=lambda t: t.name)
@pytest.mark.parametrize("last", EXTREMES, ids=str)
def test_extreme_scales_are_what_arithmetic_says(
    type: BlockType, last: float, ops: NumpyOps, rng: np.random.Generator
) -> None:
    table = blocks_of(rng, type, len(EXTREMES), BLOCKS[type].n_elements)
    raw = table.data.reshape(len(EXTREMES), -1)
    for at, scales in zip(SCALES_AT[type], [EXTREMES, [last] * len(EXTREMES)], strict=False):
        raw[:, at : at + 2] = halves(scales)
    ids, start = np.arange(len(EXTREMES), dtype=np.uint32), np.zeros(1, np.uint32)
    result = ops.token_embedding(table, ids, start, length=len(ids))
    expected = table.take(ids)
    nan = np.isnan(expected)
    np.testing.assert_array_equal(np.isnan(result), nan)
    np.testing.assert_array_equal(result[~nan].view(np.uint32), expected[~nan].view(np.uint32))


@pytest.mark.parametrize("type", [BlockType.F16, BlockType.BF16], ids=lambda t: t.name)
def test_every_number_of_two_bytes(type: BlockType, ops: NumpyOps) -> None:
    numbers = np.arange(1 << 16, dtype="<u2").view(np.uint8)
    table = BlockMatrix(type, (256, 256), numbers)
    ids, start = np.arange(256, dtype=np.uint32), np.zeros(1, np.uint32)
    result, expected = ops.token_embedding(table, ids, start, length=256), table.take(ids)
    nan = np.isnan(expected)
    np.testing.assert_array_equal(np.isnan(result), nan)
    np.testing.assert_array_equal(result[~nan].view(np.uint32), expected[~nan].view(np.uint32))


def test_rows_of_a_float_table(ops: NumpyOps, rng: np.random.Generator) -> None:
    table = rng.standard_normal((5, 7)).astype(np.float32)
    tokens, position = rng.integers(0, 9, 6).astype(np.uint32), np.array([4], np.uint32)
    result = ops.token_embedding(table, tokens, position, length=8)
    expected = FUNCTIONS["token_embedding"](table, tokens, position, length=8)
    np.testing.assert_array_equal(result, expected)


@pytest.mark.parametrize("type", list(BlockType), ids=lambda t: t.name)
@pytest.mark.parametrize("shape", [(1, 1), (2, 3), (3, 9)])
def test_embedding(
    type: BlockType, shape: tuple[int, int], ops: NumpyOps, rng: np.random.Generator
) -> None:
    """With positions and a bias, and ids past the table's end."""
    inner = inner_sizes(type)[1]
    table = blocks_of(rng, type, 6, inner)
    if type is BlockType.F32:
        table = rng.standard_normal((6, inner)).astype(np.float32)
    ids = rng.integers(0, 8, shape).astype(np.uint32)
    for position in (None, rng.standard_normal((11, inner)).astype(np.float32)):
        for bias in (None, rng.standard_normal(inner).astype(np.float32)):
            result = ops.embedding(ids, table, position, bias)
            expected = FUNCTIONS["embedding"](ids, table, position, bias)
            assert result.shape == expected.shape
            np.testing.assert_allclose(result, expected, rtol=0, atol=1e-6)


@every_type
@pytest.mark.parametrize("rows", [1, 2, 3, 4, 5, 13, 64, 67])
def test_products(type: BlockType, rows: int, ops: NumpyOps, rng: np.random.Generator) -> None:
    """By vectors, by tiles, past a tile's and a block's edge."""
    for inner in inner_sizes(type):
        for columns in (1, 2, 8, 9, 31):
            weight = blocks_of(rng, type, columns, inner)
            x = rng.standard_normal((rows, inner)).astype(np.float32)
            agree(ops.linear(x, weight), x, weight.rows(0, columns))


@every_type
@pytest.mark.parametrize("rows", [1, 6, 65])
@pytest.mark.parametrize("activation", ACTIVATIONS)
def test_what_follows_a_product(
    type: BlockType, rows: int, activation: str, ops: NumpyOps, rng: np.random.Generator
) -> None:
    inner = inner_sizes(type)[0]
    weight = blocks_of(rng, type, 13, inner)
    x = rng.standard_normal((2, rows, inner)).astype(np.float32)
    tolerance = 4e-6 * (1 + summed(x, weight.rows(0, 13)).max())
    for bias in (None, rng.standard_normal(13).astype(np.float32)):
        for residual in (None, rng.standard_normal((2, rows, 13)).astype(np.float32)):
            result = ops.linear(x, weight, bias, residual, activation=activation)
            wide = x.astype(np.float64)
            expected = FUNCTIONS["linear"](wide, weight, bias, residual, activation=activation)
            np.testing.assert_allclose(result, expected, rtol=0, atol=tolerance)


@every_type
@pytest.mark.parametrize("rows", [1, 5])
def test_gated_products(
    type: BlockType, rows: int, ops: NumpyOps, rng: np.random.Generator
) -> None:
    inner = inner_sizes(type)[1]
    weight = blocks_of(rng, type, 2 * 11, inner)
    x = rng.standard_normal((rows, inner)).astype(np.float32)
    result = ops.gated_linear(x, weight, activation="silu")
    expected = FUNCTIONS["gated_linear"](x.astype(np.float64), weight, activation="silu")
    tolerance = 4e-6 * (1 + summed(x, weight.rows(0, 22)).max()) ** 2  # a product of two products
    np.testing.assert_allclose(result, expected, rtol=0, atol=tolerance)


def test_a_product_of_a_model_s_size(ops: NumpyOps, rng: np.random.Generator) -> None:
    weight = blocks_of(rng, BlockType.Q4_1, 1153, 1536)
    for rows in (1, 64):
        x = rng.standard_normal((rows, 1536)).astype(np.float32)
        agree(ops.linear(x, weight), x, weight.rows(0, 1153))


@every_type
@pytest.mark.parametrize("rows", [1, 5])
def test_nan_is_never_lost(
    type: BlockType, rows: int, ops: NumpyOps, rng: np.random.Generator
) -> None:
    inner = inner_sizes(type)[1]
    weight = blocks_of(rng, type, 9, inner)
    x = rng.standard_normal((rows, inner)).astype(np.float32)
    x[-1, inner - 1] = np.nan
    result = ops.linear(x, weight)
    assert np.isnan(result[-1]).all()
    assert np.isfinite(result[:-1]).all()


def test_an_error_of_one_in_ten_thousand_would_be_found(
    ops: NumpyOps, rng: np.random.Generator
) -> None:
    weight = blocks_of(rng, BlockType.Q4_1, 9, 64)
    x = rng.standard_normal((1, 64)).astype(np.float32)
    result = ops.linear(x, weight)
    with pytest.raises(AssertionError):
        agree(result * np.float32(1.0001), x, weight.rows(0, 9))
