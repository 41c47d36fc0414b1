"""dot_product_attention: masks, scale, bias and shared KV heads, on every tier that has it."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from bascule.backend.reference import FUNCTIONS
from bascule.backend.webgpu.gpu_native import NativeGpu
from bascule.errors import InputError
from bascule.program.graph import Graph
from tests.shaders.harness import check_op, check_without_a_device, dims, normal

OP = "dot_product_attention"
# B, Tq, Tk, H, G, D, and attributes.
CASES: list[tuple[tuple[int, ...], dict[str, Any]]] = [
    ((1, 1, 1, 1, 1, 1), {}),
    ((2, 5, 9, 4, 4, 8), {"scale": 1.0}),
    ((3, 17, 3, 6, 2, 5), {}),
    ((2, 19, 33, 4, 1, 7), {"causal": True}),
    ((2, 33, 19, 4, 2, 12), {"causal": True, "window": 5}),
    ((1, 70, 70, 2, 2, 64), {"causal": True, "window": 16, "scale": 0.3}),
    ((2, 40, 40, 2, 2, 8), {"window": 7}),
    ((2, 5, 9, 2, 1, 4), {"window": 1}),
]


def catalogued(graph: Graph) -> None:
    """For `catalogue`."""
    q, k = graph.input("cross_q", (2, 3, 16)), graph.input("cross_k", (2, 5, 8))
    lengths, bias = graph.input("cross_n", (2,), "u32"), graph.input("cross_bias", (4, 3, 5))
    for n in (None, lengths):
        for b in (None, bias):
            graph.call(OP, q, k, k, n, b, heads=4, kv_heads=2)


def operands(rng, shape: tuple[int, ...]) -> tuple[list[np.ndarray], np.ndarray, np.ndarray]:
    batch, queries, keys, heads, kv_heads, size = shape
    kv = (batch, keys, kv_heads * size)
    q = normal(rng, batch, queries, heads * size)
    lengths = rng.integers(0, keys + 3, batch).astype(np.uint32)  # none and too many, too
    return [q, normal(rng, *kv), normal(rng, *kv)], lengths, normal(rng, heads, queries, keys)


@pytest.mark.parametrize("kind", ["software", "hardware", "hardware-limited"])
@pytest.mark.parametrize(("shape", "attributes"), CASES, ids=str)
async def test_cases(gpu: NativeGpu, rng, kind: str, shape, attributes) -> None:
    heads = {"heads": shape[3], "kv_heads": shape[4]}
    qkv, lengths, bias = operands(rng, shape)
    for rest in ([None, None], [lengths, None], [None, bias], [lengths, bias]):
        await check_op(gpu, kind, OP, [*qkv, *rest], tolerance=2e-5, **heads, **attributes)


@pytest.mark.parametrize(("shape", "attributes"), CASES, ids=str)
async def test_cases_without_a_device(rng, shape, attributes) -> None:
    heads = {"heads": shape[3], "kv_heads": shape[4]}
    qkv, lengths, bias = operands(rng, shape)
    for rest in ([None, None], [lengths, bias]):
        await check_without_a_device(OP, [*qkv, *rest], tolerance=2e-5, **heads, **attributes)


async def test_sizes_of_a_run(gpu: NativeGpu, rng) -> None:
    b, t, s = dims(B=4, T=16, S=33)
    qkv, lengths, bias = operands(rng, (2, 9, 21, 4, 2, 6))
    result = {
        "limits": [(b, t, 24), (b, s, 12), (b, s, 12), (b,), (4, t, s)],
        "sizes": {"B": 2, "T": 9, "S": 21},
        "heads": 4,
        "kv_heads": 2,
        "causal": True,
    }
    await check_op(gpu, "hardware", OP, [*qkv, lengths, bias], tolerance=2e-5, **result)
    await check_without_a_device(OP, [*qkv, lengths, bias], tolerance=2e-5, **result)


def test_it_is_the_ops_made_for_one_model_each(rng) -> None:
    """Packed attention of whole texts, and causal attention over a cache."""
    qkv, lengths = rng.standard_normal((3, 7, 72)), np.array([7, 3, 0], np.uint32)
    q, k, v = np.split(qkv, 3, axis=-1)
    result = FUNCTIONS[OP](q, k, v, lengths, heads=4, kv_heads=4)
    np.testing.assert_allclose(result, FUNCTIONS["attention"](qkv, lengths, heads=4), atol=1e-12)
    q, cache = rng.standard_normal((5, 24)), rng.standard_normal((12, 24))
    heads, position = {"heads": 4, "kv_heads": 2}, np.array([7], np.uint32)
    k, v = cache[None, :, :12], cache[None, :, 12:]
    for window in (0, 4):
        result = FUNCTIONS[OP](q[None], k, v, **heads, causal=True, window=window)
        right = FUNCTIONS["cached_attention"](q, cache, position, size=6, window=window, **heads)
        np.testing.assert_allclose(result[0], right, atol=1e-12)


@pytest.mark.parametrize(
    ("shapes", "attributes"),
    [
        ([(2, 3, 8), (2, 4, 8), (2, 5, 8)], {}),
        ([(2, 3, 8), (1, 4, 8), (1, 4, 8)], {}),
        ([(2, 3, 9), (2, 4, 9), (2, 4, 9)], {}),
        ([(2, 3, 8), (2, 4, 8), (2, 4, 8)], {"kv_heads": 1}),
        ([(2, 3, 8), (2, 4, 8), (2, 4, 8)], {"heads": 0}),
        ([(2, 3, 8), (2, 4, 8), (2, 4, 8)], {"window": -1}),
        ([(2, 3, 8), (2, 4, 8), (2, 4, 8), (3,)], {}),
        ([(2, 3, 8), (2, 4, 8), (2, 4, 8), None, (2, 4, 3)], {}),
    ],
    ids=str,
)
def test_what_does_not_fit_is_refused(shapes, attributes: dict[str, int]) -> None:
    graph = Graph("wrong")
    values = [graph.input(f"x{i}", s) if s else None for i, s in enumerate(shapes)]
    with pytest.raises(InputError, match=f"op {OP}"):
        graph.call(OP, *values, **{"heads": 2, "kv_heads": 2, **attributes})
