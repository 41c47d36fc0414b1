"""T5 on every native tier, held to transformers in float64 on tiny random weights."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

import bascule
from bascule import TextToTextModel
from bascule.errors import (
    BasculeError,
    ContextLengthError,
    InputError,
    ModelFileError,
    UnsupportedModelError,
)
from bascule.models.text_to_text.config import read_config
from tests.goldens import cosines
from tests.goldens.llama import tiny
from tests.goldens.t5 import CASES, LONG, N_GREEDY, TARGET, TEXTS, build, pieces

GOLDENS = np.load(Path(__file__).parents[1] / "goldens" / "t5.npz")


@pytest.fixture(params=("webgpu", "wasm", "cpu"))
async def opened(request: pytest.FixtureRequest) -> AsyncIterator[bascule.Device]:
    """Each tier once a test; models share its device."""
    result = await bascule.open_device(request.param)
    yield result
    result.close()


async def load(device: bascule.Device, folder: Path, **options: Any) -> TextToTextModel:
    model = await device.load(folder, **options)
    assert isinstance(model, TextToTextModel)
    return model


async def test_states_logits_and_greedy_texts_are_those_of_transformers(
    opened: bascule.Device, tmp_path: Path
) -> None:
    for name in CASES:
        async with await load(opened, build(name, tmp_path / name)) as model:
            for at, text in enumerate(TEXTS):
                key = f"{name}.{at}"
                assert model.tokenizer.encode(text) == GOLDENS[f"{key}.ids"].tolist()
                states = await model.encode(text)
                assert cosines(states, GOLDENS[f"{key}.states"]).min() >= 0.99999, key
                if f"{key}.logits" in GOLDENS:
                    expected = GOLDENS[f"{key}.logits"]
                    logits = await model.logits(text, TARGET)
                    assert cosines(logits, expected).min() >= 0.99999, key
                    assert np.abs(logits - expected).max() < 2e-3
                assert GOLDENS[f"{key}.margin"] > 0.01
            result = await model.generate(TEXTS, max_new_tokens=N_GREEDY)
            for at, each in enumerate(result):
                assert each.ids == GOLDENS[f"{name}.{at}.greedy"].tolist()
                assert each.text == str(GOLDENS[f"{name}.{at}.text"])
                ended = len(each.ids) < N_GREEDY
                assert each.stop_reason == ("end" if ended else "length")


async def test_a_stream_can_be_left_and_the_model_asked_again(
    opened: bascule.Device, tmp_path: Path
) -> None:
    async with await load(opened, build("flan", tmp_path / "m")) as model:
        stream = model.stream(TEXTS[1], max_new_tokens=N_GREEDY)
        async with stream:
            async for piece in stream:
                assert piece
                break
        assert len(stream.result.ids) < N_GREEDY
        pieces_of = model.stream(TEXTS[1], max_new_tokens=N_GREEDY)
        text = "".join([piece async for piece in pieces_of])
        assert text == str(GOLDENS["flan.1.text"])
        drawn = [
            await model.generate(TEXTS[1], temperature=2.0, seed=s, max_new_tokens=8)
            for s in (5, 5, 6)
        ]
        assert drawn[0].ids == drawn[1].ids != drawn[2].ids
        stopped = await model.generate(TEXTS[1], stop="w69", max_new_tokens=8)
        assert stopped.text == "w24 "
        assert stopped.stop_reason == "stop"


async def test_the_streaming_pipeline_answers_a_text(tmp_path: Path) -> None:
    folder = build("flan", tmp_path / "m")
    async with bascule.StreamingInferencePipeline(str(folder), N_GREEDY, tier="cpu") as pipeline:
        results = [piece async for piece in pipeline.generate_streaming(TEXTS[1])]
        assert "".join(results) == str(GOLDENS["flan.1.text"])
        assert pipeline.stats["new_tokens"] == N_GREEDY


async def test_a_target_ends_where_the_model_does(tmp_path: Path) -> None:
    device = await bascule.open_device("cpu")
    async with device:
        model = await load(device, build("flan", tmp_path / "m"), max_length=9)
        result = await model.generate(TEXTS[1])
        assert result.stop_reason == "context"
        assert result.ids == GOLDENS["flan.1.greedy"].tolist()[:8]
        with pytest.raises(ContextLengthError, match="207"):
            await model.generate(LONG)
        with pytest.raises(InputError, match="overflow"):
            model.stream("w4", overflow="slide")
        with pytest.raises(InputError, match="max_length"):
            await load(device, build("flan", tmp_path / "n"), max_length=1)


async def test_caches_hold_floats_and_nothing_else_is_taken(tmp_path: Path) -> None:
    folder = build("t5", tmp_path / "m")
    async with await bascule.open_device("cpu") as device:
        assert (await load(device, folder, cache_dtype="f32")).tier == "cpu"
        with pytest.raises(InputError, match="cache_dtype: expected 'f32', or none, found 'f16'"):
            await load(device, folder, cache_dtype="f16")
        for model in (folder, tiny("tiny-q4_1").path):
            with pytest.raises(InputError, match="cache_dtype: expected one of 'f16', 'f32'"):
                await device.load(model, cache_dtype="f8")  # type: ignore[arg-type]


async def test_8_bits_are_close(tmp_path: Path) -> None:
    folder = build("flan", tmp_path / "m")
    async with await bascule.load(folder, tier="cpu", quantize=8) as model:
        assert isinstance(model, TextToTextModel)
        logits = await model.logits(TEXTS[0], TARGET)
        assert model.quantization is not None
        assert {t.dtype for t in model.quantization.tensors} == {"f32", "q8_0"}
    assert cosines(logits, GOLDENS["flan.0.logits"]).min() > 0.995


async def test_the_tokenizer_is_that_of_the_library(tmp_path: Path) -> None:
    async with await bascule.load(build("t5", tmp_path / "m"), tier="cpu") as model:
        assert isinstance(model, TextToTextModel)
        tokenizer, library = model.tokenizer, pieces()
        for text in (*TEXTS, "  w4   w5 ", "<extra_id_3> w4", "日本 w7"):
            ids = library.encode(text).ids
            assert tokenizer.encode(text) == ids
            assert tokenizer.encode(text, special=False) == ids[:-1]
            assert tokenizer.count(text) == len(ids)
            assert tokenizer.decode(ids) == library.decode(ids)
        assert tokenizer.decode([*library.encode("w4").ids, 135], skip_special=False) == "w4</s>"
        with pytest.raises(InputError, match="136"):
            tokenizer.decode([136])


@pytest.mark.parametrize(
    ("change", "error", "problem"),
    [
        ({"feed_forward_proj": "gated-swish2"}, UnsupportedModelError, "gated-swish2"),
        ({"is_encoder_decoder": False}, UnsupportedModelError, "is_encoder_decoder"),
        ({"d_kv": 13}, ModelFileError, "d_kv is 13"),
        ({"relative_attention_num_buckets": 30}, ModelFileError, "30 buckets"),
        ({"relative_attention_max_distance": 16}, ModelFileError, "the distance 16"),
        ({"num_layers": 10**9}, ModelFileError, "num_layers"),
        ({"decoder_start_token_id": 136}, ModelFileError, "decoder_start_token_id"),
        ({"n_positions": 10**6}, ModelFileError, "n_positions"),
    ],
    ids=str,
)
def test_settings_that_cannot_run_are_rejected(
    change: dict[str, Any], error: type[BasculeError], problem: str
) -> None:
    with pytest.raises(error, match=problem):
        read_config({**CASES["t5"], **change}, "config.json")


async def test_files_that_do_not_fit_are_rejected(tmp_path: Path) -> None:
    async def refused(name: str, error: type[BasculeError], problem: str, **config: Any) -> None:
        folder = build("t5", tmp_path / name)
        (folder / "config.json").write_text(json.dumps({**CASES["t5"], **config}))
        with pytest.raises(error, match=problem):
            await bascule.load(folder, tier="cpu")

    await refused("ends", ModelFileError, "eos_token_id", eos_token_id="1")
    await refused("small", ModelFileError, "shared.weight", vocab_size=135)
    folder = build("t5", tmp_path / "more")
    tensors = load_file(folder / "model.safetensors")
    save_file({**tensors, "adapter.weight": tensors["shared.weight"]}, folder / "model.safetensors")
    with pytest.raises(UnsupportedModelError, match="adapter"):
        await bascule.load(folder, tier="cpu")
    folder = build("t5", tmp_path / "words")
    text = (folder / "tokenizer.json").read_text().replace('"Unigram"', '"WordLevel"')
    (folder / "tokenizer.json").write_text(text)
    with pytest.raises(UnsupportedModelError, match="WordLevel"):
        await bascule.load(folder, tier="cpu")
