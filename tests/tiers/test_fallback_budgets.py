"""Each strategy of FallbackManager by memory and by dispatch: the bound holds, or it is refused."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import pytest

import bascule
from bascule.backend.webgpu.gpu import unpack_writes
from bascule.backend.webgpu.gpu_native import NativeGpu
from bascule.errors import LimitError

RNG = np.random.default_rng(7)
# A Safari whose table asks for no fallback: only limits do.
PLAIN = {"name": "safari", "version": "26.0"}


def normal(*shape: int) -> Any:
    return RNG.standard_normal(shape).astype(np.float32)


Q, K, V = normal(3, 2, 64, 16)
ROWS = normal(2, 3, 8, 32)
CACHES = normal(2, 64, 8, 32)
CASES: dict[str, tuple[str, dict[str, Any], dict[str, Any]]] = {
    "chunked_attention": ("attention", {"query": normal(96, 16), "key": K[0], "value": V[0]}, {}),
    "chunked_attention, causal": (
        "attention",
        {"query": Q[0], "key": K[0], "value": V[0]},
        {"causal": True},
    ),
    "head_partitioning": (
        "multi_head_attention",
        {"query": Q, "key": K, "value": V},
        {"heads": 4},
    ),
    "layer_decomposition": ("matmul", {"a": normal(64, 64), "b": normal(64, 64)}, {}),
    "layer_decomposition, a large weight": (
        "matmul",
        {"a": normal(4, 128), "b": normal(128, 128), "bias": normal(128)},
        {},
    ),
    "layer_decomposition, in 4 bits": (
        "matmul_4bit",
        {"a": normal(64, 64), "b": normal(64, 64)},
        {},
    ),
    "chunked_embedding": (
        "embedding_lookup",
        {"ids": RNG.integers(0, 512, (4, 9)), "table": normal(512, 16)},
        {},
    ),
    "partitioned_kv_cache": (
        "kv_cache_update",
        dict(zip(("key_cache", "value_cache", "key", "value"), (*CACHES, *ROWS), strict=True)),
        {"position": 61},
    ),
    "progressive_quantization": ("quantize", {"tensor": normal(64, 128)}, {"bits": 8}),
    "tiled_extraction": (
        "feature_extraction",
        {"image": normal(48, 32, 3), "weight": normal(4, 4, 4, 3)},
        {"stride": 2, "padding": 1},
    ),
    "simplified_shader": (
        "shader_compilation",
        {"operation": "matmul", "inputs": {"a": normal(64, 64), "b": normal(64, 64)}},
        {},
    ),
}
# What a dispatch may do where that is bounded: a quarter of the multiply-adds of the whole.
WORK = {
    "chunked_attention": 96 * 64 * 16 * 2,
    "head_partitioning": 2 * 64 * 64 * 16 * 2,
    "layer_decomposition": 64**3,
    "tiled_extraction": 24 * 16 * 4 * 48,
}


class Counts:
    """What a device was asked for."""

    nbytes = 0
    dispatches = 0


@contextmanager
def counted(monkeypatch: pytest.MonkeyPatch) -> Iterator[Counts]:
    """Count the bytes written to native devices, and their dispatches; all of it still happens."""
    counts = Counts()
    write, submit = NativeGpu.write, NativeGpu._submit

    def counting_write(self: NativeGpu, buffer: int, offset: int, data: Any) -> None:
        counts.nbytes += memoryview(data).nbytes
        write(self, buffer, offset, data)

    def counting_submit(self: NativeGpu, recorded: Any, writes: Any) -> None:
        counts.nbytes += sum(data.nbytes for _, _, data in unpack_writes(writes))
        counts.dispatches += len(recorded.dispatches)
        submit(self, recorded, writes)

    with monkeypatch.context() as patch:
        patch.setattr(NativeGpu, "write", counting_write)
        patch.setattr(NativeGpu, "_submit", counting_submit)
        yield counts


def run(case: str, device: Any, **config: Any) -> tuple[Any, dict[str, int], tuple[Any, ...]]:
    operation, inputs, context = CASES[case]
    tier = {} if case == "simplified_shader" else {"device": device}
    with bascule.FallbackManager(PLAIN, config={**tier, **config}, memory_threshold=1.0) as manager:
        result = manager.run_with_fallback(operation, inputs, context)
        [memory] = manager.get_performance_metrics()["memory_usage"].values()
        return result, memory, manager.last_applied


@pytest.fixture(scope="module")
def device() -> Iterator[bascule.Device]:
    opened = bascule.sync(bascule.open_device("webgpu"))
    yield opened
    opened.close()


@pytest.mark.parametrize("case", CASES)
def test_half_the_memory_is_enough_and_costs_little(
    monkeypatch: pytest.MonkeyPatch, device: bascule.Device, case: str
) -> None:
    with counted(monkeypatch) as plain:
        expected, memory, _ = run(case, device)
    whole = memory["peak_nbytes"]
    assert memory["plain_nbytes"] >= whole
    budget = int(0.6 * whole)
    with counted(monkeypatch) as divided:
        result, memory, taken = run(case, device, memory_budget_nbytes=budget)
    np.testing.assert_allclose(result, expected, 1e-6, 1e-6)
    assert 0 < memory["peak_nbytes"] <= budget
    wanted = "layer_decomposition" if case == "simplified_shader" else case.split(",")[0]
    strategies = {each.strategy for each in taken}
    assert strategies & {wanted, "head_partitioning"}
    assert f"{budget:,} bytes are allowed" in taken[0].reason
    print(f"{case}: bytes x{divided.nbytes / plain.nbytes:.2f}, dispatches x{divided.dispatches}")
    assert divided.nbytes <= 3 * plain.nbytes
    assert divided.dispatches <= 8 * max(plain.dispatches, 1)


LONG: dict[str, tuple[str, dict[str, Any], dict[str, Any]]] = {
    "chunked_embedding": (
        "embedding_lookup",
        {"ids": RNG.integers(0, 8191, (8, 64)), "table": normal(8191, 64)},
        {},
    ),
    "progressive_quantization": ("quantize", {"tensor": normal(4093, 512)}, {}),
    "layer_decomposition": ("matmul", {"a": normal(16, 512), "b": normal(512, 1021)}, {}),
}


@pytest.mark.parametrize("case", LONG)
def test_a_tenth_of_the_memory_takes_little_more_than_ten_pieces(
    device: bascule.Device, case: str
) -> None:
    operation, inputs, context = LONG[case]
    results: list[Any] = []
    budget = None
    for _ in range(2):
        config = {"device": device, "memory_budget_nbytes": budget}
        with bascule.FallbackManager(PLAIN, config=config, memory_threshold=1.0) as manager:
            results.append(manager.run_with_fallback(operation, inputs, context))
            [memory] = manager.get_performance_metrics()["memory_usage"].values()
            taken = manager.last_applied
        if budget is None:
            budget = memory["peak_nbytes"] // 10
    assert budget is not None
    assert memory["peak_nbytes"] <= budget
    assert [each.strategy for each in taken] == [case]
    assert 10 <= taken[0].parts <= 13  # halves would be 16
    np.testing.assert_allclose(*results, 1e-6, 1e-5)


@pytest.mark.parametrize("case", CASES)
def test_a_budget_that_cannot_be_met_is_refused_with_its_bytes(
    device: bascule.Device, case: str
) -> None:
    seen: list[BaseException] = []
    operation, inputs, context = CASES[case]
    config = {"device": device, "memory_budget_nbytes": 300}
    with (
        bascule.FallbackManager(PLAIN, config=config, error_handler=seen.append) as manager,
        pytest.raises(LimitError, match=r"needs [\d,]+ bytes .* 240 bytes are allowed"),
    ):
        manager.run_with_fallback(operation, inputs, context)
    assert len(seen) == 1  # on no other tier was it tried
    assert manager.get_performance_metrics()["operation_timings"] == {}


@pytest.mark.parametrize("case", WORK)
def test_a_quarter_of_the_work_in_a_dispatch(device: bascule.Device, case: str) -> None:
    expected, *_ = run(case, device)
    limit = WORK[case] // 4
    result, _, taken = run(case, device, dispatch_work=limit)
    np.testing.assert_allclose(result, expected, 1e-6, 1e-6)
    assert any(each.strategy == case and each.parts >= 2 for each in taken)
    assert np.prod([each.parts for each in taken]) <= 8
    assert f"a dispatch may have {limit:,}" in taken[0].reason


def test_memory_of_others_on_the_device_does_not_count(device: bascule.Device) -> None:
    held = bascule.sync(device.buffer(np.ones(1 << 18, np.float32)))
    _, memory, _ = run("layer_decomposition", device, memory_budget_nbytes=60_000)
    assert memory["peak_nbytes"] <= 60_000
    held.close()


def test_execute_with_fallback_does_what_it_counts() -> None:
    one = {"a": [[1.0]], "b": [[2.0]]}
    for version in ("15.6", "17.0"):
        with bascule.SafariWebGPUFallback({"version": version}, config={"tier": "cpu"}) as safari:
            for case in ("layer_decomposition", "chunked_embedding", "tiled_extraction"):
                operation, inputs, context = CASES[case]
                safari.execute_with_fallback(operation, inputs, context)
                assert [each.strategy for each in safari.manager.last_applied] == [case]
            assert safari.execute_with_fallback("matmul", one) == [[2.0]]  # cannot be divided
            metrics = safari.manager.get_performance_metrics()
            assert metrics["fallback_activations"] == 3
            assert metrics["native_operations"] == 1


def test_a_model_s_type_says_what_an_embedding_is() -> None:
    patches = CASES["tiled_extraction"][1]
    tokens = CASES["chunked_embedding"][1]
    shapes: dict[str, Any] = {}
    for model in ("text", "vision", "audio", "multimodal"):
        with bascule.FallbackManager(PLAIN, model, config={"tier": "cpu"}) as manager:
            inputs = tokens if model == "text" else patches
            shapes[model] = manager.run_with_fallback("embedding", inputs).shape
            if model == "multimodal":
                assert manager.run_with_fallback("embedding", tokens).shape == (4, 9, 16)
    assert shapes == {"text": (4, 9, 16)} | dict.fromkeys(
        ("vision", "audio", "multimodal"), (12, 8, 4)
    )
    for model, name in (("text", "embedding_lookup"), ("audio", "feature_extraction")):
        result = bascule.create_optimal_fallback_strategy(model, PLAIN, "embedding")
        assert result["operation"] == name


def test_auto_that_takes_the_cpu_is_no_fallback() -> None:
    with bascule.FallbackManager(config={"tier": "auto"}) as manager:
        manager.run_with_fallback("matmul", {"a": [[1.0]], "b": [[2.0]]})
        metrics = manager.get_performance_metrics()
    counts = ("fallback_activations", "wasm_fallbacks", "native_operations")
    assert [metrics[name] for name in counts] == [0, 0, 1]
