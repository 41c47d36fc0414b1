"""CLIP on every native tier, compared with transformers in float64."""

from __future__ import annotations

import json
import re
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

import bascule
from bascule import ImageTextModel
from bascule.errors import InputError, ModelFileError, UnsupportedModelError
from tests.goldens.image_text import DIMENSION, LABELS, POSITIONS, TEMPLATE, TEXTS, build_clip
from tests.goldens.vision import pictures

GOLDEN = np.load(Path(__file__).parents[1] / "goldens" / "image_text.npz")


@pytest.fixture(params=("webgpu", "wasm", "cpu"))
async def opened(request: pytest.FixtureRequest) -> AsyncIterator[bascule.Device]:
    result = await bascule.open_device(request.param)
    yield result
    result.close()


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build_clip(tmp_path_factory.mktemp("clip") / "m")


def cosines(a: np.ndarray[Any, Any], b: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    """Of rows, whose first have length 1 up to rounding."""
    assert np.allclose(np.linalg.norm(a, axis=1), 1, atol=1e-5)
    return (a * b).sum(1)


async def test_embeddings_and_probabilities_are_the_goldens(
    opened: bascule.Device, folder: Path
) -> None:
    async with await opened.load(folder) as model:
        assert isinstance(model, ImageTextModel)
        texts = await model.embed_text(TEXTS)
        assert cosines(texts, GOLDEN["clip_texts"]).min() > 0.99999
        assert texts.truncated == (4, 5)
        assert texts.n_tokens[5] == POSITIONS == model.max_tokens
        images = await model.embed_image(pictures(), batch_size=4)
        assert cosines(images, GOLDEN["clip_images"]).min() > 0.99999
        shares = GOLDEN["clip_shares"]
        result = await model.classify(pictures(), LABELS, template=TEMPLATE)
        for row, expected in zip(result, shares, strict=True):
            assert row.label == LABELS[expected.argmax()]
            got = [row.probabilities[label] for label in LABELS]
            assert np.allclose(got, expected, atol=2e-5)
            assert [*row.probabilities.values()] == sorted(got, reverse=True)
        (best,) = await model.classify(pictures()[0], LABELS, top_k=1)
        assert [*best.probabilities] == [LABELS[shares[0].argmax()]]
        assert model.stats["images"] == 13
        assert model.stats["texts"] == len(TEXTS) + 2 * len(LABELS)


async def test_a_text_ends_at_its_highest_id_in_older_folders(
    opened: bascule.Device, tmp_path: Path
) -> None:
    texts = [*TEXTS, "a cat<|more|> and a dog"]
    async with await opened.load(build_clip(tmp_path / "old", old=True)) as model:
        assert isinstance(model, ImageTextModel)
        assert cosines(await model.embed_text(texts), GOLDEN["clip_old_texts"]).min() > 0.99999


def in_two_files(folder: Path) -> Path:
    """Have a folder's tokenizer as a vocabulary and its merges, as folders of old have it."""
    model = json.loads((folder / "tokenizer.json").read_text())["model"]
    (folder / "tokenizer.json").unlink()
    (folder / "vocab.json").write_text(json.dumps(model["vocab"]))
    lines = ["#version: 0.2", *(" ".join(pair) for pair in model["merges"])]
    (folder / "merges.txt").write_text("\n".join(lines) + "\n")
    return folder


async def test_a_vocabulary_and_merges_are_the_same_tokenizer(folder: Path, tmp_path: Path) -> None:
    old = in_two_files(build_clip(tmp_path / "m"))
    texts = [
        *TEXTS,
        "It's  2 CATS, isn\u2019t it?\t\u00c9t\u00e9!",
        "<|startoftext|> a <|endoftext|>",
    ]
    rows: list[Any] = []
    ids: list[Any] = []
    for place in (folder, old):
        async with await bascule.load(place, tier="cpu") as model:
            assert isinstance(model, ImageTextModel)
            assert model.tokenizer.decode(model.tokenizer.encode("A cat")) == "a cat"
            rows.append(await model.embed_text(texts))
            tokenizer: Any = model._tokenizer  # pyright: ignore[reportPrivateUsage]
            ids.append([[*each] for each in tokenizer.encode(texts)])
    assert ids[0] == ids[1]
    assert np.array_equal(*rows)
    assert cosines(rows[1][: len(TEXTS)], GOLDEN["clip_texts"]).min() > 0.99999


@pytest.mark.parametrize(
    ("file", "text", "message"),
    [
        ("vocab.json", "[]", "not a JSON object"),
        ("vocab.json", '{"a": 0, "b": 0}', "ids are not 0 to 1"),
        ("vocab.json", '{"a": "0"}', "ids are not 0 to 0"),
        ("vocab.json", '{"a": 0}', "it has no <|startoftext|>"),
        ("merges.txt", "#version: 0.2\nt h e\n", "merge 0 .'t h e'. is not of two tokens"),
        ("merges.txt", "\u0117 \u0117\n", "is not of two tokens"),
        ("merges.txt", b"\xff\n", "not UTF-8"),
    ],
)
async def test_unsound_vocabularies_are_refused(
    tmp_path: Path, file: str, text: str | bytes, message: str
) -> None:
    place = in_two_files(build_clip(tmp_path / "m"))
    data = text if isinstance(text, bytes) else text.encode()
    (place / file).write_bytes(data)
    with pytest.raises(ModelFileError, match=re.escape(message).replace(r"\.", ".")):
        await bascule.load(place, tier="cpu")


async def test_one_of_the_two_files_alone_is_explained(tmp_path: Path) -> None:
    place = in_two_files(build_clip(tmp_path / "m"))
    (place / "merges.txt").unlink()
    with pytest.raises(UnsupportedModelError, match=r"its tokenizer is in vocab\.json alone"):
        await bascule.load(place, tier="cpu")


def test_it_runs_without_a_loop(folder: Path) -> None:
    model = bascule.sync(bascule.load(folder, tier="cpu"))
    assert isinstance(model, ImageTextModel)
    assert np.shape(bascule.sync(model.embed_text("a cat"))) == (1, DIMENSION)
    assert np.shape(bascule.sync(model.embed_image(pictures()[0]))) == (1, DIMENSION)
    assert np.shape(bascule.sync(model.embed_text([]))) == (0, DIMENSION)
    assert np.shape(bascule.sync(model.embed_image([]))) == (0, DIMENSION)
    model.close()


async def test_wrong_uses_are_refused(folder: Path) -> None:
    async with await bascule.load(folder, tier="cpu") as model:
        assert isinstance(model, ImageTextModel)
        image = pictures()[0]
        for labels in ([], ["a", "a"]):
            with pytest.raises(InputError, match="classify, labels"):
                await model.classify(image, labels)
        for template in ("a photo", 3):
            with pytest.raises(InputError, match="template"):
                await model.classify(image, ["a"], template=template)  # type: ignore[arg-type]
        with pytest.raises(InputError, match=r"text 1.*at most 19 tokens.*26"):
            await model.embed_text(["a", TEXTS[5]], truncate=False)
        with pytest.raises(InputError, match="truncate"):
            await model.embed_text("a", truncate=3)  # type: ignore[arg-type]
        with pytest.raises(InputError, match=r"embed_image, images\[0\]"):
            await model.embed_image(b"broken")
        with pytest.raises(InputError, match="top_k"):
            await model.classify(image, ["a"], top_k=0)
    with pytest.raises(InputError, match="closed"):
        await model.embed_text("a")


async def test_a_tuned_model_answers_as_before(folder: Path) -> None:
    async with await bascule.load(folder, tier="webgpu") as model:
        assert isinstance(model, ImageTextModel)
        await model.tune(0.05)
        assert cosines(await model.embed_text(TEXTS), GOLDEN["clip_texts"]).min() > 0.99999
        model.trim()  # its passes are made again
        assert cosines(await model.embed_image(pictures()), GOLDEN["clip_images"]).min() > 0.99999


CHANGES: list[tuple[dict[str, Any], type[Exception], str]] = [
    ({"architectures": ["CLIPVisionModel"]}, UnsupportedModelError, "CLIPModel"),
    ({"text_config": 3}, ModelFileError, "text_config"),
    ({"vision_config": []}, ModelFileError, "vision_config"),
    ({"projection_dim": 28}, ModelFileError, "projection"),
    ({"projection_dim": "x"}, ModelFileError, "projection_dim"),
    ({"text_config": {"eos_token_id": [2]}}, ModelFileError, "eos_token_id"),
    ({"text_config": {"hidden_size": 22}}, ModelFileError, "hidden_size"),
    ({"text_config": {"num_hidden_layers": 1}}, UnsupportedModelError, "layers.1"),
    ({"text_config": {"max_position_embeddings": 20}}, ModelFileError, "position_embedding"),
    ({"vision_config": {"patch_size": 25}}, ModelFileError, "patches"),
    ({"vision_config": {"hidden_act": "mish"}}, UnsupportedModelError, "mish"),
]


@pytest.mark.parametrize(("change", "error", "match"), CHANGES)
async def test_unsound_settings_are_refused(
    tmp_path: Path, folder: Path, change: dict[str, Any], error: type[Exception], match: str
) -> None:
    config = json.loads((folder / "config.json").read_text())
    for key, value in change.items():
        nested = {**config[key], **value} if isinstance(value, dict) else value
        config[key] = nested
    copy = copied(folder, tmp_path)
    (copy / "config.json").write_text(json.dumps(config))
    with pytest.raises(error, match=match):
        await bascule.load(copy, tier="cpu")


def copied(folder: Path, to: Path) -> Path:
    """A folder of links, whose files may be replaced."""
    for file in folder.iterdir():
        (to / file.name).write_bytes(file.read_bytes())
    return to


async def test_older_and_newer_layouts_answer_alike(tmp_path: Path, folder: Path) -> None:
    copy = copied(folder, tmp_path)
    config = json.loads((copy / "config.json").read_text())
    for name in ("text_config", "vision_config"):  # as transformers 4.20 wrote them
        config[f"{name}_dict"] = config.pop(name)
    (copy / "config.json").write_text(json.dumps(config))
    processing = json.loads((copy / "preprocessor_config.json").read_text())
    (copy / "preprocessor_config.json").unlink()
    tensors = load_file(copy / "model.safetensors")
    tensors["text_model.embeddings.position_ids"] = np.arange(POSITIONS)[None]
    tensors["logit_scale"] = tensors["logit_scale"].astype(np.float16)
    save_file(tensors, copy / "model.safetensors")
    for nested in (None, processing):
        if nested is not None:
            text = json.dumps({"image_processor": nested})
            (copy / "processor_config.json").write_text(text)
        async with await bascule.load(copy, tier="cpu") as model:
            assert isinstance(model, ImageTextModel)
            assert model.logit_scale == pytest.approx(np.exp(2.1), rel=1e-3)
            images = await model.embed_image(pictures())
            assert cosines(images, GOLDEN["clip_images"]).min() > 0.99999
    (copy / "processor_config.json").write_text('{"image_processor": 3}')
    with pytest.raises(ModelFileError, match="image_processor"):
        await bascule.load(copy, tier="cpu")


@pytest.mark.parametrize("scale", [np.float32(np.nan), np.float32(90), np.int32(3)])
async def test_an_unsound_scale_is_refused(tmp_path: Path, folder: Path, scale: Any) -> None:
    copy = copied(folder, tmp_path)
    tensors = load_file(copy / "model.safetensors")
    save_file({**tensors, "logit_scale": np.array(scale)}, copy / "model.safetensors")
    with pytest.raises(ModelFileError, match="logit_scale is"):
        await bascule.load(copy, tier="cpu")


async def test_quantized_weights_embed_nearly_alike(folder: Path) -> None:
    async with await bascule.load(folder, tier="cpu", quantize=8) as model:
        assert isinstance(model, ImageTextModel)
        assert cosines(await model.embed_text(TEXTS), GOLDEN["clip_texts"]).min() > 0.99
