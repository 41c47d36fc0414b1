"""Llamas in safetensors on every native tier, held to transformers on the same numbers."""

from __future__ import annotations

import asyncio
import json
import shutil
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

import bascule
from bascule import LanguageModel
from bascule.backend.quantize import quantize
from bascule.base.dtypes import BlockType
from bascule.errors import FileMissingError, ModelFileError, UnsupportedModelError
from bascule.models.llama import LLAMA
from bascule.program.blocks import dequantize
from bascule.recipes.reading import read_recipe
from bascule.tasks.sampler import GREEDY
from bascule.weights.location import open_source
from tests.goldens import cosines
from tests.goldens.llama import TINY_NAMES, Tiny, TinyName, tiny, tiny_folder
from tests.goldens.llama_folder import write_folder
from tests.test_loading import shard
from tests.weights.faulty import FaultyServer

FOLDER = tiny_folder().path
FORMATS = ("q8_0", "q4_1", "q4_0")


@pytest.fixture(params=("webgpu", "cpu"))
async def opened(request: pytest.FixtureRequest) -> AsyncIterator[bascule.Device]:
    """Each tier once a test; models share its device."""
    result = await bascule.open_device(request.param)
    yield result
    result.close()


async def assert_golden(model: Any, golden: Tiny) -> None:
    """Greedy text and logits; the cache has to be of float32."""
    assert isinstance(model, LanguageModel)
    for chat in golden.chats:
        assert model.chat_ids(chat.messages) == chat.prompt_ids
        result = await model.chat(chat.messages, sampling=GREEDY, max_new_tokens=32)
        assert chat.parts_at(result.ids) is None
        assert len(result.ids) == (32 if chat.end is None else chat.end)
        assert chat.end is None or result.text == chat.text
    logits = await model.logits(golden.ids)
    assert cosines(logits, golden.logits).min() > 0.99999
    assert np.abs(logits - golden.logits).max() < 2e-3


@pytest.mark.parametrize("name", TINY_NAMES)
async def test_a_folder_is_the_gguf_file_it_was_made_of(
    opened: bascule.Device, name: TinyName, tmp_path: Path
) -> None:
    folder = write_folder(tiny(name).path, tmp_path / "m")
    async with await opened.load(folder, cache_dtype="f32") as model:
        assert model.quantization is None
        await assert_golden(model, tiny(name))


async def test_a_folder_of_halves_with_wide_heads_and_scaled_angles(opened: bascule.Device) -> None:
    async with await opened.load(FOLDER, cache_dtype="f32") as model:
        await assert_golden(model, tiny_folder())
        # Halves stay halves: all but the norms, and matrices whose rows are no multiple of 32.
        down, norms = 2 * 64 * 80, 5 * 64
        file = FOLDER / "model.safetensors"
        assert model.weights.nbytes <= file.stat().st_size + 2 * (down + norms)
        # Its post_processor sets a first token before plain text, and not into a chat.
        text = model.tokenizer.decode_bytes(tiny_folder().ids).decode()
        result = await model.generate(text, max_new_tokens=1)
        assert result.prompt_ids == tiny_folder().ids


async def test_shards_from_a_server(tmp_path: Path) -> None:
    shard(write_folder(tiny("tiny-q4_1").path, tmp_path / "m"), 3)
    with FaultyServer(tmp_path) as server:
        url = f"{server.url}/m"
        loaded = await bascule.load(url, tier="cpu", parallel=True, cache_dtype="f32")
        async with loaded as model:
            await assert_golden(model, tiny("tiny-q4_1"))


def in_blocks(folder: Path, format: str) -> None:
    """Make a folder's numbers those that its blocks will hold, by numpy alone."""
    tensors = load_file(folder / "model.safetensors")
    for name, array in tensors.items():
        fine = name in ("model.embed_tokens.weight", "lm_head.weight")
        type = BlockType["Q8_0" if fine else format.upper()]
        if array.ndim == 2:
            blocks = quantize(type, array)[0]
            tensors[name] = dequantize(type, blocks, array.size).reshape(array.shape)
    save_file(tensors, folder / "model.safetensors")


