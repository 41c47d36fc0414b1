"""Every family on every native tier, held to transformers in float64 on tiny random weights."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

import bascule
from bascule import EmbeddingModel, LanguageModel
from bascule.base.dtypes import rounded_to
from bascule.errors import InputError, ModelFileError, UnsupportedModelError
from bascule.models.table import FAMILIES, family_of_config
from bascule.tasks.sampler import GREEDY
from tests.goldens import cosines
from tests.goldens.families import (
    DECODERS,
    ENCODERS,
    GPT2,
    N_GREEDY,
    PROMPT,
    STRIDE,
    Case,
    build,
    decoder_golden,
    encoder_golden,
    space_words,
)
from tests.goldens.families_gguf import ARCHITECTURES, write_gguf
from tests.goldens.llama import NARROW

BY_NAME = {case.name: case for case in (*DECODERS, GPT2, *ENCODERS)}
DECODING = {case.name: case for case in (*DECODERS, GPT2)}


@pytest.fixture(params=("webgpu", "wasm", "cpu"))
async def opened(request: pytest.FixtureRequest) -> AsyncIterator[bascule.Device]:
    """Each tier once a test; models share its device."""
    result = await bascule.open_device(request.param)
    yield result
    result.close()


async def assert_decodes(model: Any, case: Case) -> None:
    """The logits after each token, and the greedy text."""
    assert isinstance(model, LanguageModel)
    golden = decoder_golden(case.name)
    assert model.tokenizer.encode(PROMPT, special=False) == golden.ids
    logits = (await model.logits(golden.ids))[::STRIDE]
    assert cosines(logits, golden.logits).min() > 0.99999, case.name
    assert np.abs(logits - golden.logits).max() < 2e-3
    assert min(golden.margins) > NARROW
    ends = [i for i, token in enumerate(golden.greedy) if token in model.tokenizer.vocabulary.ends]
    expected = golden.greedy[: min(ends, default=N_GREEDY)]
    result = await model.generate(golden.ids, sampling=GREEDY, max_new_tokens=N_GREEDY)
    assert result.ids == expected, case.name


async def test_decoders_answer_as_transformers_does(opened: bascule.Device, tmp_path: Path) -> None:
    for case in DECODING.values():
        folder = build(case, tmp_path / case.name)
        async with await opened.load(folder, cache_dtype="f32") as model:
            await assert_decodes(model, case)


async def test_decoders_of_8_bits_answer_nearly_the_same(tmp_path: Path) -> None:
    """Biases and norms stay float32, whether projections are fused or not."""
    for case in DECODERS:
        golden = decoder_golden(case.name)
        folder = build(case, tmp_path / case.name)
        async with await bascule.load(folder, tier="cpu", quantize=8) as model:
            assert isinstance(model, LanguageModel)
            logits = (await model.logits(golden.ids))[::STRIDE]
            assert model.quantization is not None
            types = {tensor.name: tensor.dtype for tensor in model.quantization.tensors}
        assert cosines(logits, golden.logits).min() > 0.995, case.name
        assert types["token_embd.weight"] == types["blk.1.attn_output.weight"] == "q8_0" or (
            case.config.get("head_dim") == 12  # rows of 48 are no whole blocks
        )
        small = {name for name in types if name.endswith(".bias") or "norm" in name}
        assert {types[name] for name in small} == {"f32"}


async def test_gguf_files_answer_as_their_folders(opened: bascule.Device, tmp_path: Path) -> None:
    for name in ARCHITECTURES:
        file = write_gguf(build(DECODING[name], tmp_path / name), tmp_path / f"{name}.gguf")
        async with await opened.load(file, cache_dtype="f32") as model:
            await assert_decodes(model, DECODING[name])


async def test_encoders_embed_as_transformers_does(opened: bascule.Device, tmp_path: Path) -> None:
    for case in ENCODERS:
        folder = build(case, tmp_path / case.name)
        async with await opened.load(folder) as model:
            assert isinstance(model, EmbeddingModel)
            result = await model.embed(case.texts)
        expected = encoder_golden(case.name)
        assert cosines(result, expected).min() >= 0.99999, case.name


async def test_encoders_of_8_bits_embed_nearly_the_same(tmp_path: Path) -> None:
    """Among them one whose q, k and v are rows of one tensor, and whose angles no file has."""
    for case in ENCODERS:
        folder = build(case, tmp_path / case.name)
        async with await bascule.load(folder, tier="cpu", quantize=8) as model:
            assert isinstance(model, EmbeddingModel)
            result = await model.embed(case.texts)
            assert model.quantization is not None
            types = {tensor.dtype for tensor in model.quantization.tensors}
        assert types == {"f32", "q8_0"}
        assert cosines(result, encoder_golden(case.name)).min() > 0.995, case.name


def test_every_family_has_a_golden_or_files_of_its_own() -> None:
    assert {family.name for family in FAMILIES} - {
        "bert",
        "llama",
        "whisper",
        "t5",
        "vit",
        "dinov2",
        "clip",
        "siglip",
    } == {
        *BY_NAME,
        *DECODING,
    } - {
        "xlm-roberta"  # of the family roberta
    }


def changed(case: Case, folder: Path, **changes: Any) -> Path:
    """A case's folder with another config.json."""
    build(case, folder)
    (folder / "config.json").write_text(json.dumps({**case.config, **changes}))
    return folder


