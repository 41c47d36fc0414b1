"""rms_norm and rms_norm_lane; multiply, scale, softcap and concat, which stand beside them."""

from __future__ import annotations

import numpy as np
import pytest

from bascule.backend.webgpu.gpu_native import NativeGpu
from tests.shaders.harness import KINDS, check_op, dims, normal


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("shape", [(1, 1), (1, 576), (2, 63), (15, 64), (17, 65), (70, 7)], ids=str)
async def test_edges(
    gpu: NativeGpu, rng: np.random.Generator, kind: str, shape: tuple[int, int]
) -> None:
    inputs = [normal(rng, *shape), normal(rng, shape[1])]
    await check_op(gpu, kind, "rms_norm", inputs, tolerance=4e-6, eps=1e-5)


@pytest.mark.parametrize("kind", KINDS)
async def test_runs_of_the_weights_size(
    gpu: NativeGpu, rng: np.random.Generator, kind: str
) -> None:
    inputs = [normal(rng, 5, 6 * 12), normal(rng, 12)]
    await check_op(gpu, kind, "rms_norm", inputs, tolerance=4e-6, eps=1e-5)


@pytest.mark.parametrize("kind", KINDS)
async def test_a_number_added_to_the_weight(
    gpu: NativeGpu, rng: np.random.Generator, kind: str
) -> None:
    inputs = [normal(rng, 5, 70), normal(rng, 70)]
    await check_op(gpu, kind, "rms_norm", inputs, tolerance=6e-6, eps=1e-6, plus=1.0)


@pytest.mark.parametrize("kind", ["software", "hardware"])
async def test_fewer_rows_than_the_bucket(
    gpu: NativeGpu, rng: np.random.Generator, kind: str
) -> None:
    (t,) = dims(T=64)
    x, weight = normal(rng, 17, 20), normal(rng, 20)
    x[3] = 0  # a row of zeros stays zeros
    await check_op(
        gpu,
        kind,
        "rms_norm",
        [x, weight],
        tolerance=4e-6,
        eps=1e-5,
        limits=[(t, 20), None],
        sizes={"T": 17},
    )


@pytest.mark.parametrize("shape", [(1, 1), (3, 65), (2, 5, 7)], ids=str)
async def test_multiply(gpu: NativeGpu, rng: np.random.Generator, shape: tuple[int, ...]) -> None:
    for repeated in (shape, shape[-1:]):
        inputs = [normal(rng, *shape), normal(rng, *repeated)]
        await check_op(gpu, "software", "multiply", inputs, tolerance=1e-7)


@pytest.mark.parametrize("shape", [(1, 1), (3, 65), (2, 5, 7)], ids=str)
async def test_scale(gpu: NativeGpu, rng: np.random.Generator, shape: tuple[int, ...]) -> None:
    await check_op(gpu, "software", "scale", [normal(rng, *shape)], tolerance=1e-6, by=5.656854)


@pytest.mark.parametrize("shape", [(1, 1), (3, 65), (2, 5, 7)], ids=str)
async def test_softcap(gpu: NativeGpu, rng: np.random.Generator, shape: tuple[int, ...]) -> None:
    x = normal(rng, *shape) * np.float32(40)
    result = await check_op(gpu, "software", "softcap", [x], tolerance=2e-5, cap=30.0)
    assert np.abs(result).max() <= 30


async def test_softcap_far_out(gpu: NativeGpu) -> None:
    x = np.array([-3e38, -1e4, -31, 0, 31, 1e4, 3e38], np.float32)
    await check_op(gpu, "software", "softcap", [x], tolerance=1e-5, cap=30.0)


@pytest.mark.parametrize(
    "widths", [(1, 1, 1), (64, 1, 3), (5, 64, 65), (2, 7), (3, 1, 4, 1, 5, 9, 2)], ids=str
)
async def test_concat(gpu: NativeGpu, rng: np.random.Generator, widths: tuple[int, ...]) -> None:
    (t,) = dims(T=9)
    await check_op(
        gpu,
        "software",
        "concat",
        [normal(rng, 7, width) for width in widths],
        tolerance=0,
        limits=[(t, width) for width in widths],
        sizes={"T": 7},
    )
