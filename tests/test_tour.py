"""The newcomer's tour: the whole public surface in one sitting."""

from __future__ import annotations

import subprocess
import sys

import numpy as np
import pytest

import bascule
from bascule import cache
from tests.goldens import TINY_BERT
from tests.weights.faulty import FaultyServer


async def test_load_embed_and_look_around() -> None:
    stages: list[str] = []
    model = await bascule.load(TINY_BERT, progress=lambda p: stages.append(p.stage))
    async with model:
        # auto takes the GPU where a real dispatch gave the right numbers, and says so.
        assert model.tier == "webgpu"
        assert "right numbers" in model.tier_reason
        assert model.device_name
        embeddings = await model.embed(["w4 w5", "w6"])
        assert embeddings.shape == (2, model.dimension)
        assert model.stats["planned_nbytes"] < model.stats["naive_nbytes"]
    assert stages[0] == "config"
    assert stages[-1] == "ready"


def test_the_same_from_plain_code() -> None:
    model = bascule.sync(bascule.load(TINY_BERT, tier="cpu"))
    embeddings = bascule.sync(model.embed(["w4 w5"]))
    assert np.isfinite(embeddings).all()
    model.close()


async def test_loading_with_progress_and_what_is_kept() -> None:
    told: list[float] = []
    with FaultyServer(TINY_BERT.parent) as server:
        loader = bascule.ProgressiveModelLoader(f"{server.url}/tiny-bert", chunk_size_mb=1)
        loader.register_progress_callback(told.append)
        async with await loader.load_model() as model:
            assert (await model.embed("w4")).shape == (1, 35)
            assert any(kept.in_use for kept in await cache.ls())
    assert told[-1] == 100
    assert await cache.verify() == {}
    assert await cache.rm([f"{server.url}/tiny-bert"]) == 3


async def test_sync_where_a_loop_runs_says_to_await() -> None:
    with pytest.raises(bascule.BasculeError, match="await"):
        bascule.sync(bascule.load(TINY_BERT))


def test_the_front_door_from_plain_code() -> None:
    told: list[tuple[str, float]] = []
    platform = bascule.UnifiedWebPlatform(
        model_name=str(TINY_BERT), model_type="text", platform="webgpu"
    )
    platform.on_progress(lambda stage, percent: told.append((stage, percent)))
    result = platform.run_inference({"input_text": "w4 w5"})
    assert isinstance(result, dict)
    assert result["embeddings"].shape == (1, 35)
    assert result["tier"] == "webgpu"
    assert result["tier_reason"]
    assert ("weights", 100.0) in told
    platform.close()


async def test_the_front_door_awaited() -> None:
    platform = bascule.UnifiedWebPlatform(str(TINY_BERT), platform="auto")
    model = await platform.load_model()
    assert await platform.load_model() is model
    result = await platform.run_inference({"input_text": ["w4", "w5"]})
    assert result["embeddings"].shape == (2, 35)
    with pytest.raises(bascule.BasculeError, match="input_text"):
        await platform.run_inference({"text": "w4"})
    platform.close()
    with pytest.raises(bascule.BasculeError, match="vision"):
        bascule.UnifiedWebPlatform("m", model_type="vision")


def test_shaders_ahead_of_need() -> None:
    kind = bascule.ShaderPrecompiler(model_type="text", cache_to_indexeddb=True)
    assert kind.precompile_operation("attention").pipelines == 1
    kind.close()
    one = bascule.ModelSpecificPrecompiler(model_name=str(TINY_BERT), model_type="text")
    assert one.precompile_all().pipelines == 8
    one.close()


def test_importing_costs_nothing_and_needs_no_numpy() -> None:
    code = "import sys, bascule, bascule.backend.webgpu.tape; print('numpy' in sys.modules)"
    told = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert told.stdout.strip() == "False"
