"""kv_append: rows into a ring, and attention of one query over all of it."""

from __future__ import annotations

import numpy as np
import pytest

from bascule.backend.cpu import ReferenceBackend
from bascule.backend.wasm.backend import WasmBackend
from bascule.backend.wasm.kernels_native import open_native
from bascule.backend.webgpu.backend import WebGpuBackend
from bascule.backend.webgpu.gpu_native import NativeGpu
from bascule.errors import InputError
from bascule.program.compile import freeze
from bascule.program.graph import Graph
from tests.shaders.harness import check_op, dims, normal

# Either neighbour of a value may be taken when it is packed into a half.
HALF = 2.0**-10


def catalogued(graph: Graph) -> None:
    """For `catalogue`."""
    position = graph.state("kv_position", (1,), "u32")
    for dtype in ("f32", "f16"):
        cache = graph.state(f"kv_cache_{dtype}", (9, 8), dtype)
        graph.call("kv_append", graph.input(f"kv_{dtype}", (4, 8)), cache, position)


@pytest.mark.parametrize("dtype", [np.float32, np.float16])
@pytest.mark.parametrize(
    ("tokens", "slots", "width", "position"),
    [(1, 1, 2, 0), (5, 5, 6, 0), (3, 8, 130, 6), (9, 4, 2, 5), (33, 64, 4, 2**20)],
)
async def test_rows_go_around_the_end(
    gpu: NativeGpu, rng, tokens: int, slots: int, width: int, position: int, dtype: type
) -> None:
    cache, kv = normal(rng, slots, width).astype(dtype), normal(rng, tokens, width)
    inputs = [kv, cache, np.array([position], np.uint32)]
    tolerance = 0 if dtype is np.float32 else HALF
    result = await check_op(
        gpu, "software", "kv_append", inputs, tolerance=tolerance, states=[1, 2]
    )
    assert result.tolist() == [position + tokens]


async def test_fewer_rows_than_the_bucket(gpu: NativeGpu, rng) -> None:
    (t,) = dims(T=16)
    inputs = [normal(rng, 5, 6), normal(rng, 7, 6), np.array([4], np.uint32)]
    given = {"limits": [(t, 6), None, None], "sizes": {"T": 5}, "states": [1, 2]}
    await check_op(gpu, "software", "kv_append", inputs, tolerance=0, **given)


@pytest.mark.parametrize("shape", [(4, 7), (4, 6)])
def test_rows_that_do_not_fit_are_rejected(shape: tuple[int, int]) -> None:
    graph = Graph("wrong")
    cache, position = graph.state("c", (4, 8), "f32"), graph.state("p", (1,), "u32")
    with pytest.raises(InputError, match="op kv_append"):
        graph.call("kv_append", graph.input("kv", shape), cache, position)


@pytest.mark.parametrize("dtype", ["f32", "f16"])
async def test_a_query_meets_all_of_another_sequence(gpu: NativeGpu, rng, dtype) -> None:
    """Cross-attention: keys and values kept once, then met from the last key's position."""
    heads, size, keys = 3, 8, 70
    wide = heads * size
    kv, q = normal(rng, keys, 2 * wide), normal(rng, 1, wide)
    k, v = (x.reshape(keys, heads, size) for x in np.split(kv.astype(np.float64), 2, axis=1))
    scores = np.einsum("hd,khd->hk", q.reshape(heads, size), k) / size**0.5
    weights = np.exp(scores - scores.max(axis=1, keepdims=True))
    weights /= weights.sum(axis=1, keepdims=True)
    expected = np.einsum("hk,khd->hd", weights, v).reshape(1, wide)

    store, attend = Graph("store"), Graph("attend")
    states = [g.state("cross", (keys, 2 * wide), dtype) for g in (store, attend)]
    start, last = store.state("start", (1,), "u32"), attend.state("last", (1,), "u32")
    store.output(store.call("kv_append", store.input("kv", kv.shape), states[0], start))
    query = attend.input("q", q.shape)
    given = {"heads": heads, "kv_heads": heads, "size": size, "window": 0}
    attend.output(attend.call("cached_attention", query, states[1], last, **given))
    for backend in (WebGpuBackend(gpu), WasmBackend(open_native()), ReferenceBackend()):
        kept = backend.states([*store.states, last], {})
        kept.write("last", 0, np.array([keys - 1], np.uint32).data)
        weights = backend.store(())
        first = await backend.prepare(freeze(store), weights, kept)
        second = await backend.prepare(freeze(attend), weights, kept)
        await first.run({}, {"kv": kv})
        (result,) = (await second.run({}, {"q": q})).values()
        np.testing.assert_allclose(result, expected, atol=2e-6 if dtype == "f32" else 2e-3)
