"""Every named operation on every tier against numpy in float64, plainly and under limits."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest

import bascule
from bascule.backend.quantize import quantize
from bascule.base.dtypes import BlockType
from bascule.errors import (
    DeviceLostError,
    GpuOutOfMemoryError,
    InputError,
    LimitError,
)
from bascule.program.blocks import dequantize
from bascule.program.compile import freeze
from bascule.program.graph import Graph
from bascule.program.rewrites.quantization import progressive_quantization
from bascule.program.rewrites.rewrite import Limits

Array = np.ndarray[Any, np.dtype[Any]]
SAFARI = {"name": "safari", "version": "17.0"}
TIERS = ["webgpu", "wasm", "cpu"]


def attend(q: Array, k: Array, v: Array, causal: bool = False) -> Array:
    scores = q @ k.swapaxes(-1, -2) / np.sqrt(q.shape[-1])
    if causal:
        n_queries, n_keys = scores.shape[-2:]
        own = np.arange(n_queries)[:, None] + n_keys - n_queries
        scores = np.where(np.arange(n_keys) > own, -np.inf, scores)
    weights = np.exp(scores - scores.max(-1, keepdims=True))
    return weights / weights.sum(-1, keepdims=True) @ v


def heads_of(x: Array, heads: int) -> Array:
    return x.reshape(*x.shape[:-1], heads, -1).swapaxes(-2, -3)


Case = tuple[str, dict[str, Any], dict[str, Any], Array]


def cases(rng: np.random.Generator) -> Iterator[Case]:
    """Name, inputs, context and what numpy makes of it."""
    for shape, n_keys in (((1, 1), 1), ((5, 6), 9), ((2, 13, 8), 13), ((2, 3, 9, 5), 11)):
        q = rng.standard_normal(shape)
        k, v = rng.standard_normal((2, *shape[:-2], n_keys, shape[-1]))
        for causal in (False, True):
            given = {"query": q, "key": k, "value": v}
            yield "attention_compute", given, {"causal": causal}, attend(q, k, v, causal)
    q, k, v = rng.standard_normal((3, 2, 7, 12))
    given = {"query": q, "key": k, "value": v}
    by_head = attend(*(heads_of(x, 3) for x in (q, k, v)), causal=True)
    joined = by_head.swapaxes(-2, -3).reshape(q.shape)
    yield "multi_head_attention", given, {"heads": 3, "causal": True}, joined
    a, b, bias = rng.standard_normal((9, 33)), rng.standard_normal((33, 17)), np.ones(17)
    yield "matmul", {"a": a, "b": b, "bias": bias}, {}, a @ b + bias
    yield "matmul", {"a": a[0], "weight": b.T}, {}, a[0] @ b
    padded = np.pad(b.T.astype(np.float32), ((0, 0), (0, 31)))
    blocks, _ = quantize(BlockType.Q4_1, padded)
    four = dequantize(BlockType.Q4_1, blocks, padded.size).reshape(padded.shape)[:, :33]
    yield "matmul_4bit", {"a": a, "b": b}, {}, a @ four.T.astype(np.float64)
    table, ids = rng.standard_normal((400, 7)), rng.integers(0, 400, (6, 3))
    yield "embedding_lookup", {"ids": ids, "table": table}, {}, table[ids]
    caches, rows = rng.standard_normal((2, 8, 4, 6)), rng.standard_normal((2, 3, 4, 6))
    names = ("key_cache", "value_cache", "key", "value")
    after = caches.copy()
    after[:, [6, 7, 0]] = rows
    yield "kv_cache_update", dict(zip(names, (*caches, *rows), strict=True)), {"position": 6}, after
    image, weight = rng.standard_normal((2, 11, 9, 3)), rng.standard_normal((5, 3, 4, 3))
    framed = np.pad(image, ((0, 0), (1, 1), (1, 1), (0, 0)))
    seen = np.lib.stride_tricks.sliding_window_view(framed, (3, 4), (1, 2))[:, ::2, ::2]
    result = np.einsum("byxcij,nijc->byxn", seen, weight)
    context = {"stride": 2, "padding": 1}
    yield "feature_extraction", {"image": image, "weight": weight}, context, result
    tensor = rng.standard_normal((3, 64)).astype(np.float32)
    whole, _ = quantize(BlockType.Q8_0, tensor)
    yield "quantize", {"tensor": tensor}, {"bits": 8}, whole.reshape(3, -1)


CONFIGS: dict[str, dict[str, Any]] = {
    "plain": {},
    "bound": {"binding_nbytes": 2400},
    "short": {"dispatch_work": 3000},
    "tight": {"memory_budget_nbytes": 9000},
}


@pytest.mark.parametrize("tier", TIERS)
def test_each_operation_gives_what_numpy_gives(rng: np.random.Generator, tier: str) -> None:
    output = list(cases(rng))
    taken: set[str] = set()
    refused: dict[str, str] = {}
    for name, config in CONFIGS.items():
        with bascule.FallbackManager(SAFARI, config={"tier": tier, **config}) as manager:
            for operation, inputs, context, expected in output:
                try:
                    result = manager.run_with_fallback(operation, inputs, context)
                except LimitError as error:
                    assert name != "plain"
                    refused[name] = f"{operation}: {error}"
                    continue
                where = f"{operation} {name}"
                np.testing.assert_allclose(result, expected, 2e-5, 2e-5, err_msg=where)
                assert result.shape == expected.shape
                taken |= {each.strategy for each in manager.last_applied}
            metrics = manager.get_performance_metrics()
            assert metrics["fallback_activations"] + metrics["native_operations"] > 8
            for memory in metrics["memory_usage"].values():
                assert memory["peak_nbytes"] <= memory["threshold_nbytes"]
            assert metrics["wasm_fallbacks"] == 0
    wanted = {"head_partitioning", "layer_decomposition"}
    print(refused)
    assert taken >= {*wanted, "partitioned_kv_cache", "tiled_extraction", "chunked_embedding"}


def test_the_threshold_activates_and_lowers_the_peak(rng: np.random.Generator) -> None:
    a, b = rng.standard_normal((512, 64)), rng.standard_normal((64, 32))
    peaks = {}
    for threshold in (0.1, 0.9):
        config = {"tier": "cpu", "memory_budget_nbytes": 310_000}
        with bascule.FallbackManager(
            {"name": "safari", "version": "26"}, config=config, memory_threshold=threshold
        ) as manager:
            result = manager.run_with_fallback("matmul", {"a": a, "b": b})
            np.testing.assert_allclose(result, a @ b, 1e-5, 1e-4)
            metrics = manager.get_performance_metrics()
            peaks[threshold] = metrics["memory_usage"]["matmul"]["peak_nbytes"]
            assert metrics["layer_operations"] == (threshold == 0.1)
    assert peaks[0.1] <= 31_000 < peaks[0.9]


def test_without_layer_processing_a_matrix_past_the_budget_is_refused() -> None:
    inputs = {"a": np.ones((512, 64)), "b": np.ones((64, 32))}
    for config, needs in (
        ({"memory_budget_nbytes": 30_000}, "270,592 bytes.*24,000 bytes are allowed"),
        ({"binding_nbytes": 20_000}, "131,072 bytes.*at most 20,000"),
    ):
        config = {"tier": "cpu", **config}
        with (
            bascule.FallbackManager(
                SAFARI, config=config, enable_layer_processing=False
            ) as manager,
            pytest.raises(LimitError, match=f"{needs}.*enable_layer_processing"),
        ):
            manager.run_with_fallback("matmul", inputs)


def test_simpler_shaders_are_taken_and_told(rng: np.random.Generator) -> None:
    a, b = rng.standard_normal((1, 64)), rng.standard_normal((64, 48))
    with bascule.FallbackManager({"name": "safari", "version": "16.0"}) as manager:
        inputs = {"operation": "matmul_4bit", "inputs": {"a": a, "b": b}}
        result = manager.run_with_fallback("shader_compilation", inputs)
        *divided, taken = manager.last_applied
        assert {each.strategy for each in divided} == {"layer_decomposition"}
        assert taken.strategy == "simplified_shader"
        assert taken.reason == "the adapter has no subgroups"
        plain = manager.run_with_fallback("matmul_4bit", inputs["inputs"], {"tier": "cpu"})
        np.testing.assert_allclose(result, plain, 1e-5, 1e-5)
        assert manager.get_performance_metrics()["fallback_activations"] == 2


def test_weights_become_blocks_one_by_one_the_sensitive_last() -> None:
    graph = Graph("model")
    ids = graph.input("ids", (1, 4), "u32")
    x = graph.call("embedding", ids, graph.parameter("table", (100, 64)))
    for name, rows in (("small", 64), ("large", 64)):
        x = graph.call("linear", x, graph.parameter(name, (rows, 64)), activation="none")
    graph.output(graph.call("linear", x, graph.parameter("out", (80, 64)), activation="none"))
    program = freeze(graph)
    total = sum(p.nbytes for p in program.parameters)
    seen: list[dict[str, str]] = []
    for limit in range(total, 0, -64):
        try:
            made, taken = progressive_quantization(program, Limits(weights_nbytes=limit))
        except LimitError:
            break
        assert sum(p.nbytes for p in made.parameters) <= limit
        assert bool(taken) == (limit < total)
        formats = {p.name: p.dtype for p in made.parameters if p.dtype != "f32"}
        if not seen or seen[-1] != formats:
            seen.append(formats)
    assert seen[-1] == {"small": "q4_1", "large": "q4_1", "table": "q8_0", "out": "q8_0"}
    assert all("table" not in formats for formats in seen[:-2])
    assert len(seen) == 7


# What makes no sense


@pytest.mark.parametrize(
    ("make", "told"),
    [
        (lambda: bascule.FallbackManager("safari"), "browser_info"),  # type: ignore[arg-type]
        (lambda: bascule.FallbackManager(model_type="smell"), "text, vision, audio, multimodal"),
        (lambda: bascule.FallbackManager(config={"teir": "cpu"}), "teir"),
        (lambda: bascule.FallbackManager(config={"tier": "gpu"}), "webgpu-limited"),
        (lambda: bascule.FallbackManager(config={"binding_nbytes": -1}), "binding_nbytes"),
        (lambda: bascule.FallbackManager(memory_threshold=float("nan")), "memory_threshold"),
        (lambda: bascule.FallbackManager(error_handler=3), "handle_error"),
        (lambda: bascule.SafariWebGPUFallback({"name": "chrome"}), "Safari"),
        (lambda: bascule.FallbackManager(SAFARI).needs_fallback("fly"), "attention_compute"),
        (lambda: bascule.FallbackManager(SAFARI).needs_fallback(None), "attention_compute"),  # type: ignore[arg-type]
        (lambda: bascule.create_optimal_fallback_strategy("text", {}, "fly"), "kv_cache_update"),
    ],
)
def test_arguments_that_make_no_sense_are_refused(make: Callable[[], Any], told: str) -> None:
    with pytest.raises(InputError, match=told):
        make()


CACHE = {
    "key_cache": np.zeros((6, 4)),
    "value_cache": np.zeros((6, 4)),
    "key": np.ones((2, 4)),
    "value": np.full((2, 4), 2.0),
}


@pytest.mark.parametrize("position", [0, 5, 6, 299, 2**20])
def test_a_cache_that_slides_takes_a_position_by_its_slot(position: int) -> None:
    with bascule.FallbackManager(SAFARI, config={"tier": "cpu"}) as manager:
        result = manager.run_with_fallback("kv_cache_update", CACHE, {"position": position})
    slots = [position % 6, (position + 1) % 6]
    expected = np.zeros((2, 6, 4))
    expected[:, slots] = [[[1.0] * 4] * 2, [[2.0] * 4] * 2]
    np.testing.assert_array_equal(result, expected)


@pytest.mark.parametrize(
    ("operation", "inputs", "context"),
    [
        ("matmul", {"a": [[1.0]], "b": [[1.0], [2.0]]}, {}),
        ("matmul", {"a": [[1.0]]}, {}),
        ("matmul", {"a": [["x"]], "b": [[1.0]]}, {}),
        ("matmul", {"a": [[1.0], [1.0, 2.0]], "b": [[1.0]]}, {}),
        ("matmul", {"a": np.empty((0, 3)), "b": np.ones((3, 2))}, {}),
        ("matmul", {"a": [[1j]], "b": [[1.0]]}, {}),
        ("matmul", {"a": [[1.0]], "b": [[1.0]], "c": 1}, {}),
        ("matmul", {"a": [[1.0]], "b": [[1.0]]}, {"tier": "abacus"}),
        ("matmul", {"a": [[1.0]], "b": [[1.0]]}, {"color": 1}),
        ("matmul", "a @ b", {}),
        ("embedding_lookup", {"ids": [3], "table": np.ones((3, 2))}, {}),
        ("embedding_lookup", {"ids": [0.5], "table": np.ones((3, 2))}, {}),
        ("quantize", {"tensor": np.ones((2, 31))}, {}),
        ("quantize", {"tensor": np.ones((2, 32))}, {"bits": 3}),
        ("quantize", {"tensor": np.full((2, 32), np.nan)}, {}),
        ("kv_cache_update", CACHE, {"position": 2**20 + 1}),
        ("kv_cache_update", CACHE, {"position": 2**33}),
        ("kv_cache_update", CACHE, {"position": 2**40}),
        ("shader_compilation", {"operation": "shader", "inputs": {}}, {}),
        ("feature_extraction", {"image": np.ones((2, 2, 1)), "weight": np.ones((1, 3, 3, 1))}, {}),
    ],
)
def test_inputs_that_make_no_sense_are_refused(operation: str, inputs: Any, context: Any) -> None:
    errors: list[BaseException] = []
    config = {"tier": "cpu"}
    with bascule.FallbackManager(SAFARI, config=config, error_handler=errors.append) as manager:
        with pytest.raises(InputError):
            manager.run_with_fallback(operation, inputs, context)
        assert manager.get_performance_metrics()["operation_timings"] == {}


@pytest.mark.parametrize("tier", TIERS)
def test_nan_stays_nan(rng: np.random.Generator, tier: str) -> None:
    q, k, v = rng.standard_normal((3, 4, 8))
    v[2, 3] = np.nan
    with bascule.FallbackManager(SAFARI, config={"tier": tier}) as manager:
        result = manager.run_with_fallback("attention", {"query": q, "key": k, "value": v})
    assert np.isnan(result[:, 3]).all()
    assert np.isfinite(np.delete(result, 3, axis=1)).all()


# Functions of the caller's


def test_a_function_is_called_natively_and_after_a_failure_elsewhere() -> None:
    seen: list[Any] = []
    errors: list[BaseException] = []

    def work(inputs: dict[str, Any], context: dict[str, Any]) -> str:
        seen.append((context.get("tier"), context["memory_scale"]))
        if context.get("tier") != "wasm":
            raise DeviceLostError("planted")
        return inputs["x"]

    with bascule.FallbackManager(SAFARI, error_handler=errors.append) as manager:
        assert manager.run_with_fallback(lambda inputs: inputs["x"], {"x": 1}) == 1
        assert manager.run_with_fallback(work, {"x": "done"}) == "done"
        metrics = manager.get_performance_metrics()
    assert seen[0] == (None, 1.0)
    assert seen[-1][0] == "wasm"
    assert len(errors) == len(seen) - 1
    assert metrics["native_operations"] == metrics["fallback_activations"] == 1
    assert metrics["wasm_fallbacks"] == 1


def test_a_function_that_is_short_of_memory_gets_smaller_chunks() -> None:
    scales: list[float] = []

    def work(_: Any, context: dict[str, Any]) -> float:
        scales.append(context["memory_scale"])
        if len(scales) == 1:
            raise GpuOutOfMemoryError("alloc", 1 << 20)
        return context["memory_scale"]

    with bascule.FallbackManager(SAFARI) as manager:
        assert manager.run_with_fallback(work, {}) == 0.5


async def test_in_an_event_loop_it_is_awaited() -> None:
    manager = bascule.FallbackManager(config={"tier": "cpu"})
    assert manager.needs_fallback("matmul") is False  # plain code beside a loop
    async with await manager.ready():
        assert manager.needs_fallback("matmul") is False
        result = await manager.run_with_fallback("matmul", {"a": [[2.0]], "b": [[3.0]]})
        assert result == [[6.0]]