def a_matrix(names: Any) -> str:
    """One of the layers' matrices."""
    return sorted(n for n in names if "layers.1." in n or ".layer.1." in n or ".h.1." in n)[0]


def without(tensors: dict[str, Any]) -> None:
    del tensors[a_matrix(tensors)]


def with_another(tensors: dict[str, Any]) -> None:
    tensors["adapter.weight"] = np.zeros((2, 2), np.float32)


def with_a_wrong_shape(tensors: dict[str, Any]) -> None:
    name = a_matrix(tensors)
    tensors[name] = np.concatenate([tensors[name]] * 2)


@pytest.mark.parametrize(
    ("change", "error", "words"),
    [
        (without, ModelFileError, r"lacks the tensor '{}'|tensor '{}' is missing"),
        (with_another, UnsupportedModelError, r"tensor 'adapter\.weight', which"),
        (with_a_wrong_shape, ModelFileError, r"tensor '{}' is \["),
    ],
)
@pytest.mark.parametrize("case", BY_NAME.values(), ids=BY_NAME)
async def test_tensors_are_compared_with_the_settings(
    case: Case,
    change: Callable[[dict[str, Any]], None],
    error: type[Exception],
    words: str,
    tmp_path: Path,
) -> None:
    folder = build(case, tmp_path / "m")
    tensors = load_file(folder / "model.safetensors")
    name = a_matrix(tensors).removeprefix("roberta.").replace("transformer.h.", "h.")
    change(tensors)
    save_file(tensors, folder / "model.safetensors")
    with pytest.raises(error, match=words.replace("{}", name)):
        await bascule.load(folder, tier="cpu")


def lacking_one(tensors: dict[str, Any]) -> None:
    del tensors["blk.1.ffn_up.weight"]


def with_a_bias(tensors: dict[str, Any]) -> None:
    tensors["blk.1.ffn_gate_inp.bias"] = np.zeros(4, np.float32)


def with_another_width(tensors: dict[str, Any]) -> None:
    name = "blk.1.ffn_down.weight"
    tensors[name] = np.concatenate([tensors[name]] * 2)


@pytest.mark.parametrize(
    ("change", "error", "words"),
    [
        (lacking_one, ModelFileError, r"lacks the tensor 'blk\.1\.ffn_up\.weight'"),
        (with_a_bias, UnsupportedModelError, r"'blk\.1\.ffn_gate_inp\.bias', which is not known"),
        (with_another_width, ModelFileError, r"ffn_down\.weight \[64, \d+\] does not make"),
    ],
)
@pytest.mark.parametrize("name", ARCHITECTURES)
async def test_tensors_of_gguf_files_are_compared_with_the_settings(
    name: str,
    change: Callable[[dict[str, Any]], None],
    error: type[Exception],
    words: str,
    tmp_path: Path,
) -> None:
    file = write_gguf(build(DECODING[name], tmp_path / "m"), tmp_path / "m.gguf", change)
    with pytest.raises(error, match=words):
        await bascule.load(file, tier="cpu")


