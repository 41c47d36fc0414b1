"""relative_bias and rope, on every tier."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from bascule.backend.reference import FUNCTIONS
from bascule.backend.webgpu.gpu_native import NativeGpu
from bascule.errors import InputError
from bascule.program.graph import Graph
from bascule.program.program import Dim
from tests.shaders.harness import check_op, check_without_a_device, dims, normal


def catalogued(graph: Graph) -> None:
    """For `catalogue`."""
    length = Dim("Tokens", 5)
    table = graph.parameter("distances", (8, 3))
    graph.call("relative_bias", table, length=length, max_distance=16)
    place = graph.input("place", (1,), "u32")
    bias = graph.call("relative_bias", table, place, length=length, max_distance=16, causal=True)
    # A table that was computed, of as many columns as there are tokens.
    heads = graph.input("heads_of_rows", (1, 6), "u32")
    graph.call("embedding", heads, graph.reshape(bias, (3, length)))
    x = graph.input("unrotated", (2, length, 24))
    graph.call("rope", x, graph.parameter("angles_of_places", (7, 8)), size=8)


@pytest.mark.parametrize("kind", ["software", "hardware", "hardware-limited"])
@pytest.mark.parametrize(
    ("rows", "heads", "length", "maximum"),
    [(32, 12, 1, 128), (32, 4, 300, 128), (8, 1, 70, 16), (4, 3, 9, 2), (64, 2, 65, 100)],
)
async def test_biases(
    gpu: NativeGpu, rng, kind: str, rows: int, heads: int, length: int, maximum: int
) -> None:
    table = normal(rng, rows, heads)
    result: dict[str, Any] = {"length": length, "max_distance": maximum, "tolerance": 0}
    await check_op(gpu, kind, "relative_bias", [table], **result)
    await check_without_a_device("relative_bias", [table], **result)


def test_buckets_are_those_of_t5_and_mpnet() -> None:
    """Bounds by whole numbers: n is in bucket 8 + j from n^8 = 8^8 * 16^j on."""
    table = np.arange(32.0)[:, None]
    result = FUNCTIONS["relative_bias"](table, length=1500, max_distance=128)[0]
    for n in range(1500):
        wide = sum(n**8 >= 8**8 * 16**j for j in range(1, 8))
        expected = n if n < 8 else 8 + wide
        assert result[n, 0] == expected
        assert result[0, n] == (16 + expected if n else 0)


@pytest.mark.parametrize("kind", ["software", "hardware-limited"])
@pytest.mark.parametrize(("position", "causal"), [(0, True), (69, True), (40, True), (7, False)])
async def test_biases_of_one_query(
    gpu: NativeGpu, rng, kind: str, position: int, causal: bool
) -> None:
    table, at = normal(rng, 32, 5), np.array([position + 1], np.uint32)
    result: dict[str, Any] = {"length": 70, "max_distance": 40, "causal": causal, "tolerance": 0}
    await check_op(gpu, kind, "relative_bias", [table, at], **result)
    await check_without_a_device("relative_bias", [table, at], **result)
    whole = FUNCTIONS["relative_bias"](table, length=70, max_distance=40, causal=causal)
    alone = FUNCTIONS["relative_bias"](table, at, length=70, max_distance=40, causal=causal)
    np.testing.assert_array_equal(alone[:, 0], whole[:, position])


def test_causal_buckets_are_those_of_t5() -> None:
    """n is in bucket 16 + j from n^16 = 16^16 * 8^j on; keys ahead have the query's own."""
    result = FUNCTIONS["relative_bias"](
        np.arange(32.0)[:, None], length=900, max_distance=128, causal=True
    )[0]
    for n in range(900):
        wide = sum(n**16 >= 16**16 * 8**j for j in range(1, 16))
        assert result[n, 0] == (n if n < 16 else 16 + wide)
        assert result[0, n] == 0


CASES = [(1, 1, 1, 2), (2, 17, 3, 8), (3, 65, 2, 64), (1, 5, 1, 6)]


@pytest.mark.parametrize("kind", ["software", "hardware"])
@pytest.mark.parametrize("shape", CASES, ids=str)
async def test_rotated_heads(gpu: NativeGpu, rng, kind: str, shape: tuple[int, ...]) -> None:
    batch, tokens, heads, size = shape
    given = [normal(rng, batch, tokens, heads * size), normal(rng, max(tokens - 3, 1), size)]
    await check_op(gpu, kind, "rope", given, tolerance=2e-6, size=size)
    await check_without_a_device("rope", given, tolerance=2e-6, size=size)


def test_a_rotation_is_one() -> None:
    rng = np.random.default_rng(3)
    x, angle = rng.standard_normal((2, 5, 8)), rng.uniform(0, 6, (5, 2))
    result = FUNCTIONS["rope"](x, np.concatenate((np.cos(angle), np.sin(angle)), 1), size=4)
    turned = x.reshape(2, 5, 2, 2, 2)
    z = (turned[..., 0, :] + 1j * turned[..., 1, :]) * np.exp(1j * angle)[None, :, None, :]
    expected = np.stack((z.real, z.imag), axis=-2).reshape(x.shape)
    np.testing.assert_allclose(result, expected, atol=1e-12)


async def test_sizes_of_a_run(gpu: NativeGpu, rng) -> None:
    b, t = dims(B=4, T=16)
    given = [normal(rng, 2, 9, 12), normal(rng, 16, 4)]
    result: dict[str, Any] = {"limits": [(b, t, 12), None], "sizes": {"B": 2, "T": 9}, "size": 4}
    await check_op(gpu, "hardware", "rope", given, tolerance=2e-6, **result)
    await check_without_a_device("rope", given, tolerance=2e-6, **result)


def test_shapes_that_do_not_fit_are_refused() -> None:
    graph = Graph("g")
    odd, table = graph.parameter("odd", (6, 2)), graph.parameter("table", (8, 2))
    with pytest.raises(InputError, match="a multiple of 4 rows"):
        graph.call("relative_bias", odd, length=3, max_distance=9)
    with pytest.raises(InputError, match="a max_distance above 2"):
        graph.call("relative_bias", table, length=3, max_distance=2)
    with pytest.raises(InputError, match="a length of at least 1"):
        graph.call("relative_bias", table, length=0, max_distance=9)
    x = graph.input("x", (1, 2, 6))
    for size, angles in ((3, "a"), (4, "b"), (2, "c"), (0, "d")):
        with pytest.raises(InputError, match=r"op rope"):
            graph.call("rope", x, graph.parameter(angles, (5, 6)), size=size)
