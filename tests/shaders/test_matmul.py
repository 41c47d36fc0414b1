"""matmul: products of matrices one by one, on every tier that computes ops itself."""

from __future__ import annotations

import numpy as np
import pytest

from bascule.backend.webgpu.gpu_native import NativeGpu
from bascule.errors import InputError
from bascule.program.graph import Graph
from tests.shaders.harness import (
    KINDS,
    check_op,
    check_without_a_device,
    dims,
    normal,
    sum_tolerance,
)

# Leading axes, M, K and N.
SHAPES = [((), 1, 1, 1), ((2,), 4, 3, 4), ((3, 2), 5, 17, 9), ((1,), 67, 33, 3), ((7,), 1, 64, 65)]


def catalogued(graph: Graph) -> None:
    """For `catalogue`."""
    x, y = graph.input("left", (2, 5, 8)), graph.input("right", (2, 8, 6))
    graph.call("matmul", x, y)
    graph.call("matmul", x, graph.input("rows", (6, 8)), transposed=True)


def operands(rng, lead, m, k, n, *, transposed: bool, shared: bool) -> list[np.ndarray]:
    matrix = (n, k) if transposed else (k, n)
    return [normal(rng, *lead, m, k), normal(rng, *(() if shared else lead), *matrix)]


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("transposed", [False, True])
@pytest.mark.parametrize("shape", SHAPES, ids=str)
async def test_edges(gpu: NativeGpu, rng, kind: str, shape, transposed: bool) -> None:
    for shared in (False, True):
        inputs = operands(rng, *shape, transposed=transposed, shared=shared)
        tolerance = sum_tolerance(shape[2])
        await check_op(gpu, kind, "matmul", inputs, tolerance=tolerance, transposed=transposed)


@pytest.mark.parametrize("transposed", [False, True])
@pytest.mark.parametrize("shape", SHAPES, ids=str)
async def test_edges_without_a_device(rng, shape, transposed: bool) -> None:
    for shared in (False, True):
        inputs = operands(rng, *shape, transposed=transposed, shared=shared)
        tolerance = sum_tolerance(shape[2])
        await check_without_a_device("matmul", inputs, tolerance=tolerance, transposed=transposed)


@pytest.mark.parametrize("kind", ["software", "hardware"])
async def test_sizes_of_a_run(gpu: NativeGpu, rng, kind: str) -> None:
    """M, K and N are known per run, in a bucket that is larger."""
    t, s = dims(T=16, S=33)
    scores = {"limits": [(2, t, 12), (2, s, 12)], "sizes": {"T": 9, "S": 21}}
    inputs = [normal(rng, 2, 9, 12), normal(rng, 2, 21, 12)]
    await check_op(gpu, kind, "matmul", inputs, tolerance=1e-5, transposed=True, **scores)
    await check_without_a_device("matmul", inputs, tolerance=1e-5, transposed=True, **scores)
    mixed = {"limits": [(2, t, s), (2, s, 5)], "sizes": {"T": 9, "S": 21}}
    inputs = [normal(rng, 2, 9, 21), normal(rng, 2, 21, 5)]
    await check_op(gpu, kind, "matmul", inputs, tolerance=2e-5, **mixed)
    await check_without_a_device("matmul", inputs, tolerance=2e-5, **mixed)


@pytest.mark.parametrize(
    ("x", "y", "transposed"),
    [
        ((3,), (3, 2), False),
        ((4, 3), (4, 2), False),
        ((2, 4, 3), (3, 3, 2), False),
        ((2, 4, 3), (4, 3, 2), False),
        ((4, 3), (3, 2), True),
    ],
)
def test_shapes_that_do_not_fit_are_refused(x, y, transposed: bool) -> None:
    graph = Graph("wrong")
    with pytest.raises(InputError, match="op matmul"):
        graph.call("matmul", graph.input("x", x), graph.input("y", y), transposed=transposed)
