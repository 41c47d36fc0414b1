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
SHAPES = [
    ((), 1, 1, 1),
    ((2,), 4, 3, 4),
    ((3, 2), 5, 17, 9),
    ((1,), 67, 33, 3),
    ((7,), 1, 64, 65),
    ((2,), 3, 8, 12),  # whole vec4s of both
    ((3,), 9, 12, 20),
    ((), 8, 16, 7),
]
# One of each kernel and its most lanes; the others differ in lanes alone.
VARIANTS = ["matmul 64", "matmul_block 64", "matmul_row 64"]


def catalogued(graph: Graph) -> None:
    """For `catalogue`."""
    x, y = graph.input("left", (2, 5, 8)), graph.input("right", (2, 8, 6))
    graph.call("matmul", x, y)
    graph.call("matmul", x, graph.input("rows", (6, 8)), transposed=True)
    graph.call("matmul", graph.input("few", (2, 8)), graph.input("whole", (8, 12)))
    graph.call("matmul", graph.input("odd", (2, 7)), graph.input("odd_rows", (7, 12)))
    graph.call("matmul", graph.input("tall", (9, 8)), graph.input("whole_too", (8, 12)))
    graph.call("matmul", graph.input("tall_odd", (9, 7)), graph.input("odd_too", (7, 12)))


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


@pytest.mark.parametrize("kernel", VARIANTS)
@pytest.mark.parametrize("transposed", [False, True])
async def test_every_kernel(gpu: NativeGpu, rng, kernel: str, transposed: bool) -> None:
    for shape in SHAPES:
        if kernel.startswith("matmul_row") and shape[1] > 3:
            continue
        for shared in (False, True):
            inputs = operands(rng, *shape, transposed=transposed, shared=shared)
            settings = {"tolerance": sum_tolerance(shape[2]), "transposed": transposed}
            await check_op(gpu, "hardware", "matmul", inputs, kernel=kernel, **settings)


async def test_the_next_row_is_not_added_to_a_short_one(gpu: NativeGpu, rng) -> None:
    """K is known per run, and no multiple of the 4 that a lane walks at a time."""
    t, s = dims(T=9, S=16)
    x, y = normal(rng, 9, 5), normal(rng, 5, 6)
    for kernel in VARIANTS[:2]:
        mixed = {"limits": [(t, s), (s, 6)], "sizes": {"T": 9, "S": 5}, "kernel": kernel}
        await check_op(gpu, "hardware", "matmul", [x, y], tolerance=1e-5, **mixed)


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