@pytest.mark.parametrize("format", FORMATS)
async def test_a_folder_in_blocks_computes_with_what_they_hold(
    opened: bascule.Device, format: str, tmp_path: Path
) -> None:
    golden = tiny("tiny-mixed")
    folder = write_folder(golden.path, tmp_path / "m")
    async with await opened.load(folder, quantize=format, cache_dtype="f32") as model:
        result = await model.logits(golden.ids)
    in_blocks(folder, format)
    async with await bascule.load(folder, tier="cpu", cache_dtype="f32") as model:
        expected = await model.logits(golden.ids)
    assert cosines(result, expected).min() > 0.99999
    minimum = cosines(result, golden.logits).min()
    print(f"{opened.backend.tier} {format}: cosine with float32 at least {minimum:.5f}")
    assert minimum > (0.995 if format == "q8_0" else 0.6)


@pytest.mark.parametrize("format", FORMATS)
async def test_a_report_tells_of_each_tensor(format: str) -> None:
    result, golden = dict[str, Any](), tiny_folder()
    for tier in ("webgpu", "cpu"):
        model = await bascule.load(FOLDER, tier=tier, quantize=format, cache_dtype="f32")
        async with model:
            report = model.quantization
            assert report is not None
            assert report.format == format
            assert model.weights.nbytes == report.nbytes < 0.75 * report.nbytes_before
            result[tier] = await model.logits(golden.ids)
    tensors = {tensor.name: tensor for tensor in report.tensors}
    assert len(tensors) == 2 + 2 * 6
    for name, tensor in tensors.items():
        if "norm" in name:
            assert (tensor.dtype, tensor.relative_error) == ("f32", 0)
        elif "ffn_down" in name:
            assert "no multiple of 32" in tensor.kept
        else:  # the tied embedding is there once, and never in fewer than 8 bits
            assert tensor.dtype == ("q8_0" if name == "token_embd.weight" else format)
            near = 0.0055 if tensor.dtype == "q8_0" else 0.083
            assert 0.8 * near < tensor.relative_error < 1.25 * near
    assert cosines(result["webgpu"], result["cpu"]).min() > 0.99999


async def test_one_word_quantizes_everywhere() -> None:
    path = str(FOLDER)
    platform = bascule.UnifiedWebPlatform(path, "text_generation", "cpu", quantize=8)
    assert (await platform.load_model()).quantization.format == "q8_0"
    platform.close()
    loader = bascule.ProgressiveModelLoader(path, tier="cpu", quantize="q4_0")
    async with await loader.load_model() as model:
        assert model.quantization.format == "q4_0"
    async with bascule.StreamingInferencePipeline(path, 3, tier="cpu", quantize=4) as pipeline:
        assert [piece async for piece in pipeline.generate_streaming("Hi", sampling=GREEDY)]
        assert pipeline.model is not None
        assert pipeline.model.quantization is not None
        assert pipeline.model.quantization.format == "q4_1"


def told(path: Path, **changes: Any) -> Path:
    """A copy of the folder with another config.json; None leaves a key out."""
    folder = path / "m"
    shutil.copytree(FOLDER, folder)
    config = json.loads((folder / "config.json").read_text()) | changes
    config = {key: value for key, value in config.items() if value is not None}
    (folder / "config.json").write_text(json.dumps(config))
    return folder


def recipe(folder: Path) -> Any:
    return asyncio.run(read_recipe(open_source(str(folder)), None, lambda _: None))


