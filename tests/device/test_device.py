"""A device, and the models that share it."""

from __future__ import annotations

import asyncio
import inspect
from collections.abc import Callable
from typing import Any, Literal, get_args, get_origin, get_overloads, get_type_hints

import numpy as np
import pytest

import bascule
from bascule.backend.webgpu import gpu_native
from bascule.device.options import DeviceLoadOptions, LoadOptions, LoadSettings
from bascule.errors import BasculeError, DeviceLostError, InputError, TierUnavailableError
from bascule.tasks.registry import KNOWN
from bascule.tasks.sampler import GREEDY
from tests.goldens import TINY_BERT, cosines, golden
from tests.goldens.llama import tiny

TIERS = ["webgpu", "webgpu-limited", "wasm", "cpu"]
LLAMA = tiny("tiny-q4_1").path
FEW: Any = {"max_new_tokens": 3, "sampling": GREEDY}
ALL_TIERS = pytest.mark.parametrize("tier", TIERS)


@pytest.fixture
def openings(monkeypatch: pytest.MonkeyPatch) -> list[object]:
    """The WebGPU devices that were opened."""
    opened: list[object] = []
    real = gpu_native.open_native

    async def counted(**options: Any) -> gpu_native.NativeGpu:
        opened.append(await real(**options))
        return opened[-1]  # type: ignore[return-value]

    monkeypatch.setattr(gpu_native, "open_native", counted)
    return opened


@ALL_TIERS
async def test_models_share_one_device(tier: str, openings: list[object]) -> None:
    async with await bascule.open_device(tier) as device:
        encoder = await device.load(TINY_BERT)
        llama = await device.load(LLAMA)
        assert isinstance(encoder, bascule.EmbeddingModel)
        assert isinstance(llama, bascule.LanguageModel)
        expected = golden("tiny-bert")
        result, text = await asyncio.gather(
            encoder.embed(expected.texts), llama.generate("Hi", **FEW)
        )
        assert cosines(result, expected.embeddings).min() > 0.99999
        assert text.ids
        assert encoder.backend is llama.backend is device.backend
        assert len(openings) == tier.startswith("webgpu")
        weights = encoder.weights.nbytes + llama.weights.nbytes
        assert device.memory().by_kind["weights"] == pytest.approx(weights, rel=0.01)
        encoder.close()
        assert device.memory().by_kind["weights"] == pytest.approx(llama.weights.nbytes, rel=0.01)
        assert (await llama.generate("Hi", **FEW)).ids == text.ids
    assert device.memory().now_nbytes == 0


async def test_load_opens_a_device_and_closes_it_with_the_model(openings: list[Any]) -> None:
    async with await bascule.load(TINY_BERT, tier="webgpu") as model:
        (gpu,) = openings
        assert model.backend.memory.now_nbytes == gpu.allocated_nbytes > model.weights.nbytes
    assert gpu.lost
    assert gpu.allocated_nbytes == 0


@ALL_TIERS
async def test_what_a_closed_device_says(tier: str) -> None:
    device = await bascule.open_device(tier)
    model = await device.load(TINY_BERT)
    stays_closed = await device.load(TINY_BERT)
    stays_closed.close()
    device.close()
    device.close()
    with pytest.raises(InputError, match=r"embed.*one that was closed"):
        await model.embed("w4")  # type: ignore[union-attr]
    with pytest.raises(InputError, match=r"load.*one that was closed.*open_device"):
        await device.load(TINY_BERT)
    assert device.memory().now_nbytes == 0
    assert "closed" in repr(device)


@pytest.mark.parametrize("stage", ["config", "device", "pipelines", "weights", "ready"])
async def test_a_device_closed_while_it_loads(stage: str) -> None:
    device = await bascule.open_device("webgpu")

    def notify(progress: bascule.Progress) -> None:
        if progress.stage == stage:
            device.close()

    with pytest.raises((InputError, DeviceLostError)):
        await device.load(TINY_BERT, progress=notify)
    assert device.memory().now_nbytes == 0


@ALL_TIERS
async def test_what_a_device_says_of_itself(tier: str) -> None:
    async with await bascule.open_device([tier]) as device:
        assert device.tier == tier
        assert device.tier_reason
        assert device.device_name in repr(device)
        assert not device.lost
        if tier.startswith("webgpu"):
            assert device.adapter is not None
            assert device.adapter.limited == (tier == "webgpu-limited")
            assert device.limits["maxBufferSize"] >= 256 << 20
            assert device.features == device.adapter.features
        else:
            assert device.adapter is None
            assert not device.limits
            assert not device.features
        with pytest.raises(TypeError):
            device.limits["maxBufferSize"] = 1  # type: ignore[index]


