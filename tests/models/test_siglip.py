"""SigLIP on every native tier, compared with transformers in float64."""

from __future__ import annotations

import json
import shutil
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

import bascule
from bascule import ImageTextModel
from bascule.errors import ModelFileError, UnsupportedModelError
from bascule.text.pretokenizers import known_replaced
from tests.goldens.siglip import (
    BIAS,
    FILE,
    LABELS,
    POSITIONS,
    SCALE,
    TEMPLATE,
    TEXTS,
    build_siglip,
)
from tests.goldens.vision import pictures

GOLDEN = np.load(Path(__file__).parents[1] / "goldens" / "siglip.npz")


@pytest.fixture(params=("webgpu", "wasm", "cpu"))
async def opened(request: pytest.FixtureRequest) -> AsyncIterator[bascule.Device]:
    result = await bascule.open_device(request.param)
    yield result
    result.close()


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build_siglip(tmp_path_factory.mktemp("siglip") / "m")


def cosines(a: np.ndarray[Any, Any], b: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    """Of rows, whose first have length 1 up to rounding."""
    assert np.allclose(np.linalg.norm(a, axis=1), 1, atol=1e-5)
    return (a * b).sum(1)


async def test_embeddings_and_probabilities_are_the_goldens(
    opened: bascule.Device, folder: Path
) -> None:
    async with await opened.load(folder) as model:
        assert isinstance(model, ImageTextModel)
        assert (model.logit_scale, model.logit_bias) == pytest.approx((np.exp(SCALE), BIAS))
        texts = await model.embed_text(TEXTS)
        assert cosines(texts, GOLDEN["texts"]).min() > 0.99999
        assert texts.truncated == (6,)
        assert texts.n_tokens[6] == POSITIONS == model.max_tokens
        images = await model.embed_image(pictures(), batch_size=4)
        assert cosines(images, GOLDEN["images"]).min() > 0.99999
        result = await model.classify(pictures(), LABELS, template=TEMPLATE)
        for row, expected in zip(result, GOLDEN["shares"], strict=True):
            got = [row.probabilities[label] for label in LABELS]
            assert np.allclose(got, expected, atol=2e-5)  # of each label by itself
            assert row.label == LABELS[expected.argmax()]


async def test_texts_have_the_ids_of_siglip_s_own_tokenizer(folder: Path) -> None:
    expected = json.loads(FILE.read_text())["ids"]
    async with await bascule.load(folder, tier="cpu") as model:
        assert isinstance(model, ImageTextModel)
        assert [model.tokenizer.encode(text) for text in TEXTS] == expected
        assert model.tokenizer.encode(" \n a photo of a cat") == expected[0]


async def test_a_tokenizer_that_does_so_itself_gives_the_same_ids(
    folder: Path, tmp_path: Path
) -> None:
    copy = Path(shutil.copytree(folder, tmp_path / "m"))
    config = json.loads((copy / "tokenizer.json").read_text())
    punctuation = "[\\!\"\\#\\$%\\&'\\(\\)\\*\\+,\\-./:;<=>?@\\[\\\\\\]\\^_`\\{\\|\\}\\~]"
    config["normalizer"] = {
        "type": "Sequence",
        "normalizers": [
            {"type": "Lowercase"},
            {"type": "Replace", "pattern": {"Regex": punctuation}, "content": ""},
            {"type": "Replace", "pattern": {"Regex": r"\s+"}, "content": " "},
            {"type": "Strip", "strip_left": True, "strip_right": True},
        ],
    }
    (copy / "tokenizer.json").write_text(json.dumps(config))
    async with await bascule.load(copy, tier="cpu") as model:
        assert isinstance(model, ImageTextModel)
        expected = json.loads(FILE.read_text())["ids"]
        assert [model.tokenizer.encode(text) for text in TEXTS] == expected


@pytest.mark.parametrize(
    "written", ["[]", "[a]", "[!", "[!-/]", "[[]", "[^!]", "[!]+", r"[\d]", "[\\]"]
)
def test_only_classes_of_punctuation_alone_are_let_through(written: str) -> None:
    assert known_replaced(written) is None


async def test_the_pipeline_gives_the_goldens(folder: Path) -> None:
    async with await bascule.pipeline("zero-shot-image-classification", str(folder)) as pipe:
        result: Any = await pipe(pictures()[:2], candidate_labels=list(LABELS))
    for row, expected in zip(result, GOLDEN["shares"], strict=False):
        scores = {each["label"]: each["score"] for each in row}
        assert [scores[label] for label in LABELS] == pytest.approx([*expected], abs=2e-5)


async def test_settings_may_be_absent(folder: Path, tmp_path: Path) -> None:
    copy = Path(shutil.copytree(folder, tmp_path / "m"))
    (copy / "preprocessor_config.json").unlink()
    async with await bascule.load(copy, tier="cpu") as model:
        assert isinstance(model, ImageTextModel)
        images = await model.embed_image(pictures())
        assert cosines(images, GOLDEN["images"]).min() > 0.99999


async def test_quantized_weights_embed_nearly_alike(folder: Path) -> None:
    async with await bascule.load(folder, tier="cpu", quantize=8) as model:
        assert isinstance(model, ImageTextModel)
        assert cosines(await model.embed_text(TEXTS), GOLDEN["texts"]).min() > 0.99
        assert cosines(await model.embed_image(pictures()), GOLDEN["images"]).min() > 0.99


async def test_a_tuned_and_a_prepared_model_answer_as_before(folder: Path) -> None:
    async with await bascule.load(folder, tier="webgpu") as model:
        assert isinstance(model, ImageTextModel)
        await model.prepare(1, 4)  # texts are padded: the bucket of all tokens
        before = model.stats["planned_nbytes"]
        await model.embed_text("a cat")
        assert model.stats["planned_nbytes"] == before
        await model.tune(0.05)
        assert cosines(await model.embed_text(TEXTS), GOLDEN["texts"]).min() > 0.99999


async def test_a_folder_of_spiece_model_alone_says_what_is_missing(
    folder: Path, tmp_path: Path
) -> None:
    copy = Path(shutil.copytree(folder, tmp_path / "m"))
    (copy / "tokenizer.json").rename(copy / "spiece.model")
    with pytest.raises(UnsupportedModelError, match=r"spiece\.model alone") as raised:
        await bascule.load(copy, tier="cpu")
    assert "T5Tokenizer.from_pretrained" in str(raised.value)


async def test_the_tokenizer_of_siglip_2_is_refused_by_name(folder: Path, tmp_path: Path) -> None:
    copy = Path(shutil.copytree(folder, tmp_path / "m"))
    config = json.loads((copy / "tokenizer.json").read_text())
    config["model"] = {"type": "BPE", "vocab": {"a": 0}, "merges": []}
    (copy / "tokenizer.json").write_text(json.dumps(config))
    with pytest.raises(UnsupportedModelError, match="SigLIP 2"):
        await bascule.load(copy, tier="cpu")


CHANGES: list[tuple[dict[str, Any], type[Exception], str]] = [
    ({"model_type": "siglip2"}, UnsupportedModelError, "siglip2"),  # NaFlex
    ({"architectures": ["SiglipForImageClassification"]}, UnsupportedModelError, "SiglipModel"),
    ({"text_config": 3}, ModelFileError, "text_config"),
    ({"vision_config": []}, ModelFileError, "vision_config"),
    ({"vision_config": {"vision_use_head": False}}, UnsupportedModelError, "vision_use_head"),
    ({"vision_config": {"patch_size": 25}}, ModelFileError, "patches"),
    ({"vision_config": {"hidden_act": "mish"}}, UnsupportedModelError, "mish"),
    ({"text_config": {"projection_size": 35}}, ModelFileError, "projection_size"),
    ({"text_config": {"pad_token_id": 4_000}}, ModelFileError, "pad_token_id"),
    ({"text_config": {"pad_token_id": -1}}, ModelFileError, "pad_token_id"),
    ({"text_config": {"max_position_embeddings": 20}}, ModelFileError, "position_embedding"),
    ({"text_config": {"num_hidden_layers": 1}}, UnsupportedModelError, "layers.1"),
]


@pytest.mark.parametrize(("change", "error", "match"), CHANGES)
async def test_unsound_settings_are_refused(
    tmp_path: Path, folder: Path, change: dict[str, Any], error: type[Exception], match: str
) -> None:
    copy = Path(shutil.copytree(folder, tmp_path / "m"))
    config = json.loads((copy / "config.json").read_text())
    for key, value in change.items():
        config[key] = {**config[key], **value} if isinstance(value, dict) else value
    (copy / "config.json").write_text(json.dumps(config))
    with pytest.raises(error, match=match):
        await bascule.load(copy, tier="cpu")


@pytest.mark.parametrize("bias", [np.float32(np.nan), np.float32(1e5), np.int32(3)])
async def test_an_unsound_bias_is_refused(tmp_path: Path, folder: Path, bias: Any) -> None:
    copy = Path(shutil.copytree(folder, tmp_path / "m"))
    tensors = load_file(copy / "model.safetensors")
    save_file({**tensors, "logit_bias": np.array([bias])}, copy / "model.safetensors")
    with pytest.raises(ModelFileError, match="logit_bias is"):
        await bascule.load(copy, tier="cpu")
