"""Models, platforms and pipelines that are closed in the middle of what they do."""

from __future__ import annotations

import asyncio
import threading
from functools import partial
from typing import Any

import pytest

import bascule
from bascule.errors import DeviceLostError, InputError
from bascule.tasks.sampler import GREEDY
from tests.goldens import TINY_BERT
from tests.goldens.llama import tiny

TIERS = ["webgpu", "wasm", "cpu"]
LLAMA = tiny("tiny-q4_1").path
WORDS = "the model was closed while it worked"


@pytest.mark.parametrize("shared", [False, True])
@pytest.mark.parametrize("tier", TIERS)
async def test_an_encoder_closed_while_it_embeds(tier: str, shared: bool) -> None:
    opened = await bascule.open_device(tier) if shared else None
    load: Any = opened.load if opened else partial(bascule.load, tier=tier)
    model = await load(TINY_BERT)
    texts = [" ".join(["w1"] * (1 + i % 90)) for i in range(400)]

    def progress(done: int, total: int) -> None:
        model.close()

    with pytest.raises(DeviceLostError, match=WORDS):
        await model.embed(texts, progress=progress)
    with pytest.raises(InputError, match="one that was closed"):
        await model.embed(texts)
    if opened:
        opened.close()


@pytest.mark.parametrize("shared", [False, True])
@pytest.mark.parametrize("tier", TIERS)
async def test_a_language_model_closed_while_it_writes(tier: str, shared: bool) -> None:
    opened = await bascule.open_device(tier) if shared else None
    load: Any = opened.load if opened else partial(bascule.load, tier=tier)
    model = await load(LLAMA)
    stream = model.stream([1, 5, 9], max_new_tokens=200, sampling=GREEDY)

    async def read() -> None:
        async for _ in stream:
            model.close()

    with pytest.raises(DeviceLostError, match=WORDS):
        await read()
    model = await load(LLAMA)
    working = asyncio.ensure_future(
        model.logits(list(range(1, 200)), progress=lambda *_: model.close())
    )
    with pytest.raises(DeviceLostError, match=WORDS):
        await working
    if opened:
        opened.close()


async def closed_while_it_loads(thing: Any, begin: Any) -> None:
    """What the load ends with, where `close()` comes once its device is open."""
    loading = asyncio.ensure_future(begin())
    for _ in range(3):
        await asyncio.sleep(0)
    thing.close()
    with pytest.raises(InputError, match="closed while it loaded"):
        await loading
    for _ in range(5):
        await asyncio.sleep(0.01)
    assert thing.model is None


async def test_a_platform_closed_while_it_loads() -> None:
    opened = await bascule.open_device("webgpu")
    backend: Any = opened.backend
    platform = bascule.UnifiedWebPlatform(str(TINY_BERT), device=opened)
    await closed_while_it_loads(platform, platform.load_model)
    assert backend.gpu.n_objects == 0
    # At each of its stages.
    for stage in ("config", "device", "pipelines", "weights", "ready"):
        platform = bascule.UnifiedWebPlatform(str(TINY_BERT), device=opened)

        def notify(now: str, _: float, platform: Any = platform, stage: str = stage) -> None:
            if now == stage:
                platform.close()

        platform.on_progress(notify)
        with pytest.raises(InputError, match="closed while it loaded"):
            await platform.load_model()
        assert platform.model is None
        await asyncio.sleep(0.02)
        assert backend.gpu.n_objects == 0, stage
    await bascule.UnifiedWebPlatform(str(TINY_BERT), device=opened).load_model()
    backend.close()


async def test_a_platform_s_load_that_its_caller_cancels_goes_on() -> None:
    platform = bascule.UnifiedWebPlatform(str(TINY_BERT), platform="cpu")
    first = asyncio.ensure_future(platform.load_model())
    second = asyncio.ensure_future(platform.load_model())
    await asyncio.sleep(0)
    first.cancel()
    with pytest.raises(asyncio.CancelledError):
        await first
    assert await second is platform.model
    platform.close()


async def test_a_pipeline_closed_while_it_loads() -> None:
    pipeline = bascule.StreamingInferencePipeline(str(LLAMA), tier="cpu")

    async def begin() -> None:
        async for _ in pipeline.generate_streaming("Hi", raw=True):
            pass

    await closed_while_it_loads(pipeline, begin)


def test_a_platform_closed_by_another_thread() -> None:
    platform = bascule.UnifiedWebPlatform(str(TINY_BERT), platform="cpu")
    begun = threading.Event()
    platform.on_progress(lambda *_: begun.set())
    closing = threading.Thread(target=lambda: (begun.wait(), platform.close()))
    closing.start()
    with pytest.raises(InputError, match="closed while it loaded"):
        platform.load_model()
    closing.join()
    assert platform.model is None
