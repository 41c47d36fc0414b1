"""softmax: exponentials of rows, on every tier that computes ops itself."""

from __future__ import annotations

import numpy as np
import pytest

from bascule.backend.webgpu.gpu_native import NativeGpu
from bascule.program.graph import Graph
from tests.shaders.harness import KINDS, check_op, check_without_a_device, dims, normal

COLUMNS = [1, 2, 63, 64, 65, 131, 4097]


def catalogued(graph: Graph) -> None:
    """For `catalogue`."""
    graph.call("softmax", graph.input("scores", (3, 5, 24)))


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("cols", COLUMNS)
async def test_edges(gpu: NativeGpu, rng: np.random.Generator, kind: str, cols: int) -> None:
    x = normal(rng, 3, 7, cols)
    result = await check_op(gpu, kind, "softmax", [x], tolerance=2e-6)
    assert np.abs(result.sum(axis=-1) - 1).max() < 1e-5


@pytest.mark.parametrize("cols", COLUMNS)
async def test_edges_without_a_device(rng: np.random.Generator, cols: int) -> None:
    await check_without_a_device("softmax", [normal(rng, 3, 7, cols)], tolerance=2e-6)


@pytest.mark.parametrize("kind", KINDS)
async def test_large_numbers(gpu: NativeGpu, rng: np.random.Generator, kind: str) -> None:
    """Their exponentials alone would overflow, and those of the others vanish."""
    x = normal(rng, 5, 40) * 200
    await check_op(gpu, kind, "softmax", [x], tolerance=1e-5)
    await check_op(gpu, kind, "softmax", [x - 1e4], tolerance=1e-5)


@pytest.mark.parametrize("kind", ["software", "hardware"])
async def test_fewer_rows_than_the_bucket(
    gpu: NativeGpu, rng: np.random.Generator, kind: str
) -> None:
    (t,) = dims(T=16)
    x = normal(rng, 9, 33)
    options = {"limits": [(t, 33)], "sizes": {"T": 9}}
    await check_op(gpu, kind, "softmax", [x], tolerance=2e-6, **options)
    await check_without_a_device("softmax", [x], tolerance=2e-6, **options)


@pytest.mark.parametrize("kind", ["software", "hardware"])
async def test_past_one_dimension_of_workgroups(
    gpu: NativeGpu, rng: np.random.Generator, kind: str
) -> None:
    await check_op(gpu, kind, "softmax", [normal(rng, 65_540, 3)], tolerance=2e-6)
