"""The newcomer's tour: the whole public surface in one sitting."""

from __future__ import annotations

import subprocess
import sys
from typing import Any

import numpy as np
import pytest

import bascule
from bascule import cache
from tests.goldens import TINY_BERT
from tests.goldens.llama import tiny, tiny_folder
from tests.weights.faulty import FaultyServer


async def test_load_embed_and_look_around() -> None:
    stages: list[str] = []
    model = await bascule.load(TINY_BERT, progress=lambda p: stages.append(p.stage))
    async with model:
        # auto takes what is predicted to be fastest here, of the tiers that work, and says so.
        assert model.tier in ("webgpu", "wasm", "cpu")
        assert f"auto took {model.tier}" in model.tier_reason
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
    messages: list[float] = []
    with FaultyServer(TINY_BERT.parent) as server:
        loader = bascule.ProgressiveModelLoader(f"{server.url}/tiny-bert", chunk_size_mb=1)
        loader.register_progress_callback(messages.append)
        async with await loader.load_model() as model:
            assert (await model.embed("w4")).shape == (1, 35)
            assert any(kept.in_use for kept in await cache.ls())
    assert messages[-1] == 100
    assert await cache.verify() == {}
    assert await cache.rm([f"{server.url}/tiny-bert"]) == 3


async def test_text_as_it_comes() -> None:
    path = tiny("tiny-mixed").path
    async with await bascule.load(path, tier="webgpu", max_length=128) as model:
        assert isinstance(model, bascule.LanguageModel)
        sampling = bascule.Sampling(temperature=0.8, seed=1)
        answer = await model.chat([{"role": "user", "content": "Hi"}], sampling=sampling)
        assert answer.stop_reason in ("end", "context")
        async with model.stream("Once", max_new_tokens=5) as stream:
            pieces = [piece async for piece in stream]
        assert "".join(pieces) == stream.result.text
        assert (await model.logits([1, 2, 3])).shape == (3, model.vocabulary)
    async with bascule.StreamingInferencePipeline(str(path), max_length=5) as pipeline:
        assert [piece async for piece in pipeline.generate_streaming("Hi")]


async def test_one_device_for_models_and_arrays() -> None:
    async with await bascule.open_device() as device:
        async with await device.load(TINY_BERT) as model:
            assert isinstance(model, bascule.EmbeddingModel)
            rows = await model.embed(["w4 w5", "w6"])
        buffer = await device.buffer(rows)
        assert isinstance(buffer, bascule.DeviceBuffer)
        similarity = await device.ops.matmul(buffer, buffer, transposed=True)
        assert np.abs(await similarity.numpy() - rows @ rows.T).max() < 1e-5
        assert device.memory().by_kind["buffers"] == rows.nbytes + similarity.nbytes


async def test_fewer_bits() -> None:
    async with bascule.WebGPUQuantizer(bits=8, tier="webgpu") as quantizer:
        made = await quantizer.quantize(np.linspace(-1, 1, 128, dtype=np.float32).reshape(2, 64))
    assert np.abs(made.dequantize() - np.linspace(-1, 1, 128).reshape(2, 64)).max() < 0.005
    async with await bascule.load(tiny_folder().path, tier="webgpu", quantize=8) as model:
        report = model.quantization
        assert report.nbytes < 0.5 * report.nbytes_before
        assert (await model.generate("Hi", max_new_tokens=3)).text


def test_the_front_door_generates_from_plain_code() -> None:
    path = str(tiny("tiny-mixed").path)
    platform = bascule.UnifiedWebPlatform(path, model_type="text_generation", platform="cpu")
    greedy = {"input_text": "Hi", "max_new_tokens": 4, "temperature": 0.0}  # ends at no other token
    result = platform.run_inference(greedy)
    assert result["text"]
    assert result["stats"]["new_tokens"] == 4
    platform.close()
    wrong = bascule.UnifiedWebPlatform(path, model_type="text", platform="cpu")
    with pytest.raises(bascule.BasculeError, match="LanguageModel"):
        wrong.load_model()


def test_the_front_door_from_plain_code() -> None:
    messages: list[tuple[str, float]] = []
    platform = bascule.UnifiedWebPlatform(
        model_name=str(TINY_BERT), model_type="text", platform="webgpu"
    )
    platform.on_progress(lambda stage, percent: messages.append((stage, percent)))
    result = platform.run_inference({"input_text": "w4 w5"})
    assert isinstance(result, dict)
    assert result["embeddings"].shape == (1, 35)
    assert result["tier"] == "webgpu"
    assert result["tier_reason"]
    assert ("weights", 100.0) in messages
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
    with pytest.raises(bascule.BasculeError, match="video"):
        bascule.UnifiedWebPlatform("m", model_type="video")


def test_shaders_ahead_of_need() -> None:
    on: Any = {"platform": "webgpu"}  # "auto" may find that this machine's GPU is a slow one
    kind = bascule.ShaderPrecompiler(model_type="text", cache_to_indexeddb=True, **on)
    assert kind.precompile_operation("attention").pipelines == 1
    kind.close()
    one = bascule.ModelSpecificPrecompiler(model_name=str(TINY_BERT), model_type="text", **on)
    assert one.precompile_all().pipelines == 8
    one.close()


def test_importing_costs_nothing_and_needs_no_numpy() -> None:
    code = "import sys, bascule, bascule.backend.webgpu.tape; print('numpy' in sys.modules)"
    result = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True
    )
    assert result.stdout.strip() == "False"
