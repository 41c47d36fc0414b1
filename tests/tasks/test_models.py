"""Whole models on every native tier, against an independent implementation in float64."""

from __future__ import annotations

import asyncio
import json
import shutil
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

import bascule
from bascule.errors import (
    BasculeError,
    DeviceLostError,
    FileMissingError,
    InputError,
    ModelFileError,
    TierUnavailableError,
    UnsupportedModelError,
)
from bascule.server.app import create_app
from bascule.server.run import listen, make_server
from tests.goldens import TINY_BERT, Golden, cosines, golden

TIERS = ["webgpu", "wasm", "cpu"]  # tests/tiers/test_limited.py has the fourth
COSINE = 0.99999


@pytest.fixture(params=TIERS)
async def minilm(request: pytest.FixtureRequest) -> AsyncIterator[bascule.EmbeddingModel]:
    async with await bascule.load("all-MiniLM-L6-v2", tier=request.param) as model:
        assert model.tier == request.param
        yield model


def spread(found: Golden, count: int) -> tuple[list[str], np.ndarray]:
    """`count` short texts, in an order where neighbours differ."""
    short = [i for i, ids in enumerate(found.ids) if len(ids) <= 32]
    chosen = [short[(5 * i) % len(short)] for i in range(count)]
    return [found.texts[i] for i in chosen], found.embeddings[chosen]


async def test_minilm_from_2_to_256_tokens(minilm: bascule.EmbeddingModel) -> None:
    expected = golden("minilm")
    assert {len(ids) for ids in expected.ids} >= {2, 9, 119, 256}
    result = await minilm.embed(expected.texts)
    assert result.dtype == np.float32
    assert result.shape == (len(expected.texts), 384)
    assert (cosines(result, expected.embeddings) >= COSINE).all()
    np.testing.assert_allclose(np.linalg.norm(result, axis=1), 1, atol=1e-5)


@pytest.mark.parametrize("count", [0, 1, 3, 33])
async def test_minilm_batches_keep_their_order(minilm: bascule.EmbeddingModel, count: int) -> None:
    texts, expected = spread(golden("minilm"), count)
    result = await minilm.embed(texts)
    assert result.shape == (count, 384)
    assert (cosines(result, expected) >= COSINE).all()


@pytest.mark.parametrize("tier", TIERS)
async def test_a_model_of_odd_sizes(tier: str) -> None:
    expected = golden("tiny-bert")
    async with await bascule.load(TINY_BERT, tier=tier) as model:
        result = await model.embed(expected.texts)
        assert model.max_tokens == 40
    assert (cosines(result, expected.embeddings) >= COSINE).all()


@pytest.mark.parametrize("tier", TIERS)
async def test_one_wrong_weight_is_seen(tier: str, tmp_path: Path) -> None:
    shutil.copytree(TINY_BERT, tmp_path / "m")
    tensors = load_file(tmp_path / "m" / "model.safetensors")
    tensors["encoder.layer.1.output.dense.weight"][3, 5] += 2
    save_file(tensors, tmp_path / "m" / "model.safetensors")
    expected = golden("tiny-bert")
    async with await bascule.load(tmp_path / "m", tier=tier) as model:
        result = await model.embed(expected.texts)
    assert (cosines(result, expected.embeddings) < COSINE).any()


async def test_new_lengths_need_no_new_pipelines() -> None:
    async with await bascule.load(TINY_BERT, tier="webgpu") as model:
        pipelines: Any = model._backend.pipelines
        before = len(pipelines)
        for length in (1, 3, 9, 17, 38):
            await model.embed([" ".join(["w7"] * length)] * (length % 5 + 1))
        assert len(pipelines) == before > 0


async def test_a_pass_is_one_replay_and_one_read() -> None:
    async with await bascule.load(TINY_BERT, tier="webgpu") as model:
        await model.embed(["w4 w5"])
        before = model.stats
        await model.embed(["w6 w7 w8"])
        after = model.stats
    assert after["passes"] - before["passes"] == 1
    assert after["crossings"] - before["crossings"] == 2


