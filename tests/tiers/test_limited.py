"""WebGPU held to what every device grants: the same answers, and what recovery turns to."""

from __future__ import annotations

import json

import numpy as np
import pytest

import bascule
from bascule import Attempt, FallbackStrategy, RecoveryManager
from bascule.backend.adapter import DEFAULT_LIMITS, WANTED_LIMITS
from bascule.backend.base import Backend
from bascule.backend.webgpu.backend import WebGpuBackend
from bascule.backend.webgpu.choices import machine_key
from bascule.backend.webgpu.gpu_native import NativeGpu, open_native
from bascule.backend.webgpu.pipelines import Pipelines
from bascule.choosing.auto import ModelNeed, decision_for, open_tier
from bascule.choosing.openers import open_named
from bascule.choosing.reopening import reopen_tier
from bascule.choosing.survey import survey
from bascule.choosing.switches import Switches, read_switches
from bascule.choosing.workload import BackendType
from bascule.errors import DeviceLostError, GpuError, ShaderError, TierUnavailableError
from tests.goldens import TINY_BERT, cosines, golden
from tests.shaders.catalogue import every_kernel

LIMITED = "webgpu-limited"
TEXT = "w4 w5 w6"
PLAIN = "@compute @workgroup_size(1) fn main() {}"


async def limited() -> WebGpuBackend:
    backend = (await open_tier(LIMITED)).backend
    assert isinstance(backend, WebGpuBackend)
    return backend


async def test_its_device_has_no_feature_and_the_default_limits() -> None:
    backend = await limited()  # and has computed a dispatch: see `open_named`
    adapter = backend.gpu.adapter
    assert backend.tier == LIMITED
    assert adapter.limited
    assert adapter.features == frozenset()
    assert dict(adapter.limits) == {name: DEFAULT_LIMITS[name] for name in WANTED_LIMITS}
    backend.close()


async def test_the_driver_itself_holds_it_to_them() -> None:
    """But for workgroup memory, which wgpu does not check; tests/shaders/ does that on Dawn."""
    gpu = await open_native(limited=True)
    maximum = DEFAULT_LIMITS["maxComputeInvocationsPerWorkgroup"]
    for lanes, refused in ((maximum, False), (maximum + 1, True)):
        assert await _is_refused(gpu, PLAIN.replace("1", str(lanes))) == refused
    assert await _is_refused(gpu, "enable f16; @compute @workgroup_size(1) fn main() {}")
    many = "u" + "w" * DEFAULT_LIMITS["maxStorageBuffersPerShaderStage"]
    assert not await _is_refused(gpu, PLAIN, many)
    assert await _is_refused(gpu, PLAIN, many + "w")
    with pytest.raises(GpuError, match="268,435,456"):
        gpu.alloc((256 << 20) + 4)
    gpu.destroy()


async def _is_refused(gpu: NativeGpu, wgsl: str, bindings: str = "") -> bool:
    try:
        await gpu.pipeline(wgsl, {}, bindings, "planted.wgsl")
    except ShaderError:
        return True
    return False


async def test_every_kernel_that_it_may_be_given_compiles() -> None:
    gpu = await open_native(limited=True)
    kernels = list(every_kernel(gpu.adapter))
    assert len(kernels) > 100
    assert not any("enable " in kernel.wgsl for kernel in kernels)
    assert all(kernel.bindings.count("r") + kernel.bindings.count("w") <= 8 for kernel in kernels)
    await Pipelines(gpu).ensure(kernels)
    gpu.destroy()


async def test_what_is_learned_of_it_is_kept_apart() -> None:
    full, limited = await open_native(), await open_native(limited=True)
    assert machine_key(full.adapter) != machine_key(limited.adapter)
    # Even on an adapter that has nothing to hold back.
    assert json.loads(limited.adapter.identity)[-1] == "limited"
    full.destroy()
    limited.destroy()