ROPE = json.loads((FOLDER / "config.json").read_text())["rope_scaling"]
UNSOUND: list[tuple[dict[str, Any], str]] = [
    ({"hidden_size": None}, "hidden_size is None, expected a whole number"),
    ({"hidden_size": "64"}, "hidden_size is 64"),
    ({"hidden_size": True}, "hidden_size is True"),
    ({"num_hidden_layers": 10**6}, "num_hidden_layers is 1000000, expected .* 1 to 1,000"),
    ({"num_hidden_layers": 3}, r"layers.2.input_layernorm.weight' is missing"),
    ({"num_attention_heads": 0}, "num_attention_heads is 0"),
    ({"num_key_value_heads": 3}, "4 heads over 3 of size 24"),
    ({"head_dim": 10}, "of size 10"),
    ({"head_dim": None, "num_attention_heads": 6, "num_key_value_heads": 6}, "6 heads over 6"),
    (
        {"intermediate_size": 81},
        r"mlp.gate_proj.weight' is \[80, 64\], and its settings make it \[81, 64\]",
    ),
    ({"vocab_size": 300}, r"embed_tokens.weight' is \[384, 64\]"),
    ({"vocab_size": 1 << 24, "hidden_size": 1 << 24}, "settings make it .16777216, 16777216"),
    ({"max_position_embeddings": 1 << 30}, "max_position_embeddings is"),
    ({"rms_norm_eps": "small"}, "rms_norm_eps is small, expected a number"),
    ({"rms_norm_eps": float("nan")}, "rms_norm_eps is nan"),
    ({"rope_theta": 0}, "rope_theta is 0"),
    ({"rope_theta": float("inf")}, "rope_theta is inf"),
    ({"rope_scaling": [1]}, "rope_scaling is not a JSON object"),
    ({"rope_scaling": ROPE | {"factor": 0}}, "rope scaling's factor is 0"),
    ({"rope_scaling": ROPE | {"factor": float("nan")}}, "factor is nan"),
    ({"rope_scaling": ROPE | {"low_freq_factor": 4}}, "low_freq_factor is not below"),
    ({"rope_scaling": {"type": "linear"}}, "rope scaling's factor is None"),
    ({"tie_word_embeddings": "yes"}, "tie_word_embeddings is not a boolean"),
    ({"tie_word_embeddings": None}, "'lm_head.weight' is missing"),
    ({"eos_token_id": "1"}, "eos_token_id is 1, expected token ids"),
    ({"eos_token_id": [1, 384]}, "eos_token_id 384 is none of the 384 tokens"),
    ({"eos_token_id": [-1]}, "eos_token_id -1 is none"),
]
OTHERS: list[tuple[dict[str, Any], str]] = [
    ({"model_type": "falcon"}, "'falcon', which does not run.*text generation.*llama .*SmolLM2"),
    ({"model_type": ["llama"]}, "model_type is"),
    ({"hidden_act": "gelu"}, "its hidden_act is gelu"),
    ({"attention_bias": True}, "its attention_bias is True"),
    ({"mlp_bias": True}, "its mlp_bias is True"),
    ({"quantization_config": {"bits": 4}}, "its quantization_config is"),
    ({"rope_scaling": {"rope_type": "yarn", "factor": 2}}, "its rope scaling is 'yarn'"),
    ({"num_hidden_layers": 1}, "'model.layers.1.input_layernorm.weight', which is not known"),
]


@pytest.mark.parametrize(("changes", "words"), UNSOUND, ids=[words for _, words in UNSOUND])
async def test_unsound_settings_are_told(
    tmp_path: Path, changes: dict[str, Any], words: str
) -> None:
    with pytest.raises(ModelFileError, match=words):
        await bascule.load(told(tmp_path, **changes), tier="cpu")


@pytest.mark.parametrize(("changes", "words"), OTHERS, ids=[words for _, words in OTHERS])
async def test_other_models_are_named(tmp_path: Path, changes: dict[str, Any], words: str) -> None:
    with pytest.raises(UnsupportedModelError, match=words):
        await bascule.load(told(tmp_path, **changes), tier="cpu")


def add(name: str, array: np.ndarray) -> Callable[[dict[str, Any]], None]:
    return lambda tensors: tensors.update({name: array})


TENSORS: list[tuple[Callable[[dict[str, Any]], Any], str]] = [
    (lambda t: t.pop("model.norm.weight"), "'model.norm.weight' is missing"),
    (lambda t: t.pop("model.embed_tokens.weight"), "'model.embed_tokens.weight' is missing"),
    (add("model.layers.0.self_attn.q_proj.bias", np.zeros(64)), "q_proj.bias', which is not known"),
    (add("model.norm.weight", np.zeros(64, np.int32)), "'model.norm.weight' is I32"),
    (add("model.norm.weight", np.zeros(65, np.float32)), r"norm.weight' is \[65\]"),
    (
        add("model.layers.0.mlp.up_proj.weight", np.zeros((), np.float16)),
        r"up_proj.weight' is \[\]",
    ),
]


