"""layer_norm and layer_norm_lane."""

from __future__ import annotations

import numpy as np
import pytest

from bascule.backend.webgpu.gpu_native import NativeGpu
from tests.shaders.harness import KINDS, check_op, dims, normal


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("shape", [(1, 1), (1, 64), (3, 63), (15, 65), (17, 384), (70, 7)], ids=str)
@pytest.mark.parametrize("summed", [True, False])
async def test_edges(
    gpu: NativeGpu, rng: np.random.Generator, kind: str, shape: tuple[int, int], summed: bool
) -> None:
    x = normal(rng, *shape)
    weight, bias = normal(rng, shape[1]), normal(rng, shape[1])
    residual = normal(rng, *shape) if summed else None
    await check_op(
        gpu,
        kind,
        "layer_norm",
        [x, weight, bias, residual],
        tolerance=1e-5,
        eps=1e-12 if shape[1] > 1 else 1e-5,
    )


@pytest.mark.parametrize("kind", ["software", "hardware"])
async def test_a_far_mean_does_not_cancel(
    gpu: NativeGpu, rng: np.random.Generator, kind: str
) -> None:
    x = normal(rng, 5, 96) + np.float32(1000)
    ones = np.ones(96, np.float32)
    # Sums of squares around 0 would leave nothing of a variance of 1 here.
    await check_op(gpu, kind, "layer_norm", [x, ones, ones * 0], tolerance=2e-3, eps=1e-12)


@pytest.mark.parametrize("kind", ["software", "hardware"])
async def test_fewer_rows_than_the_bucket(
    gpu: NativeGpu, rng: np.random.Generator, kind: str
) -> None:
    b, t = dims(B=4, T=32)
    x, weight, bias = normal(rng, 3, 17, 20), normal(rng, 20), normal(rng, 20)
    await check_op(
        gpu,
        kind,
        "layer_norm",
        [x, weight, bias, x],
        tolerance=1e-5,
        eps=1e-12,
        limits=[(b, t, 20), None, None, (b, t, 20)],
        sizes={"B": 3, "T": 17},
    )


@pytest.mark.parametrize("kind", ["hardware"])
async def test_more_rows_than_one_dimension_of_workgroups(
    gpu: NativeGpu, rng: np.random.Generator, kind: str
) -> None:
    x, weight, bias = normal(rng, 65536 + 3, 4), normal(rng, 4), normal(rng, 4)
    # Rows of four can have a tiny variance, which magnifies rounding.
    await check_op(gpu, kind, "layer_norm", [x, weight, bias], tolerance=2e-4, eps=1e-3)