@pytest.mark.parametrize("tier", ["webgpu", "cpu"])
async def test_memory_has_a_peak_and_kinds(tier: str) -> None:
    async with await bascule.open_device(tier) as device:
        idle = device.memory()
        for _ in range(2):
            async with await device.load(LLAMA) as model:
                assert isinstance(model, bascule.LanguageModel)
                await model.generate("Hi", **FEW)
                busy = device.memory()
                assert busy.by_kind["weights"] > 0
                assert busy.by_kind["states"] > 0
                assert sum(busy.by_kind.values()) == busy.now_nbytes <= busy.peak_nbytes
        after = device.memory()
        assert after.by_kind.keys() <= {"staging"}
        assert after.now_nbytes == after.by_kind.get("staging", 0)
        assert after.peak_nbytes >= busy.now_nbytes > idle.now_nbytes


async def test_a_tier_that_does_not_work_is_an_error() -> None:
    with pytest.raises(InputError, match="Did you mean 'webgpu'"):
        await bascule.open_device("wegbpu")
    with pytest.raises(InputError, match="tier"):
        await bascule.open_device([])


async def test_what_a_tier_cannot_run_is_told_before_anything_is_fetched(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    device = await bascule.open_device("cpu")
    monkeypatch.setattr(device.backend, "tier", "webnn")  # which runs no language models
    with pytest.raises(TierUnavailableError, match="cannot run"):
        await device.load(LLAMA)
    device.close()


async def test_a_lost_device_is_opened_again_for_a_model() -> None:
    async with await bascule.open_device("webgpu") as device:
        model = await device.load(TINY_BERT)
        assert isinstance(model, bascule.EmbeddingModel)
        before = await model.embed("w4")
        device.backend.gpu.destroy()  # type: ignore[attr-defined]
        device.backend.gpu.lost = "the test has lost it"  # type: ignore[attr-defined]
        assert device.lost
        assert np.array_equal(await model.embed("w4"), before)
        assert model.backend is not device.backend
    with pytest.raises(BasculeError):
        await model.embed("w4")


def test_its_options_are_those_of_load_but_the_tier() -> None:
    real = get_type_hints(bascule.load)
    hints = get_type_hints(LoadOptions)
    assert hints == {name: kind for name, kind in real.items() if name not in ("model", "return")}
    own = {"memory_nbytes", "revalidate"}  # of WebGPUMemoryOptimizer, and of ResourcePool
    settings = {n: kind for n, kind in get_type_hints(LoadSettings).items() if n not in own}
    assert get_type_hints(DeviceLoadOptions) == settings
    assert hints.keys() - get_type_hints(DeviceLoadOptions).keys() == {"tier"}
    defaults = {n: p.default for n, p in inspect.signature(bascule.load).parameters.items()}
    shared: Callable[..., Any] = LoadSettings
    for name, parameter in inspect.signature(shared).parameters.items():
        if name not in own:
            assert parameter.default == defaults[name]


def test_its_overloads_name_every_known_model() -> None:
    named: dict[str, type] = {}
    for one in get_overloads(bascule.Device.load):
        hints = get_type_hints(one)
        if get_origin(hints["model"]) is Literal:
            named |= dict.fromkeys(get_args(hints["model"]), hints["return"])
    assert named.keys() == KNOWN.keys()


async def test_an_unknown_option_is_an_error() -> None:
    async with await bascule.open_device("cpu") as device:
        with pytest.raises(TypeError, match="context"):
            await device.load(TINY_BERT, context=3)  # type: ignore[call-overload]


async def test_what_else_works_on_an_open_device(openings: list[object]) -> None:
    x = np.random.default_rng(3).standard_normal((4, 64)).astype(np.float32)
    async with await bascule.open_device("webgpu") as device:
        output = {"name": "safari", "version": "17.4"}  # so that nothing is probed
        with bascule.FallbackManager(output, config={"device": device}) as manager:
            result = await manager.run_with_fallback("matmul", {"a": x, "b": x.T})
            assert np.abs(result - x @ x.T).max() < 1e-4
        async with bascule.WebGPUQuantizer(8, device=device) as quantizer:
            made = await quantizer.quantize(x)
            assert np.abs(made.dequantize() - x).max() < 0.05
        platform = bascule.UnifiedWebPlatform(str(TINY_BERT), device=device)
        assert (await platform.run_inference({"input_text": "w4"}))["tier"] == "webgpu"  # type: ignore[misc]
        loader = bascule.ProgressiveModelLoader(TINY_BERT)
        model = await loader.load_model(device=device)
        assert model.backend is device.backend
        assert len(openings) == 1
        assert not device.lost
    platform.close()
    for work in (quantizer.quantize(x), platform.load_model(), loader.load_model(device=device)):
        with pytest.raises(InputError, match=r"closed"):
            await work
    with pytest.raises(InputError, match=r"config 'device'.*bascule.open_device"):
        bascule.FallbackManager(config={"device": "webgpu"})