@pytest.mark.parametrize("tier", ["webgpu", LIMITED])
async def test_the_answer_is_the_same(tier: str) -> None:
    expected = golden("tiny-bert")
    async with await bascule.load(TINY_BERT, tier=tier) as model:
        assert model.tier == tier
        result = await model.embed(expected.texts)
    assert (cosines(result, expected.embeddings) >= 0.99999).all()


async def test_a_real_model_answers_the_same() -> None:
    expected = golden("minilm")
    short = [i for i, ids in enumerate(expected.ids) if len(ids) <= 32][:8]
    async with await bascule.load("all-MiniLM-L6-v2", tier=LIMITED) as model:
        result = await model.embed([expected.texts[i] for i in short])
    assert (cosines(result, expected.embeddings[short]) >= 0.99999).all()


async def test_auto_leaves_it_alone_where_webgpu_works() -> None:
    result = await survey(Switches(), budget_s=0.2)
    facts = result.facts(BackendType.WEBGPU_LIMITED)
    assert facts is not None
    assert "webgpu works, on the same adapter" in facts.refused
    decision = decision_for(result.tiers, ModelNeed())
    row = next(c for c in decision.considered if c.tier == LIMITED)
    assert "webgpu works, on the same adapter" in row.refused


async def test_auto_considers_it_where_webgpu_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    async def opened(tier: str, *, remember: bool = True) -> Backend:
        if tier == "webgpu":
            raise TierUnavailableError("webgpu", "planted")
        return await open_named(tier, remember=remember)

    for place in ("survey", "auto"):
        monkeypatch.setattr(f"bascule.choosing.{place}.open_named", opened)
    result = await survey(Switches(), budget_s=0.2)
    facts = result.facts(BackendType.WEBGPU_LIMITED)
    assert facts is not None
    assert not facts.refused
    assert facts.speeds.samples
    assert facts.largest_nbytes == DEFAULT_LIMITS["maxStorageBufferBindingSize"]
    opened = await reopen_tier("auto", "webgpu", "planted", ModelNeed())
    opened.backend.close()
    assert "webgpu refused (planted)" in opened.reason


async def test_the_switches_force_it_and_disable_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("BASCULE_FORCE_WEBGPU_LIMITED", "1")
    async with await bascule.load(TINY_BERT) as model:
        assert model.tier == LIMITED
        assert "BASCULE_FORCE_WEBGPU_LIMITED asks for it" in model.tier_reason
    monkeypatch.delenv("BASCULE_FORCE_WEBGPU_LIMITED")
    for switch in ("WEBGPU", "WEBGPU_LIMITED"):
        monkeypatch.setenv(f"BASCULE_DISABLE_{switch}", "1")
    result = await survey(read_switches(), budget_s=0.1)
    facts = result.facts(BackendType.WEBGPU_LIMITED)
    assert facts is not None
    assert "BASCULE_DISABLE_WEBGPU_LIMITED is set" in facts.refused


@pytest.mark.parametrize("error", [DeviceLostError("planted"), GpuError("replay", "planted")])
async def test_recovery_reaches_it_when_webgpu_keeps_failing(error: Exception) -> None:
    expected = await _embedding("cpu")
    tiers: list[str] = []

    async def embed(attempt: Attempt) -> np.ndarray:
        tiers.append(attempt.tier or "webgpu")
        if attempt.tier is None:
            raise error
        return await _embedding(attempt.tier)

    manager = RecoveryManager(FallbackStrategy(retry_delay=0.001, max_retry_attempts=2))
    result = await manager.execute_with_recovery("embed", embed)
    assert tiers == ["webgpu", "webgpu", "webgpu", LIMITED]
    np.testing.assert_allclose(result, expected, atol=1e-5)


async def _embedding(tier: str) -> np.ndarray:
    async with await bascule.load(TINY_BERT, tier=tier) as model:
        assert model.tier == tier
        return await model.embed(TEXT)
