"""linear_block, linear_tile and linear_any."""

from __future__ import annotations

import numpy as np
import pytest

from bascule.backend.webgpu.gpu_native import NativeGpu
from bascule.program.ops import ACTIVATIONS
from tests.shaders.harness import KINDS, check_op, dims, normal, sum_tolerance

# rows, cols, inner: 1, around every tile edge of each variant, odd, and a K that no vec4 fits.
SHAPES = [
    (1, 1, 4),
    (1, 1, 1),
    (7, 3, 8),
    (8, 4, 12),
    (9, 5, 16),
    (15, 31, 20),
    (16, 32, 64),
    (17, 33, 68),
    (16, 63, 12),
    (8, 8, 4),
    (9, 9, 4),
    (63, 65, 32),
    (64, 64, 16),
    (65, 127, 100),
    (129, 67, 36),
    (5, 7, 33),
    (33, 2, 130),
]


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("shape", SHAPES, ids=str)
async def test_edges(
    gpu: NativeGpu, rng: np.random.Generator, kind: str, shape: tuple[int, int, int]
) -> None:
    rows, cols, inner = shape
    x, weight, bias = normal(rng, rows, inner), normal(rng, cols, inner), normal(rng, cols)
    await check_op(
        gpu, kind, "linear", [x, weight, bias], tolerance=sum_tolerance(inner), activation="none"
    )


@pytest.mark.parametrize("kind", ["software", "hardware"])
@pytest.mark.parametrize("activation", ACTIVATIONS)
@pytest.mark.parametrize("biased", [True, False])
async def test_epilogues(
    gpu: NativeGpu, rng: np.random.Generator, kind: str, activation: str, biased: bool
) -> None:
    x, weight = normal(rng, 3, 5, 24), normal(rng, 37, 24)
    bias = normal(rng, 37) if biased else None
    await check_op(
        gpu,
        kind,
        "linear",
        [x, weight, bias],
        tolerance=2 * sum_tolerance(24),
        activation=activation,
    )


@pytest.mark.parametrize("kind", ["software", "hardware"])
@pytest.mark.parametrize("inner", [24, 25])
async def test_fewer_rows_than_the_bucket(
    gpu: NativeGpu, rng: np.random.Generator, kind: str, inner: int
) -> None:
    b, t = dims(B=8, T=32)
    x, weight = normal(rng, 3, 11, inner), normal(rng, 19, inner)
    await check_op(
        gpu,
        kind,
        "linear",
        [x, weight],
        tolerance=sum_tolerance(inner),
        activation="none",
        limits=[(b, t, inner), None],
        sizes={"B": 3, "T": 11},
    )


@pytest.mark.parametrize("kind", ["software", "hardware"])
async def test_large(gpu: NativeGpu, rng: np.random.Generator, kind: str) -> None:
    x, weight, bias = normal(rng, 515, 384), normal(rng, 1153, 384), normal(rng, 1153)
    await check_op(
        gpu, kind, "linear", [x, weight, bias], tolerance=sum_tolerance(384), activation="gelu"
    )


async def test_an_error_of_one_in_ten_thousand_would_be_found(
    gpu: NativeGpu, rng: np.random.Generator
) -> None:
    x, weight = normal(rng, 9, 8), normal(rng, 5, 8)
    tolerance = sum_tolerance(8)
    result = await check_op(
        gpu, "software", "linear", [x, weight], tolerance=tolerance, activation="none"
    )
    wrong = result * np.float32(1.0001)
    with pytest.raises(AssertionError):
        np.testing.assert_allclose(wrong, x @ weight.T, rtol=tolerance, atol=tolerance)
