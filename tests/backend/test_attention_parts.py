"""Rewritten attention on every tier: equal to the plain program's, and to numpy in float64."""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping, Sequence
from typing import Any

import numpy as np
import pytest

from bascule.backend.base import Backend, StateStore
from bascule.backend.cpu import ReferenceBackend
from bascule.backend.reference import FUNCTIONS
from bascule.backend.wasm.backend import WasmBackend
from bascule.backend.wasm.kernels_native import NativeKernels
from bascule.backend.webgpu.backend import WebGpuBackend
from bascule.backend.webgpu.gpu_native import NativeGpu, open_native
from bascule.base.arrays import NUMPY
from bascule.program.compile import freeze
from bascule.program.graph import Graph
from bascule.program.ops.parts import attention_work
from bascule.program.program import Dim, Program
from bascule.program.rewrites.attention import does_attention
from bascule.program.rewrites.heads import head_partitioning
from bascule.program.rewrites.kv_partitions import partitioned_kv_cache
from bascule.program.rewrites.queries import chunked_attention
from bascule.program.rewrites.rewrite import Limits, Rewrite, fit
from tests.shaders.harness import disguise, normal, padded
from tests.shaders.test_rope import angles

Array = np.ndarray[Any, np.dtype[Any]]

HEADS, QUERIES, CACHE = head_partitioning, chunked_attention, partitioned_kv_cache
# Each alone and with the others; each with how much of a call's work a dispatch may do.
PLANS: Mapping[str, tuple[Sequence[Rewrite], float]] = {
    "heads": ([HEADS], 0.4),
    "each-head": ([HEADS], 1e-9),
    "queries": ([QUERIES], 0.3),
    "heads-queries": ([HEADS, QUERIES], 0.07),
    "queries-heads": ([QUERIES, HEADS], 0.3),
}
CACHE_PLANS: Mapping[str, tuple[Sequence[Rewrite], float]] = {
    **PLANS,
    "cache": ([CACHE], 1),
    "cache-heads-queries": ([CACHE, HEADS, QUERIES], 0.07),
    "heads-cache": ([HEADS, CACHE], 0.4),
    "queries-cache": ([QUERIES, CACHE], 0.3),
}


@pytest.fixture(params=["cpu", "wasm", "webgpu-software", "webgpu-hardware"])
async def backend(request: pytest.FixtureRequest, kernels: NativeKernels) -> AsyncIterator[Backend]:
    if request.param == "cpu":
        yield ReferenceBackend()
    elif request.param == "wasm":
        yield WasmBackend(kernels)
    else:
        gpu = await open_native()
        gpu.adapter = disguise(gpu.adapter, request.param.removeprefix("webgpu-"))
        yield WebGpuBackend(gpu)
        gpu.destroy()


# batch, its limit, tokens, their limit, heads, head size: one token, odd sizes, chunks that a run
# does not have, odd head sizes, several tiles of queries.
CASES = [
    (1, 1, 1, 1, 3, 4),
    (1, 2, 1, 17, 5, 8),
    (2, 3, 11, 40, 4, 5),
    (3, 3, 21, 21, 7, 12),
    (1, 1, 130, 140, 2, 16),
    (2, 2, 65, 65, 12, 32),
]


@pytest.mark.parametrize("plan", PLANS)
async def test_attention(backend: Backend, plan: str, rng: np.random.Generator) -> None:
    for batch, max_batch, tokens, max_tokens, heads, size in CASES:
        graph = Graph("encoder")
        b, t = Dim("B", max_batch), Dim("T", max_tokens)
        qkv = graph.input("qkv", (b, t, 3 * heads * size))
        lengths = graph.input("lengths", (b,), "u32")
        graph.output(graph.call("attention", qkv, lengths, heads=heads))
        program = freeze(graph)
        rewritten = _rewritten(program, plan)
        counts = rng.integers(0, tokens + 2, batch).astype(np.uint32)
        inputs = {"qkv": normal(rng, batch, tokens, 3 * heads * size), "lengths": counts}
        inputs["lengths"] = np.minimum(counts, tokens).astype(np.uint32)
        sizes = {"B": batch, "T": tokens}
        plain, result = [await _once(backend, each, sizes, inputs) for each in (program, rewritten)]
        wide = inputs["qkv"].astype(np.float64)
        expected = FUNCTIONS["attention"](wide, inputs["lengths"], heads=heads)
        np.testing.assert_allclose(result, plain, rtol=0, atol=2e-6)
        np.testing.assert_allclose(result, expected, rtol=0, atol=1e-5)


