"""frames, magnitude, log10, largest and limit_range, on every tier that computes ops itself."""

from __future__ import annotations

import numpy as np
import pytest

from bascule.backend.webgpu.gpu_native import NativeGpu
from bascule.errors import InputError
from bascule.program.graph import Graph
from tests.shaders.harness import KINDS, check_op, check_without_a_device, dims, normal

# N, K, step, pad and count.
FRAMES = [
    (1, 1, 1, 0, 1),
    (7, 5, 2, 3, 5),
    (7, 13, 1, 6, 7),  # as much reflected as there is, at both ends at once
    (400, 400, 160, 200, 3),
    (331, 64, 65, 0, 5),
]


def catalogued(graph: Graph) -> None:
    """For `catalogue`."""
    x, window = graph.input("signal", (30,)), graph.input("window", (8,))
    y = graph.call("frames", x, window, step=4, pad=4, count=5)
    y = graph.call("log10", graph.call("magnitude", y), floor=1e-10)
    graph.call("limit_range", y, graph.call("largest", y), span=8.0, scale=0.25, offset=1.0)


@pytest.mark.parametrize("case", FRAMES, ids=str)
async def test_frames(gpu: NativeGpu, rng: np.random.Generator, case: tuple[int, ...]) -> None:
    samples, width, step, pad, count = case
    inputs = [normal(rng, samples), normal(rng, width)]
    given = {"step": step, "pad": pad, "count": count}
    result = await check_op(gpu, "software", "frames", inputs, tolerance=1e-7, **given)
    await check_without_a_device("frames", inputs, tolerance=1e-7, **given)
    wide = np.pad(inputs[0], pad, mode="reflect")
    for f in range(count):
        expected = wide[f * step : f * step + width] * inputs[1]
        np.testing.assert_allclose(result[f], expected, rtol=1e-6)


@pytest.mark.parametrize(
    "change", [{"step": 0}, {"pad": 9}, {"pad": -1}, {"count": 0}, {"count": 8}], ids=str
)
def test_frames_that_leave_the_signal_are_rejected(change: dict[str, int]) -> None:
    graph = Graph("wrong")
    x, window = graph.input("x", (9,)), graph.input("window", (4,))
    with pytest.raises(InputError, match="op frames"):
        graph.call("frames", x, window, **{"step": 1, "pad": 0, "count": 2, **change})


@pytest.mark.parametrize("half", [1, 3, 65, 129])
async def test_magnitude(gpu: NativeGpu, rng: np.random.Generator, half: int) -> None:
    x = normal(rng, 3, 5, 2 * half)
    x[0, 0] = 0
    result = await check_op(gpu, "software", "magnitude", [x], tolerance=2e-6)
    await check_without_a_device("magnitude", [x], tolerance=2e-6)
    expected = np.abs(x[..., :half] + 1j * x[..., half:])
    np.testing.assert_allclose(result, expected, rtol=2e-6, atol=1e-6)


async def test_magnitude_of_a_run_in_a_larger_bucket(gpu: NativeGpu, rng) -> None:
    (n,) = dims(N=90)
    given = {"limits": [(n, 6)], "sizes": {"N": 41}}
    await check_op(gpu, "hardware", "magnitude", [normal(rng, 41, 6)], tolerance=2e-6, **given)


def test_magnitudes_of_what_is_no_pairs_are_rejected() -> None:
    graph = Graph("wrong")
    with pytest.raises(InputError, match="op magnitude"):
        graph.call("magnitude", graph.input("x", (4, 5)))


async def test_log10(gpu: NativeGpu, rng: np.random.Generator) -> None:
    x = np.exp(normal(rng, 5, 67) * 12).astype(np.float32)
    x[0, :4] = (0, -1, 1, 1e-10)
    await check_op(gpu, "software", "log10", [x], tolerance=2e-6, floor=1e-10)
    await check_without_a_device("log10", [x], tolerance=2e-6, floor=1e-10)
    graph = Graph("wrong")
    with pytest.raises(InputError, match="op log10"):
        graph.call("log10", graph.input("x", (2,)), floor=0.0)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("n", [1, 63, 64, 65, 1000])
async def test_largest(gpu: NativeGpu, rng: np.random.Generator, kind: str, n: int) -> None:
    x = normal(rng, n) - np.float32(9)  # all below 0: nothing else may win
    await check_op(gpu, kind, "largest", [x], tolerance=0)
    await check_op(gpu, kind, "largest", [np.sort(x)], tolerance=0)
    await check_without_a_device("largest", [x], tolerance=0)


async def test_largest_of_a_run_in_a_larger_bucket(gpu: NativeGpu, rng) -> None:
    (n,) = dims(N=90)
    x = normal(rng, 3, 41)
    given = {"limits": [(3, n)], "sizes": {"N": 41}}
    await check_op(gpu, "hardware", "largest", [x], tolerance=0, **given)


async def test_limit_range(gpu: NativeGpu, rng: np.random.Generator) -> None:
    x, top = normal(rng, 3, 65) * np.float32(8), np.array([4.5], np.float32)
    given = {"span": 8.0, "scale": 0.25, "offset": 1.0}
    result = await check_op(gpu, "software", "limit_range", [x, top], tolerance=1e-6, **given)
    assert result.min() == np.float32(0.125)  # (4.5 - 8) / 4 + 1
    await check_without_a_device("limit_range", [x, top], tolerance=1e-6, **given)
