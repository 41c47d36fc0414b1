"""Whole models on a device that is too small for their tables: cut by rows, the answer stays."""

from __future__ import annotations

import json
import shutil
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import bascule
from bascule import LanguageModel
from bascule.backend.cpu import ReferenceBackend
from bascule.backend.wasm.backend import WasmBackend
from bascule.backend.wasm.kernels_native import open_native as open_kernels
from bascule.backend.webgpu.backend import WebGpuBackend
from bascule.backend.webgpu.gpu_native import NativeGpu
from bascule.choosing.openers import OpenedTier
from bascule.errors import GpuError, LimitError
from bascule.program.rewrites.rewrite import Limits
from bascule.tasks.sampler import GREEDY
from tests.goldens import TINY_BERT, cosines, golden
from tests.goldens.llama import TinyName, tiny, tiny_folder
from tests.limited import LimitedGpu
from tests.stores import in_memory

# Rotary angles of a million positions, which every tiny Llama has: a state, larger than its table.
ANGLES = {"tiny-q4_1": 16, "tiny-mixed": 16, "tiny-k": 64}
TIERS = ["webgpu", "wasm", "cpu"]


def held(backend: Any) -> bascule.Device:
    return bascule.Device(OpenedTier(backend, f"{backend.tier} was asked for"))


@pytest.fixture(params=TIERS)
async def backend(request: pytest.FixtureRequest, gpu: NativeGpu) -> AsyncIterator[Any]:
    """One whose limits a test sets."""
    match request.param:
        case "webgpu":
            yield _Declared(gpu)
        case "wasm":
            yield WasmBackend(open_kernels())
        case _:
            yield ReferenceBackend()


class _Declared(WebGpuBackend):
    """A device that tells of lower limits than it has."""

    limits = Limits()  # pyright: ignore


def short_texts() -> tuple[list[str], np.ndarray]:
    expected = golden("tiny-bert")
    chosen = [i for i, ids in enumerate(expected.ids) if len(ids) <= 16]
    assert len(chosen) >= 3
    return [expected.texts[i] for i in chosen], expected.embeddings[chosen]


async def test_an_encoder_whose_table_no_binding_holds(gpu: NativeGpu) -> None:
    limited = LimitedGpu(gpu, 8_000)  # its table has 13,860 bytes, a layer's weight 14,700
    texts, expected = short_texts()
    async with await held(WebGpuBackend(limited)).load(TINY_BERT) as model:
        result = await model.embed(texts)
        assert (cosines(result, expected) >= 0.99999).all()
        assert {t.strategy for t in model.fallbacks} == {"chunked_embedding", "layer_decomposition"}
        assert {t.parts for t in model.fallbacks} == {2}
        assert "word_embeddings.weight has 13,860 bytes" in model.tier_reason
        assert model.stats["fallbacks"] == len(model.fallbacks) == 3
        assert 0 < limited.largest_nbytes <= 8_000
        with pytest.raises(LimitError, match=r"at most 8,000.*shorter texts"):
            await model.embed([" ".join(["w7"] * 38)])


async def test_a_device_that_holds_everything_takes_none(gpu: NativeGpu) -> None:
    async with await held(WebGpuBackend(gpu)).load(TINY_BERT) as model:
        assert model.fallbacks == ()
        assert model.stats["fallbacks"] == 0
        assert model.tier_reason == "webgpu was asked for"


async def test_many_short_texts_go_in_passes_that_fit(gpu: NativeGpu) -> None:
    """The rows of a pass are bounded by the widest value of a row."""
    limited = LimitedGpu(gpu, 60_000)  # 142 rows: three texts of 40 tokens, or eight of 16
    expected = golden("tiny-bert")
    async with await held(WebGpuBackend(limited)).load(TINY_BERT) as model:
        result = await model.embed(expected.texts * 3)
        assert (cosines(result, np.tile(expected.embeddings, (3, 1))) >= 0.99999).all()
        assert 30_000 < limited.largest_nbytes <= 60_000


async def test_without_the_rewrites_that_encoder_does_not_load(gpu: NativeGpu) -> None:
    backend = _Declared(LimitedGpu(gpu, 8_000))
    with pytest.raises(GpuError, match=r"13,860 bytes, and this device allows 8,000"):
        await held(backend).load(TINY_BERT)


def test_the_front_door_can_do_without_fallbacks(gpu: NativeGpu) -> None:
    opened = held(WebGpuBackend(LimitedGpu(gpu, 8_000)))
    platform = bascule.UnifiedWebPlatform(str(TINY_BERT), device=opened)
    platform.enable_feature_fallbacks(False)
    with pytest.raises(GpuError, match="this device allows 8,000"):
        platform.load_model()
    platform.enable_feature_fallbacks(True)
    model = platform.load_model()
    assert model.fallbacks
    platform.close()