async def test_tuning_takes_like_parts_for_one(gpu: NativeGpu, rng: np.random.Generator) -> None:
    """What a part leaves alone is not held against it."""
    graph = Graph("encoder")
    qkv = graph.input("qkv", (2, 24, 3 * 6 * 8))
    graph.output(graph.call("attention", qkv, graph.input("lengths", (2,), "u32"), heads=6))
    program = freeze(graph)
    work = attention_work(program.calls[0])
    rewritten = fit(program, Limits(dispatch_work=work / 6), [HEADS, QUERIES])[0]
    assert len(rewritten.calls) == 6
    backend = WebGpuBackend(gpu)
    report = await backend.tune([rewritten], budget_s=20)
    assert (report.wrong, report.skipped) == ([], [])
    assert [finding.count for finding in report.findings] == [6]
    assert (await backend.tune([rewritten], budget_s=20)).known == 1
    inputs = {"qkv": normal(rng, 2, 24, 144), "lengths": np.array([24, 7], np.uint32)}
    plain, result = [await _once(backend, each, {}, inputs) for each in (program, rewritten)]
    np.testing.assert_allclose(result, plain, rtol=0, atol=2e-6)


# tokens, their limit, slots, their limit, position, heads, KV heads, size, window, pairs: decoding,
# prefill in a larger bucket, rings that wrapped, windows, one KV head, one for each head.
CACHE_CASES = [
    (1, 1, 1, 1, 0, 6, 3, 64, 0, "halves"),
    (1, 1, 300, 300, 255, 9, 3, 16, 0, "adjacent"),
    (1, 16, 130, 512, 5000, 4, 4, 16, 129, "halves"),
    (5, 64, 8, 64, 5000, 6, 2, 20, 0, "adjacent"),
    (17, 17, 64, 64, 47, 8, 1, 8, 0, "halves"),
    (33, 64, 90, 256, 70, 4, 2, 16, 7, "halves"),
    (3, 3, 40, 40, 20, 5, 5, 4, 1, "adjacent"),
    (64, 64, 100, 100, 257, 12, 4, 32, 0, "halves"),
]


@pytest.mark.parametrize("dtype", ["f32", "f16"])
@pytest.mark.parametrize("plan", CACHE_PLANS)
async def test_cached_attention(
    backend: Backend, plan: str, dtype: Any, rng: np.random.Generator
) -> None:
    for case in CACHE_CASES:
        tokens, _, slots, _, position, heads, kv_heads, size, window, pairs = case
        program = _decoder(case, dtype)
        rewritten = _rewritten(program, plan)
        qkv = normal(rng, tokens, (heads + 2 * kv_heads) * size)
        before = normal(rng, slots, 2 * kv_heads * size).astype(NUMPY[dtype])
        if position + tokens < slots:
            before[position + tokens :] = np.nan  # what nobody has written is never read
        others = {"position": np.array([position], np.uint32), "angles": angles(size)}
        result, caches = [], []
        for each in (program, rewritten):
            y, cache = await _cached_once(backend, each, before, others, {"qkv": qkv}, case)
            result.append(y)
            caches.append(cache)
        np.testing.assert_array_equal(caches[0], caches[1])
        np.testing.assert_allclose(result[1], result[0], rtol=0, atol=3e-6)

        wide = {name: x.astype(np.float64) for name, x in (("qkv", qkv), *others.items())}
        shape = {"heads": heads, "kv_heads": kv_heads, "size": size}
        kept = before.astype(np.float64)
        operands = (kept, wide["angles"], others["position"])
        q = FUNCTIONS["rope_append"](wide["qkv"], *operands, pairs=pairs, **shape)
        near = 2.0**-10 if dtype == "f16" else 2e-6
        np.testing.assert_allclose(caches[1], kept, rtol=near, atol=near)
        # The yardstick reads the cache as it is: halves are rounded.
        exact = caches[1].astype(np.float64)
        expected = FUNCTIONS["cached_attention"](
            q, exact, others["position"], window=window, **shape
        )
        np.testing.assert_allclose(result[1], expected, rtol=0, atol=1e-5)