async def test_a_folder_of_gpt2_is_read_under_either_spelling(tmp_path: Path) -> None:
    """OpenAI's own file has no prefix, and the masks of old; distilgpt2's has its output, too."""
    folder = build(GPT2, tmp_path / "m")
    tensors = load_file(folder / "model.safetensors")
    bare = {name.removeprefix("transformer."): tensor for name, tensor in tensors.items()}
    bare["h.0.attn.bias"] = np.ones((1, 1, 128, 128), np.float32)
    for result in (bare, {**tensors, "lm_head.weight": tensors["transformer.wte.weight"]}):
        save_file(result, folder / "model.safetensors")
        async with await bascule.load(folder, tier="cpu", cache_dtype="f32") as model:
            await assert_decodes(model, GPT2)
    save_file({**bare, **tensors}, folder / "model.safetensors")
    with pytest.raises(ModelFileError, match="in two spellings"):
        await bascule.load(folder, tier="cpu")


async def test_columns_become_no_blocks(tmp_path: Path) -> None:
    with pytest.raises(UnsupportedModelError, match=r"column by column.*GGUF file"):
        await bascule.load(build(GPT2, tmp_path / "m"), tier="cpu", quantize=8)


async def test_learned_positions_do_not_slide(tmp_path: Path) -> None:
    file = write_gguf(build(GPT2, tmp_path / "m"), tmp_path / "m.gguf")
    async with await bascule.load(file, tier="cpu") as model:
        assert isinstance(model, LanguageModel)
        with pytest.raises(InputError, match=r"overflow.*knows 128 positions"):
            model.stream("The", overflow="slide")
        result = await model.generate([5] * 120, max_new_tokens=64, sampling=GREEDY)
        assert result.stop_reason in ("context", "end")


ODD: list[Any] = [None, True, -1, 0, 3, 1 << 60, 1e308, float("nan"), "x", [], [1], {}, {"a": 1}]
FURTHER = ("rope_scaling", "rope_parameters", "head_dim", "layer_types", "sliding_window")
FURTHER += ("partial_rotary_factor", "architectures", "is_decoder", "position_embedding_type")


@pytest.mark.parametrize("case", BY_NAME.values(), ids=BY_NAME)
def test_any_value_of_any_setting_is_read_or_refused(case: Case) -> None:
    refused: list[str] = []
    for key in {*case.config, *FURTHER} - {"model_type"}:
        for value in ODD:
            config = {**case.config, key: value}
            try:
                family_of_config(config, "config.json").config(config, "config.json")
            except (ModelFileError, UnsupportedModelError) as error:
                refused.append(str(error))
    assert len(refused) > 60
    assert max(map(len, refused)) < 400


