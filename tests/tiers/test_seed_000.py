"""Every example of the guide that this manager comes from; only the import path is another one.

What its reader has (query, key, value, a native attention) is given here.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import bascule
from bascule.machine.safari import SAFARI_TABLE

EXAMPLE = """
from bascule import (
    FallbackManager,
    SafariWebGPUFallback,
    create_optimal_fallback_strategy
)

fallback_mgr = FallbackManager(
    browser_info={"name": "safari", "version": "17.0"},
    model_type="text",
    enable_layer_processing=True
)

if fallback_mgr.needs_fallback("attention_compute"):
    result = fallback_mgr.run_with_fallback(
        "attention_compute",
        {"query": query, "key": key, "value": value}
    )
else:
    result = attention_function({"query": query, "key": key, "value": value})

strategy = create_optimal_fallback_strategy(
    model_type="text",
    browser_info={"name": "safari", "version": "17.0"},
    operation_type="attention"
)

metrics = fallback_mgr.get_performance_metrics()
"""

METRICS = {
    "fallback_activations": 0,
    "native_operations": 0,
    "layer_operations": 0,
    "wasm_fallbacks": 0,
    "operation_timings": {},
    "memory_usage": {},
}
# The guide's columns, and an operation that rests on each.
COLUMNS = {
    "matmul_4bit": "four_bit",
    "quantize": "four_bit",
    "kv_cache_update": "kv_cache",
    "shader_compilation": "shader_compilation",
    "attention_compute": "memory_management",
    "multi_head_attention": "memory_management",
    "embedding_lookup": "memory_management",
}


def attention(inputs: dict[str, Any]) -> Any:
    q, k, v = (inputs[name].astype(np.float64) for name in ("query", "key", "value"))
    scores = q @ k.swapaxes(-1, -2) / np.sqrt(q.shape[-1])
    weights = np.exp(scores - scores.max(-1, keepdims=True))
    return weights / weights.sum(-1, keepdims=True) @ v


@pytest.mark.parametrize(("version", "needed"), [("17.0", False), ("15.6", True)])
def test_the_example_runs(rng: np.random.Generator, version: str, needed: bool) -> None:
    query, key, value = rng.standard_normal((3, 2, 9, 16)).astype(np.float32)
    result = {"query": query, "key": key, "value": value, "attention_function": attention}
    scope: dict[str, Any] = dict(result)
    exec(EXAMPLE.replace('"17.0"', repr(version)), scope)
    np.testing.assert_allclose(scope["result"], attention(result), rtol=1e-5, atol=1e-6)
    assert scope["metrics"]["fallback_activations"] == needed
    assert scope["metrics"]["native_operations"] == 0
    assert scope["metrics"].keys() == METRICS.keys()
    assert scope["strategy"]["strategy"] == "chunked_attention"
    assert scope["strategy"]["needs_fallback"] == needed
    scope["fallback_mgr"].close()


def test_metrics_have_the_guides_keys_and_start_at_nothing() -> None:
    with bascule.FallbackManager({"name": "safari", "version": "17.0"}) as manager:
        assert manager.get_performance_metrics() == METRICS
        manager.run_with_fallback("matmul", {"a": [[1.0]], "b": [[2.0]]}, {"tier": "cpu"})
        assert manager.get_performance_metrics() != METRICS
        manager.reset_metrics()
        assert manager.get_performance_metrics() == METRICS


@pytest.mark.parametrize("row", SAFARI_TABLE, ids=[row.versions for row in SAFARI_TABLE])
@pytest.mark.parametrize("operation", COLUMNS)
def test_answers_are_the_tables(row: Any, operation: str) -> None:
    info = {"name": "Safari", "version": "{}.{}".format(*row.since)}
    expected = getattr(row, COLUMNS[operation]).needs_fallback
    assert bascule.FallbackManager(info).needs_fallback(operation) == expected
    assert bascule.SafariWebGPUFallback(info).needs_fallback(operation) == expected
    plan = bascule.create_optimal_fallback_strategy("text", info, operation)
    assert plan["needs_fallback"] == expected
    assert bool(plan["reasons"]) == expected


def test_answers_by_version_word_for_word() -> None:
    # 4-bit, KV cache, shaders, memory management: True where the guide has no check mark.
    table = {
        "15.6": (True, True, True, True),
        "16.0": (True, True, True, True),
        "16.3": (True, True, True, True),
        "16.4": (True, True, False, False),
        "16.6": (True, True, False, False),
        "17.0": (True, True, False, False),
        "18.2": (True, True, False, False),
    }
    names = ("matmul_4bit", "kv_cache_update", "shader_compilation", "attention_compute")
    for version, expected in table.items():
        safari = bascule.SafariWebGPUFallback({"version": version})
        assert tuple(map(safari.needs_fallback, names)) == expected, version


@pytest.mark.parametrize(
    ("told", "number"),
    [("17.0", 17.0), ("16.4.1", 16.4), (16.4, 16.4), ("9" * 400, 9999.0), ("soon", 0.0)],
)
def test_the_version_and_what_it_ships(told: Any, number: float) -> None:
    safari = bascule.SafariWebGPUFallback({"version": told})
    assert safari._parse_safari_version() == number
    metal = safari._detect_metal_features()
    assert metal["webgpu"] == (number >= 26)
    assert all(isinstance(value, bool) for value in metal.values())
    manager = bascule.FallbackManager({"name": "safari", "version": told})
    assert manager._parse_safari_version() == number
    assert manager._detect_metal_features() == metal


def test_signatures_are_the_guides() -> None:
    from inspect import signature

    def told(func: Any) -> list[str]:
        return [name for name in signature(func).parameters if name != "self"]

    assert told(bascule.FallbackManager.__init__) == [
        "browser_info",
        "model_type",
        "config",
        "error_handler",
        "enable_layer_processing",
        "memory_threshold",
        "enable_telemetry",
    ]
    safari = bascule.SafariWebGPUFallback
    layered = ["browser_info", "model_type", "config", "enable_layer_processing"]
    assert told(safari.__init__) == layered
    manager = bascule.FallbackManager
    assert told(manager.run_with_fallback) == ["operation", "inputs", "context"]
    assert told(safari.execute_with_fallback) == ["operation_name", "inputs", "context"]
    assert told(manager.needs_fallback) == told(safari.needs_fallback) == ["operation_name"]
    plan = ["model_type", "browser_info", "operation_type", "config"]
    assert told(bascule.create_optimal_fallback_strategy) == plan