async def test_a_thousand_passes_leave_nothing_behind() -> None:
    async with await bascule.load(TINY_BERT, tier="webgpu") as model:
        await model.embed(["w4 w5"])
        before = model.stats
        for _ in range(1000):
            await model.embed(["w6 w7 w8"])
        after = model.stats
    for name in ("gpu_nbytes", "gpu_objects", "planned_nbytes"):
        assert after[name] == before[name]


async def test_embedding_many_at_once_from_many_tasks() -> None:
    expected = golden("tiny-bert")
    async with await bascule.load(TINY_BERT, tier="webgpu") as model:
        result = await asyncio.gather(*(model.embed([text]) for text in expected.texts * 5))
    assert (cosines(np.concatenate(result), np.tile(expected.embeddings, (5, 1))) >= COSINE).all()


async def test_closing_frees_and_forbids() -> None:
    model = await bascule.load(TINY_BERT, tier="webgpu")
    gpu: Any = model._backend.gpu
    model.close()
    model.close()
    assert gpu.allocated_nbytes == 0
    with pytest.raises(InputError, match="closed"):
        await model.embed(["w4"])


async def test_a_lost_device_is_told() -> None:
    async with await bascule.load(TINY_BERT, tier="webgpu") as model:
        backend: Any = model._backend
        backend.gpu.destroy()
        with pytest.raises(DeviceLostError, match="Call it again"):
            await model.embed(["w4"])


@pytest.mark.parametrize("texts", [3, None, b"bytes", ["a", 3], [None], {"a": 1}, [["a"]]])
async def test_wrong_inputs_are_told(texts: Any) -> None:
    async with await bascule.load(TINY_BERT, tier="cpu") as model:
        with pytest.raises(InputError, match="string"):
            await model.embed(texts)
        assert (await model.embed("w4")).shape == (1, 35)


@pytest.mark.parametrize(
    ("changes", "kind", "told"),
    [
        ({"model_type": "bloom"}, UnsupportedModelError, "bloom"),
        ({"hidden_act": "swoosh"}, UnsupportedModelError, "swoosh"),
        ({"position_embedding_type": "relative_key"}, UnsupportedModelError, "position"),
        ({"hidden_size": -1}, ModelFileError, "hidden_size"),
        ({"hidden_size": True}, ModelFileError, "hidden_size"),
        ({"hidden_size": 2**60}, ModelFileError, "hidden_size"),
        ({"num_attention_heads": 4}, ModelFileError, "divide"),
        ({"num_hidden_layers": 10**9}, ModelFileError, "num_hidden_layers"),
        ({"layer_norm_eps": "tiny"}, ModelFileError, "layer_norm_eps"),
        ({"vocab_size": 100}, ModelFileError, "word_embeddings"),
        ({"num_hidden_layers": 3}, ModelFileError, "layer.2"),
    ],
)
async def test_hostile_configs_are_told(
    tmp_path: Path, changes: dict[str, Any], kind: type[BasculeError], told: str
) -> None:
    shutil.copytree(TINY_BERT, tmp_path / "m")
    config = json.loads((tmp_path / "m" / "config.json").read_text())
    (tmp_path / "m" / "config.json").write_text(json.dumps({**config, **changes}))
    with pytest.raises(kind, match=told):
        await bascule.load(tmp_path / "m", tier="cpu")


@pytest.mark.parametrize("data", [b"", b"[]", b"\xff", b"[" * 100_000])
@pytest.mark.parametrize("file", ["config.json", "tokenizer.json"])
async def test_files_that_are_no_json_objects_are_told(
    tmp_path: Path, file: str, data: bytes
) -> None:
    shutil.copytree(TINY_BERT, tmp_path / "m")
    (tmp_path / "m" / file).write_bytes(data)
    with pytest.raises(ModelFileError, match=file):
        await bascule.load(tmp_path / "m", tier="cpu")


async def test_a_failed_load_frees_the_device(tmp_path: Path) -> None:
    shutil.copytree(TINY_BERT, tmp_path / "m")
    weights = tmp_path / "m" / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-1])
    for _ in range(3):
        with pytest.raises(ModelFileError, match="describes"):
            await bascule.load(tmp_path / "m", tier="webgpu")