@pytest.mark.parametrize(("change", "words"), TENSORS, ids=[words for _, words in TENSORS])
@pytest.mark.parametrize("quantize", [None, 8])
async def test_unsound_tensors_are_told(
    tmp_path: Path, change: Callable[[dict[str, Any]], Any], words: str, quantize: int | None
) -> None:
    folder = write_folder(tiny("tiny-q4_1").path, tmp_path / "m")
    tensors = load_file(folder / "model.safetensors")
    change(tensors)
    save_file(tensors, folder / "model.safetensors")
    with pytest.raises((ModelFileError, UnsupportedModelError), match=words):
        await bascule.load(folder, tier="cpu", quantize=quantize)


async def test_tensors_that_say_nothing_new_are_left_alone(tmp_path: Path) -> None:
    folder = write_folder(tiny("tiny-q4_1").path, tmp_path / "m")
    tensors = load_file(folder / "model.safetensors")
    tensors["lm_head.weight"] = np.zeros((3, 5), np.float32)  # tied: the embedding serves
    tensors["model.layers.1.self_attn.rotary_emb.inv_freq"] = np.zeros(8, np.float32)
    save_file(tensors, folder / "model.safetensors")
    async with await bascule.load(folder, tier="cpu", cache_dtype="f32") as model:
        await assert_golden(model, tiny("tiny-q4_1"))


def test_what_may_be_left_out_has_transformers_defaults(tmp_path: Path) -> None:
    sizes: dict[str, Any] = json.loads((FOLDER / "config.json").read_text())
    for key in ("num_key_value_heads", "head_dim", "rms_norm_eps", "rope_theta", "rope_scaling"):
        del sizes[key]
    config = LLAMA.config(sizes, "config.json")
    assert (config.kv_heads, config.size, config.eps, config.theta) == (4, 16, 1e-6, 1e4)
    assert config.factors is None
    newer = {"rope_parameters": {"rope_theta": 5e5, "rope_type": "linear", "factor": 4.0}}
    config = LLAMA.config(sizes | newer, "config.json")
    assert config.theta == 5e5
    assert config.factors == (4,) * 8


async def test_a_folder_whose_weights_are_a_gguf_file(tmp_path: Path) -> None:
    folder = told(tmp_path)
    (folder / "model.safetensors").unlink()
    with pytest.raises(FileMissingError, match=r"m/model\.safetensors"):
        await bascule.load(folder, tier="cpu")
    shutil.copy(tiny("tiny-q4_1").path, folder / "model.gguf")
    async with await bascule.load(folder, tier="cpu", cache_dtype="f32") as model:
        await assert_golden(model, tiny("tiny-q4_1"))


def test_more_tokens_than_embeddings_are_told(tmp_path: Path) -> None:
    folder = told(tmp_path)
    tokenizer = json.loads((folder / "tokenizer.json").read_text())
    tokenizer["added_tokens"][4]["id"] = 390
    (folder / "tokenizer.json").write_text(json.dumps(tokenizer))
    with pytest.raises(ModelFileError, match="391 tokens and 384 embeddings"):
        recipe(folder)


def test_a_folder_without_the_files_that_it_may_lack(tmp_path: Path) -> None:
    folder = told(tmp_path)
    for file in ("generation_config.json", "tokenizer_config.json", "chat_template.jinja"):
        (folder / file).unlink()
    settings = recipe(folder).settings
    assert settings.template is None
    vocabulary = settings.tokenizer.vocabulary
    assert vocabulary.bos == 379
    assert vocabulary.ends == {380, 383}  # config.json's, and one that is known by its text
    for file in ("config.json", "generation_config.json", "tokenizer_config.json"):
        (folder / file).write_text("[")
        with pytest.raises(ModelFileError, match=rf"{file}: it is not JSON"):
            recipe(folder)
        (folder / file).write_bytes((FOLDER / file).read_bytes())