def _decoder(case: tuple[Any, ...], dtype: Any) -> Program:
    _, max_tokens, _, max_slots, _, heads, kv_heads, size, window, pairs = case
    graph = Graph("decoder")
    t, s = Dim("T", max_tokens), Dim("S", max_slots)
    shape = {"heads": heads, "kv_heads": kv_heads, "size": size}
    qkv = graph.input("qkv", (t, (heads + 2 * kv_heads) * size))
    cache = graph.state("cache", (s, 2 * kv_heads * size), dtype)
    table = graph.state("angles", angles(size).shape)
    position = graph.state("position", (1,), "u32")
    q = graph.call("rope_append", qkv, cache, table, position, pairs=pairs, **shape)
    y = graph.call("cached_attention", q, cache, position, window=window, **shape)
    graph.output(y)
    return freeze(graph)


def _rewritten(program: Program, plan: str) -> Program:
    """Within limits that the plan needs, and as many heads and queries as there are in it."""
    rewrites, share = CACHE_PLANS[plan]
    call = next(call for call in program.calls if does_attention(call))
    work, x = attention_work(call), call.operands[0]
    assert x is not None
    queries, heads = x.limits[-2], call.integer("heads")
    # One query (of one head, where heads come first) is the least that a dispatch can do.
    minimum = work // queries // (heads if rewrites[0] is not QUERIES and HEADS in rewrites else 1)
    limits = Limits(dispatch_work=max(share * work, minimum if QUERIES in rewrites else 1))
    caches = [state for state in program.states if state.name == "cache"]
    if CACHE in rewrites:
        each = caches[0].nbytes // call.integer("kv_heads")
        limits = Limits(max(each, caches[0].nbytes * 0.6), dispatch_work=limits.dispatch_work)
    result, _ = fit(program, limits, rewrites)
    works = [attention_work(call) for call in result.calls if does_attention(call)]
    assert sum(works) == work
    # Heads alone end at one head a call.
    assert max(works) <= max(limits.dispatch_work, 0 if QUERIES in rewrites else work // heads)
    for state in result.states:
        assert "cache" not in state.name or state.nbytes <= limits.binding_nbytes
    return result


async def _once(
    backend: Backend, program: Program, sizes: Mapping[str, int], inputs: Mapping[str, Array]
) -> Array:
    store, states = backend.store(()), backend.states((), {})
    executable = await backend.prepare(program, store, states)
    _poison(backend, executable, program)
    result = await executable.run(sizes, inputs)
    executable.close()
    states.close()
    return result[program.outputs[0].name]


async def _cached_once(
    backend: Backend,
    program: Program,
    before: Array,
    others: Mapping[str, Array],
    inputs: Mapping[str, Array],
    case: tuple[Any, ...],
) -> tuple[Array, Array]:
    """The result, and the cache put together again."""
    tokens, _, slots, _, _, _, kv_heads, size, _, _ = case
    sizes = {"T": tokens, "S": slots}
    store, states = backend.store(()), backend.states(program.states, sizes)
    whole = before.reshape(slots, 2, kv_heads, size)
    first, places = 0, list[tuple[str, int, int]]()
    for state in program.states:
        if state.name in others:
            states.write(state.name, 0, padded(others[state.name]))
        else:
            count = state.limits[1] // 2 // size
            states.write(state.name, 0, padded(whole[:, :, first : first + count]))
            places.append((state.name, first, count))
            first += count
    executable = await backend.prepare(program, store, states)
    _poison(backend, executable, program)
    result = await executable.run(sizes, inputs)
    after = np.empty_like(whole)
    for name, start, count in places:
        after[:, :, start : start + count] = await _read(states, name, after, count)
    executable.close()
    states.close()
    return result[program.outputs[0].name], after.reshape(before.shape)


async def _read(states: StateStore, name: str, whole: Array, count: int) -> Array:
    part = np.empty((*whole.shape[:2], count, whole.shape[3]), whole.dtype)
    await states.read(name, 0, part)
    return part


def _poison(backend: Backend, executable: Any, program: Program) -> None:
    """Whatever no part writes, or one writes that is not its own, shows as NaN."""
    if isinstance(backend, WebGpuBackend):
        for name in program.slots:
            value = next(c.result for c in program.calls if c.result.name == name)
            filling = np.full(value.nbytes // 4, np.nan, np.float32)
            backend.gpu.write(executable._buffers[name], 0, filling)