async def test_two_hundred_loads(tmp_path: Path) -> None:
    expected = golden("tiny-bert")
    for _ in range(200):
        async with await bascule.load(TINY_BERT, tier="cpu") as model:
            result = await model.embed(expected.texts[:1])
    assert (cosines(result, expected.embeddings[:1]) >= COSINE).all()


async def test_settings_beside_the_weights_are_followed(tmp_path: Path) -> None:
    shutil.copytree(TINY_BERT, tmp_path / "m")
    (tmp_path / "m" / "sentence_bert_config.json").write_text('{"max_seq_length": 5}')
    modules = [("Transformer", ""), ("Pooling", "1_Pooling")]
    listed = [{"type": f"sentence_transformers.models.{n}", "path": p} for n, p in modules]
    (tmp_path / "m" / "modules.json").write_text(json.dumps(listed))
    (tmp_path / "m" / "1_Pooling").mkdir()
    (tmp_path / "m" / "1_Pooling" / "config.json").write_text('{"pooling_mode_cls_token": true}')
    embeddings = []
    for tier in TIERS:
        async with await bascule.load(tmp_path / "m", tier=tier) as model:
            assert model.max_tokens == 5
            embeddings.append(await model.embed(["w4 w5 w6 w7 w8 w9", "w4 w5 w6"]))
    np.testing.assert_allclose(embeddings[0], embeddings[1], rtol=1e-4, atol=1e-4)
    np.testing.assert_allclose(embeddings[0][0], embeddings[0][1], rtol=1e-4, atol=1e-4)
    assert abs(np.linalg.norm(embeddings[0][0]) - 1) > 0.1


async def test_an_unknown_tier_and_one_that_is_not_there() -> None:
    with pytest.raises(InputError, match="auto"):
        await bascule.load(TINY_BERT, tier="quantum")
    with pytest.raises(TierUnavailableError, match="auto"):
        await bascule.load(TINY_BERT, tier="webnn")


async def test_models_share_a_device_and_leave_it_open() -> None:
    expected = golden("tiny-bert")
    opened = await bascule.open_device("webgpu")
    backend: Any = opened.backend
    await (await opened.load(TINY_BERT)).embed(["w4"])
    before = None
    for _ in range(20):
        async with await opened.load(TINY_BERT) as model:
            result = await model.embed(expected.texts)
            assert (cosines(result, expected.embeddings) >= COSINE).all()
        now = (backend.gpu.allocated_nbytes, backend.gpu.n_objects, len(backend.pipelines))
        assert now == (before or now)
        before = now
    backend.close()


async def test_a_model_by_url() -> None:
    expected = golden("tiny-bert")
    app = create_app(models=TINY_BERT.parent, pyodide=TINY_BERT)
    with listen(0) as sock:
        server = make_server(app)
        serving = asyncio.ensure_future(server.serve(sockets=[sock]))
        url = f"http://localhost:{sock.getsockname()[1]}/models/tiny-bert/"
        async with await bascule.load(url, tier="webgpu") as model:
            result = await model.embed(expected.texts)
        with pytest.raises(FileMissingError, match="nothing"):
            await bascule.load(url.replace("tiny-bert", "nothing"))
        server.should_exit = True
        await serving
    assert (cosines(result, expected.embeddings) >= COSINE).all()


async def test_half_a_character_is_no_text() -> None:
    async with await bascule.load(TINY_BERT, tier="cpu") as model:
        for texts in ("w9 \udc80", ["w9", "w9 \udc80"]):
            with pytest.raises(InputError, match=r"embed, text \d: .*a lone surrogate"):
                await model.embed(texts)


async def test_more_tokens_than_the_table_has_rows_are_refused(tmp_path: Path) -> None:
    shutil.copytree(TINY_BERT, tmp_path / "m")
    path = tmp_path / "m" / "tokenizer.json"
    result = json.loads(path.read_text())
    result["model"]["vocab"]["another"] = 1000
    path.write_text(json.dumps(result))
    with pytest.raises(ModelFileError, match="1,001 tokens, and the model"):
        await bascule.load(tmp_path / "m", tier="cpu")