async def test_an_encoder_on_every_tier(backend: Any) -> None:
    expected = golden("tiny-bert")
    backend.limits = Limits(binding_nbytes=17_000 // 4 * 3)
    texts, short = short_texts()
    async with await held(backend).load(TINY_BERT) as model:
        assert model.fallbacks
        assert (cosines(await model.embed(texts), short) >= 0.99999).all()
    backend.limits = Limits(dispatch_work=60_000)  # one text of 40 tokens, and most layers not
    async with await held(backend).load(TINY_BERT) as model:
        assert "multiply-adds" in model.tier_reason
        results = [await model.embed([text]) for text in expected.texts]
        assert (cosines(np.concatenate(results), expected.embeddings) >= 0.99999).all()


@pytest.mark.parametrize("name", ["tiny-q4_1", "tiny-k", "tiny-mixed"])
async def test_a_language_model_on_every_tier(backend: Any, name: TinyName) -> None:
    """Blocks of many formats, the table tied or not: equal goldens."""
    golden = tiny(name)
    maximum = 50_000 if name == "tiny-k" else 16_000  # one KV head fits, two do not
    backend.limits = Limits(binding_nbytes=maximum)
    async with await held(backend).load(golden.path, max_length=128) as model:
        assert isinstance(model, LanguageModel)
        cut = {t.strategy for t in model.fallbacks}
        assert cut - {"partitioned_kv_cache"} == {"chunked_embedding", "layer_decomposition"}
        assert all(p <= maximum for p in _weights(model))
        result = await model.logits(golden.ids)
        assert cosines(result, golden.logits).min() > 0.9999
        for chat in golden.chats:
            made = await model.chat(chat.messages, sampling=GREEDY, max_new_tokens=16)
            assert chat.parts_at(made.ids) is None


def _weights(model: Any) -> list[int]:
    store: Any = model.weights
    if stored := in_memory(store):
        return [weight.nbytes for weight in stored.values()]
    gpu = model._backend.gpu
    return [gpu._buffers.get(buffer).size for buffer in store.targets.values()]


async def _read(model: Any, name: str) -> np.ndarray:
    """A weight's bytes."""
    store: Any = model.weights
    if stored := in_memory(store):
        return stored[name]
    gpu, buffer = model._backend.gpu, store.targets[name]
    result = np.empty(gpu._buffers.get(buffer).size, np.uint8)
    await gpu.read(buffer, 0, result)
    return result


@pytest.fixture
def wide_llama(tmp_path: Path) -> Path:
    """The tiny folder with a table of 6,001 rows: those past its tokens are faint."""
    folder = tmp_path / "wide"
    shutil.copytree(tiny_folder().path, folder)
    file = folder / "model.safetensors"
    whole = file.read_bytes()
    start = 8 + int.from_bytes(whole[:8], "little")
    header: dict[str, Any] = json.loads(whole[8:start])
    data, at = bytearray(), 0
    for name, result in header.items():
        if name == "__metadata__":
            continue
        first, last = result["data_offsets"]
        data += whole[start + first : start + last]
        if name == "model.embed_tokens.weight":
            rows, inner = result["shape"]
            assert result["dtype"] == "F16"
            rng = np.random.default_rng(1)
            more = rng.standard_normal((6_001 - rows, inner)) * 1e-3
            data += more.astype(np.float16).tobytes()
            result["shape"] = [6_001, inner]
        result["data_offsets"], at = [at, len(data)], len(data)
    words = json.dumps(header).encode()
    file.write_bytes(len(words).to_bytes(8, "little") + words + data)
    result = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**result, "vocab_size": 6_001}))
    return folder


async def test_a_language_model_whose_table_no_binding_holds(
    gpu: NativeGpu, wide_llama: Path
) -> None:
    """Prefill goes in shorter chunks where the logits of longer ones would be too large."""
    ids = tiny_folder().ids
    options: dict[str, Any] = {"max_length": 128}
    async with await bascule.load(wide_llama, tier="webgpu", **options) as model:
        expected = await model.logits(ids)
        before = max(_weights(model))
    maximum = 420_000
    limited = LimitedGpu(gpu, maximum)
    assert before == 6_001 * 64 * 2 > maximum
    async with await held(WebGpuBackend(limited)).load(wide_llama, **options) as model:
        result = await model.logits(ids)
        assert np.array_equal(result[:, :384].argmax(1), expected[:, :384].argmax(1))
        np.testing.assert_allclose(result, expected, atol=1e-5)
        assert limited.largest_nbytes <= maximum
        assert [(t.strategy, t.parts) for t in model.fallbacks] == [
            ("chunked_embedding", 2),
            ("layer_decomposition", 2),
        ]


@pytest.mark.parametrize("format", ["q4_0", "q8_0"])
async def test_parts_become_blocks_as_the_whole_does(backend: Any, format: str) -> None:
    folder = tiny_folder()
    result, blocks = [], []
    options: dict[str, Any] = {"quantize": format, "max_length": 64}
    for limits in (Limits(), Limits(binding_nbytes=12_800)):
        backend.limits = limits
        async with await held(backend).load(folder.path, **options) as model:
            result.append(await model.logits(folder.ids))
            names = [t.name for t in model.quantization.tensors if "token_embd" in t.name]
            parts = [await _read(model, name) for name in names]
            blocks.append(np.concatenate(parts).tobytes())
            assert bool(model.fallbacks) == (limits != Limits())
    assert names == [f"token_embd.weight[{at}:{at + 128}]" for at in (0, 128, 256)]
    assert blocks[0] == blocks[1]
    # Sums in another order round a few halves of the cache to the other side.
    np.testing.assert_allclose(*result, atol=5e-3)