ROPE = {"rope_type": "longrope", "short_factor": [1.0] * 4, "long_factor": [2.0] * 4}
REFUSED: list[tuple[str, dict[str, Any], str]] = [
    ("mistral", {"hidden_act": "gelu"}, "its hidden_act is gelu"),
    ("mistral", {"sliding_window": 0}, "sliding_window is 0, expected a whole number 1 to"),
    ("mistral", {"layer_types": ["sliding_attention"] * 2}, "its layer_types are"),
    ("qwen2", {"use_sliding_window": True}, "its use_sliding_window is True"),
    ("qwen2", {"layer_types": ["full_attention", "sliding_attention"]}, "its layer_types are"),
    ("qwen2", {"layer_types": 3}, "layer_types is 3, expected names"),
    ("qwen2", {"rope_scaling": {"type": "yarn", "factor": 4.0}}, "its rope scaling is 'yarn'"),
    ("qwen3", {"use_sliding_window": True}, "its use_sliding_window is True"),
    ("qwen3", {"attention_bias": True}, "its attention_bias is True"),
    ("qwen3", {"head_dim": None}, r"q_proj.weight' is \[48, 32\], .* make it \[512, 32\]"),
    ("gemma2", {"hidden_activation": "gelu"}, "its hidden_activation is gelu"),
    ("gemma2", {"use_bidirectional_attention": True}, "use_bidirectional_attention is True"),
    ("gemma2", {"layer_types": ["full_attention"]}, "expected 3 names"),
    ("gemma2", {"layer_types": ["full_attention", 1, 2]}, "its layer_types have '1'"),
    ("gemma2", {"attn_logit_softcapping": 0}, "attn_logit_softcapping is 0, expected"),
    ("gemma2", {"query_pre_attn_scalar": -1}, "query_pre_attn_scalar is -1, expected"),
    ("gemma2", {"sliding_window": 0}, "sliding_window is 0, expected a whole number 1 to"),
    ("phi3", {"rope_scaling": ROPE}, "its rope scaling is 'longrope'"),
    ("phi3", {"partial_rotary_factor": 0.75}, "its partial_rotary_factor is 0.75"),
    ("phi3", {"sliding_window": "far"}, "sliding_window is far"),
    ("roberta", {"is_decoder": True}, "its is_decoder is True"),
    ("roberta", {"pad_token_id": 129}, "leaves no position from 130 on"),
    ("roberta", {"pad_token_id": -2}, "pad_token_id is -2"),
    (
        "roberta",
        {"architectures": ["RobertaForSequenceClassification"]},
        r"lacks the tensor 'classifier\.dense\.weight'",
    ),
    ("gpt2", {"activation_function": "relu"}, "its activation_function is 'relu'"),
    ("gpt2", {"scale_attn_by_inverse_layer_idx": True}, "scale_attn_by_inverse_layer_idx is True"),
    ("gpt2", {"n_head": 5}, "5 heads over 5 of size 6 do not fit"),
    ("gpt2", {"tie_word_embeddings": False}, "tensor 'lm_head.weight' is missing"),
    ("mpnet", {"relative_attention_num_buckets": 64}, "relative_attention_num_buckets is 64"),
    ("mpnet", {"max_position_embeddings": 2}, "leaves no position from 2 on"),
    ("modernbert", {"mlp_bias": True}, "its mlp_bias is True"),
    ("modernbert", {"max_position_embeddings": 1 << 20}, "max_position_embeddings is 1048576"),
    ("modernbert", {"num_attention_heads": 32}, "32 heads of size 1 cannot be rotated"),
    ("modernbert", {"layer_types": ["full_attention"]}, "expected 4 names"),
    ("modernbert", {"layer_types": ["linear"] * 4}, "its layer_types have 'linear'"),
    ("modernbert", {"rope_scaling": {"type": "yarn"}}, "rope_scaling"),
    (
        "modernbert",
        {"rope_parameters": {"sliding_attention": {"rope_type": "yarn"}}},
        "its rope_type is 'yarn'",
    ),
    ("modernbert", {"rope_parameters": {"full_attention": 3}}, "not a JSON object"),
    ("modernbert", {"classifier_pooling": "max"}, "its classifier_pooling is 'max'"),
    ("modernbert", {"hidden_activation": "quick_gelu"}, "hidden_activation is 'quick_gelu'"),
    ("roberta", {"architectures": ["RobertaForTokenClassification"]}, "whose head is not run"),
    ("roberta", {"architectures": ["RobertaForCausalLM"]}, "whose head is not run"),
    ("roberta", {"position_embedding_type": "relative_key"}, "are not absolute"),
    ("distilbert", {"activation": "quick_gelu"}, "activation is 'quick_gelu'"),
    ("distilbert", {"n_heads": 5}, "dim 32 does not divide by 5 heads"),
    ("distilbert", {"dim": None}, "dim is None, expected a whole number"),
]


