"""The switches of UnifiedWebPlatform: each on differs from off."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from starlette.types import Receive, Scope, Send

import bascule
from bascule import UnifiedWebPlatform
from bascule.backend.webgpu.autotune import tune as autotune
from bascule.compat import platform as platform_module
from bascule.errors import InputError, ShaderError
from bascule.server.app import create_app
from bascule.server.run import running
from tests.goldens import TINY_BERT
from tests.goldens.llama import tiny
from tests.goldens.llama_folder import write_folder
from tests.tasks.test_quantize import widened

# Opening a device compiles a kernel, to see that it computes.
PROBED = 1
TEXT = {"input_text": "w4 w5"}
TEXTS = {"input_text": ["w4", "w5 w6", "w4 " * 40]}


def tiny_platform(model: object = TINY_BERT, **switches: Any) -> UnifiedWebPlatform:
    return UnifiedWebPlatform(str(model), platform="webgpu", **switches)


async def loaded(platform: UnifiedWebPlatform) -> Any:
    return await platform.load_model()


async def test_precompilation_compiles_before_the_first_pass() -> None:
    counts: dict[bool, list[float]] = {}
    for on in (True, False):
        platform = tiny_platform(enable_shader_precompilation=on)
        model = await loaded(platform)
        first = await platform.run_inference(TEXT)
        assert "profile" not in first
        counts[on] = [model.stats["pipelines"]]
        platform.close()
        again = tiny_platform(enable_shader_precompilation=on)
        counts[on].append((await loaded(again)).stats["pipelines"])
        again.close()
    assert counts[True][1] == counts[True][0] > 0
    assert counts[False][1] == PROBED < counts[False][0]


async def test_profiling_gives_each_result_its_kernels() -> None:
    platform = tiny_platform(enable_profiling=True)
    result = await platform.run_inference(TEXT)
    assert result["profile"]["timed_by"] == "timestamps"
    assert sum(kernel["count"] for kernel in result["profile"]["kernels"]) > 5
    async with bascule.PerformanceMonitor(platform) as monitor:
        assert "profile" not in await platform.run_inference(TEXT)  # one profile at a time
    assert monitor.report is not None
    assert monitor.report.work
    platform.close()


async def test_shader_logs() -> None:
    platform = tiny_platform(debug_shader_compilation=True)
    assert platform.get_shader_logs() == []
    model = await loaded(platform)
    logs = platform.get_shader_logs()
    assert len(logs) == model.stats["pipelines"] - PROBED
    assert all(log.shader.endswith(".wgsl") and log.ms > 0 and not log.messages for log in logs)
    platform.close()
    off = tiny_platform()
    await loaded(off)
    assert off.get_shader_logs() == []
    off.close()


async def test_the_log_of_a_kernel_that_does_not_compile(monkeypatch: pytest.MonkeyPatch) -> None:
    from bascule.backend.webgpu.gpu_native import NativeGpu

    real = NativeGpu.pipeline

    async def broken(gpu: NativeGpu, wgsl: str, constants: Any, bindings: str, label: str) -> int:
        if label == "pool.wgsl":
            wgsl = wgsl.replace("fn main", "fn main(", 1)
        return await real(gpu, wgsl, constants, bindings, label)

    monkeypatch.setattr(NativeGpu, "pipeline", broken)
    async with await bascule.open_device("webgpu") as device:
        platform = tiny_platform(debug_shader_compilation=True, device=device)
        with pytest.raises(ShaderError):
            await loaded(platform)
        logs = device.backend.shader_logs
        assert [log.shader for log in logs if log.messages] == ["pool.wgsl"]
        assert next(log for log in logs if log.messages).messages[0][0] > 0


async def test_optimization_levels(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(platform_module, "_TUNING_S", 0.5)
    budgets: list[float] = []

    async def counted(*arguments: Any, budget_s: float, **options: Any) -> Any:
        budgets.append(budget_s)
        return await autotune(*arguments, budget_s=budget_s, **options)

    monkeypatch.setattr("bascule.backend.webgpu.backend.tune", counted)
    answers: dict[int, Any] = {}
    tiers: dict[int, str] = {}
    remembers: list[bool] = []
    real = platform_module.open_tier

    async def opened(wanted: Any, need: Any, *, remember: bool) -> Any:
        remembers.append(remember)
        return await real(wanted, need, remember=remember)

    monkeypatch.setattr(platform_module, "open_tier", opened)
    for level in (3, 0, 1, 2):
        platform = tiny_platform(optimization_level=level)
        result = await platform.run_inference(TEXT)
        assert platform.model is not None
        answers[level], tiers[level] = result["embeddings"], result["tier"]
        assert len(budgets) == 1  # of level 3 alone
        platform.close()
    assert tiers == {0: "webgpu-limited", 1: "webgpu", 2: "webgpu", 3: "webgpu"}
    assert remembers == [True, False, False, True]
    for level in (0, 1, 3):
        np.testing.assert_allclose(answers[level], answers[2], atol=1e-5)
    platform = tiny_platform(enable_compute_shader_optimizations=True)
    await loaded(platform)
    assert len(budgets) == 2
    platform.close()


class SlowShards:
    """A site whose weight files take their time; `maximum` counts those under way at once."""

    def __init__(self, models: Path) -> None:
        self.maximum = 0
        self._now = 0
        self._app = create_app(models=models, pyodide=models)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if not scope.get("path", "").endswith(".safetensors"):
            return await self._app(scope, receive, send)
        self._now += 1
        self.maximum = max(self.maximum, self._now)
        try:
            await asyncio.sleep(0.02)
            await self._app(scope, receive, send)
        finally:
            self._now -= 1


async def test_parallel_components_are_two_shards_at_a_time(tmp_path: Path) -> None:
    widened(tmp_path / "model", layers=8, shards=3)
    maximum: list[int] = []
    answers: list[Any] = []
    for on in (True, False):
        site = SlowShards(tmp_path)
        with running(site) as url:  # on a port of its own: nothing of it is cached
            loader = bascule.ProgressiveModelLoader(
                f"{url}/models/model", parallel_components=on, chunk_size_mb=1 / 16
            )
            model: Any = await loader.load_model()
            answers.append(await model.embed(TEXTS["input_text"]))
            maximum.append(site.maximum)
            model.close()
    assert maximum == [2, 1]
    assert np.array_equal(*answers)


async def test_parallel_loading_is_asked_of_the_load(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from bascule.device import loading

    folder = widened(tmp_path / "model", layers=1, shards=2)
    asked: list[bool] = []
    real = loading.load_model

    async def noted(model: Any, tier: Any, opener: Any, settings: Any, **rest: Any) -> Any:
        asked.append(settings.parallel)
        return await real(model, tier, opener, settings, **rest)

    monkeypatch.setattr(platform_module, "load_model", noted)
    answers: list[Any] = []
    for on in (True, False):
        platform = tiny_platform(folder, enable_parallel_loading=on)
        answers.append((await platform.run_inference(TEXT))["embeddings"])
        platform.close()
    assert asked == [True, False]
    assert np.array_equal(*answers)


@pytest.mark.parametrize("tier", ["webgpu", "cpu"])
async def test_each_level_of_memory_lowers_the_peak(tmp_path: Path, tier: str) -> None:
    folder = widened(tmp_path / "model", layers=6)
    peaks: list[int] = []
    answers: list[Any] = []
    for level in range(4):
        platform = UnifiedWebPlatform(str(folder), platform=tier)
        platform.set_memory_optimization_level(level)
        await loaded(platform)
        for texts in ("w4", ["w4 " * 60] * 8, ["w4 " * 30] * 8, ["w5 " * 15] * 8):
            result = await platform.run_inference({"input_text": texts})
        answers.append(result["embeddings"])
        usage = platform.get_memory_usage()
        print(level, usage)
        peaks.append(usage["peak"])
        if tier == "webgpu":
            assert (usage["activations"] > 100_000) == (level == 0)
        with pytest.raises(InputError, match="no model"):
            platform.set_memory_optimization_level(0)
        platform.close()
    if tier == "cpu":  # which keeps no intermediate values between passes, at no level
        assert peaks.pop(0) == peaks[0]
    assert peaks == sorted(set(peaks), reverse=True)
    np.testing.assert_array_equal(answers[3], answers[0])
    with pytest.raises(InputError, match="weights as the files have them"):
        await loaded(tiny_platform(folder, memory_optimization_level=3, quantize=8))


async def test_fp16_halves_the_weights(tmp_path: Path) -> None:
    folder = widened(tmp_path / "model", layers=6)
    answers: dict[str | None, Any] = {}
    reports: dict[str | None, dict[str, Any]] = {}
    resident: dict[str | None, int] = {}
    for precision in (None, "fp32", "fp16"):
        platform = tiny_platform(folder, precision=precision)
        assert platform.get_precision_report() == {}
        await loaded(platform)
        answers[precision] = (await platform.run_inference(TEXTS))["embeddings"]
        reports[precision] = platform.get_precision_report()
        resident[precision] = platform.get_memory_usage()["weights"]
        platform.close()
    report = reports["fp16"]
    assert report["weights"] == "f16"
    assert report["weights_nbytes"] == resident["fp16"]
    assert report["weights_nbytes_as_f32"] == resident[None] == resident["fp32"]
    # Biases, norms and the position table stay floats.
    assert 0.5 < resident["fp16"] / resident[None] < 0.6
    # A half is off by at most 2^-11 of its number, and rounding to the nearest by less in the mean.
    assert 0 < report["relative_error"] < 2**-11
    assert report["activations"] == "f32"
    assert np.array_equal(answers[None], answers["fp32"])
    # Each of the matrices on the way moves its result by at most 2^-11 in root mean square; layer
    # norms pass that on in proportion, and at worst all of them add up.
    n_matrices = 1 + 6 * 6
    moved = np.linalg.norm(answers["fp16"] - answers[None], axis=1)
    assert (moved > 0).all()
    assert (moved / np.linalg.norm(answers[None], axis=1) < n_matrices * 2**-11).all()
    # Fewer bits stand.
    platform = tiny_platform(folder, precision="fp16", memory_optimization_level=2)
    await loaded(platform)
    assert platform.get_precision_report()["weights"] == "q8_0"
    platform.close()


async def test_fp16_and_fp32_of_a_language_model(tmp_path: Path) -> None:
    folder = write_folder(tiny("tiny-q4_1").path, tmp_path / "llama")
    results: dict[str, tuple[dict[str, Any], int, int]] = {}
    for precision in ("fp32", "fp16"):
        platform = tiny_platform(folder, model_type="text_generation", precision=precision)
        model = await loaded(platform)
        usage = platform.get_memory_usage()
        logits = await model.logits([1, 2, 3])
        assert np.isfinite(logits).all()
        results[precision] = platform.get_precision_report(), usage["weights"], usage["cache"]
        platform.close()
    (plain, wide, cache), (report, narrow, half_cache) = results["fp32"], results["fp16"]
    assert (plain["cache"], report["cache"]) == ("f32", "f16")
    assert (plain["weights"], report["weights"]) == (None, "f16")
    assert narrow < 0.6 * wide
    assert half_cache < cache
    # Where the device cannot, it says so.
    blocks = tiny_platform(tiny("tiny-q4_1").path, model_type="text_generation", precision="fp16")
    with pytest.raises(InputError, match="in the blocks that it has"):
        await loaded(blocks)
    with pytest.raises(InputError, match="precision"):
        tiny_platform(precision="int8")


async def test_memory_usage_is_the_drivers_count() -> None:
    platform = UnifiedWebPlatform(
        str(tiny("tiny-q4_1").path), model_type="text_generation", platform="webgpu"
    )
    assert set(platform.get_memory_usage().values()) == {0}
    model = await loaded(platform)
    await platform.run_inference({"input_text": "Hi", "max_new_tokens": 2})
    usage = platform.get_memory_usage()
    use = model.backend.memory
    assert (usage["now"], usage["peak"]) == (use.now_nbytes, use.peak_nbytes)
    assert usage["weights"] == model.weights.nbytes
    assert usage["cache"] > 0 < usage["activations"]
    parts = sum(usage.values()) - usage["now"] - usage["peak"]
    assert parts == usage["now"]
    platform.close()


async def test_optimized_inference_and_plain_results() -> None:
    platform = tiny_platform()
    plain = await platform.run_inference(TEXTS)
    assert platform.model is not None
    passes: list[float] = []
    for batching in (True, False):
        before = platform.model.stats["passes"]
        result = await platform.run_inference_optimized(TEXTS, enable_batching=batching)
        passes.append(platform.model.stats["passes"] - before)
        np.testing.assert_allclose(result["embeddings"], plain["embeddings"], atol=1e-5)
        assert result["queries_per_s"] > 0
    assert passes[0] < passes[1] == 3
    shown = platform.post_process_result(result)
    assert json.loads(json.dumps(shown["embeddings"])) == result["embeddings"].tolist()
    np.testing.assert_allclose(np.diag(shown["similarities"]), 1, atol=1e-5)
    with pytest.raises(InputError, match="batch_size"):
        platform.run_inference_optimized(TEXTS, batch_size=0)
    platform.close()


async def test_what_no_switch_takes() -> None:
    for switches in ({"optimization_level": 4}, {"memory_optimization_level": -1}):
        with pytest.raises(InputError):
            tiny_platform(**switches)
    async with await bascule.open_device("cpu") as device:
        with pytest.raises(InputError, match="optimization_level"):
            tiny_platform(device=device, optimization_level=0)
    generator = UnifiedWebPlatform(str(TINY_BERT), model_type="text_generation")
    with pytest.raises(InputError, match="run_inference_optimized"):
        generator.run_inference_optimized(TEXTS)