@pytest.mark.parametrize(("name", "changes", "words"), REFUSED, ids=[str(row) for row in REFUSED])
async def test_settings_that_do_not_run_are_refused_by_name(
    name: str, changes: dict[str, Any], words: str, tmp_path: Path
) -> None:
    folder = changed(BY_NAME[name], tmp_path / "m", **changes)
    with pytest.raises((ModelFileError, UnsupportedModelError), match=words):
        await bascule.load(folder, tier="cpu")


@pytest.mark.parametrize(
    ("changes", "alike"),
    [
        # The same said at length.
        ({"layer_types": ["sliding_attention", "full_attention", "sliding_attention"]}, True),
        ({"layer_types": ["full_attention"] * 3}, False),
        ({"sliding_window": None}, False),
        ({"attn_logit_softcapping": None}, False),
        ({"final_logit_softcapping": None}, False),
        ({"query_pre_attn_scalar": 12}, False),
    ],
)
async def test_every_setting_of_gemma_2_counts(
    changes: dict[str, Any], alike: bool, tmp_path: Path
) -> None:
    golden = decoder_golden("gemma2")
    folder = changed(BY_NAME["gemma2"], tmp_path / "m", **changes)
    async with await bascule.load(folder, tier="cpu", cache_dtype="f32") as model:
        assert isinstance(model, LanguageModel)
        logits = (await model.logits(golden.ids))[::STRIDE]
    assert bool(np.abs(logits - golden.logits).max() < 2e-3) == alike


@pytest.mark.parametrize(
    ("dtype", "expected"),
    [("f32", 3584**0.5), ("bf16", 59.75), ("f16", 59.875), ("q8_0", 3584**0.5)],
)
def test_a_factor_is_a_number_of_the_tables_type(dtype: Any, expected: float) -> None:
    """As torch rounds Gemma 2 9B's."""
    assert rounded_to(dtype, 3584**0.5) == expected


async def test_an_answer_loses_the_space_that_its_tokenizer_sets(tmp_path: Path) -> None:
    """A text that goes on keeps it: it stands between two words."""
    folder = build(BY_NAME["gemma2"], tmp_path / "m")
    controls = ("<pad>", "<eos>", "<bos>", "<unk>", "<end_of_turn>")
    makers = space_words(*controls, before="always")
    (folder / "tokenizer.json").write_text(makers.to_str())
    (folder / "chat_template.jinja").write_text("{{ messages[0]['content'] }}")
    space = {i for text, i in makers.get_vocab().items() if text.startswith("▁")}
    spaced = 0
    async with await bascule.load(folder, tier="cpu") as model:
        assert isinstance(model, LanguageModel)
        for prompt in "abcdefghijklmnopqrstuvwxyz0123456789":
            options: Any = {"max_new_tokens": 1, "temperature": 0}
            answer = await model.chat([{"role": "user", "content": prompt}], **options)
            text = await model.generate(prompt, **options)
            assert answer.ids == text.ids
            makers_text = makers.decode(answer.ids)
            # Of an unfinished character the makers' library may give another number of U+FFFD.
            assert answer.text == makers_text or "\ufffd" in makers_text
            first = bool(text.ids) and text.ids[0] in space
            assert text.text == " " * first + answer.text
            spaced += first
    assert spaced


async def test_a_window_that_is_null_is_none(tmp_path: Path) -> None:
    """A model that sees all tokens differs from one with a window from the first token outside."""
    case = BY_NAME["mistral"]
    golden = decoder_golden("mistral")
    folder = changed(case, tmp_path / "m", sliding_window=None)
    async with await bascule.load(folder, tier="cpu", cache_dtype="f32") as model:
        logits = (await model.logits(golden.ids))[::STRIDE]
    inside = [i * STRIDE < case.config["sliding_window"] for i in range(len(logits))]
    same = cosines(logits, golden.logits) > 0.99999
    assert list(same) == inside
