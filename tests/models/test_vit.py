"""ViT on every native tier, compared with transformers in float64."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

import bascule
from bascule import ImageModel
from bascule.errors import InputError, ModelFileError, UnsupportedModelError
from tests.goldens.vision import LABELS, build_vit, pictures

GOLDEN = np.load(Path(__file__).parents[1] / "goldens" / "vision.npz")


def cosines(a: np.ndarray[Any, Any], b: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    return (a * b).sum(1) / np.linalg.norm(a, axis=1) / np.linalg.norm(b, axis=1)


@pytest.fixture(params=("webgpu", "wasm", "cpu"))
async def opened(request: pytest.FixtureRequest) -> AsyncIterator[bascule.Device]:
    result = await bascule.open_device(request.param)
    yield result
    result.close()


async def test_logits_and_features_are_the_goldens(opened: bascule.Device, tmp_path: Path) -> None:
    async with await opened.load(build_vit(tmp_path / "head")) as model:
        assert isinstance(model, ImageModel)
        expected = GOLDEN["vit_logits"]
        # Six pictures are passes of four and of two.
        result = await model.logits(pictures())
        assert np.abs(result - expected).max() < 1e-5 * np.abs(expected).max()
        alone = await model.classify(pictures()[3], top_k=3)
        shares = np.exp(expected[3]) / np.exp(expected[3]).sum()
        best = np.argsort(-shares)[:3]
        assert alone[0].label == f"kind {best[0]}"
        assert [*alone[0].probabilities] == [f"kind {at}" for at in best]
        assert np.allclose([*alone[0].probabilities.values()], shares[best], atol=1e-5)
        assert model.stats["images"] == 7
        assert model.stats["image_passes"] == 3
    async with await opened.load(build_vit(tmp_path / "bare", head=False)) as model:
        assert isinstance(model, ImageModel)
        assert model.labels == ()
        states = GOLDEN["vit_states"]
        done: list[tuple[int, int]] = []
        options: Any = {"batch_size": 2, "progress": lambda *each: done.append(each)}
        result = await model.embed(pictures(), **options)
        assert done == [(2, 6), (4, 6), (6, 6)]
        assert cosines(result, states[:, 0]).min() > 0.99999
        means = await model.embed(pictures(), pooling="mean", normalize=True)
        assert cosines(means, states[:, 1:].mean(1)).min() > 0.99999
        assert np.allclose(np.linalg.norm(means, axis=1), 1)
        assert (await model.embed([])).shape == (0, model.dimension)


async def test_wrong_uses_are_refused(tmp_path: Path) -> None:
    async with await bascule.load(build_vit(tmp_path / "m", head=False), tier="cpu") as model:
        assert isinstance(model, ImageModel)
        with pytest.raises(InputError, match="labels"):
            await model.classify(pictures())
        with pytest.raises(InputError, match="labels"):
            await model.logits(pictures())
        with pytest.raises(InputError, match="pooling"):
            await model.embed(pictures(), pooling="max")  # pyright: ignore[reportArgumentType]
        with pytest.raises(InputError, match=r"embed, images\[1\]"):
            await model.embed([pictures()[0], b"broken"])
        with pytest.raises(InputError, match="a path"):
            await model.embed({"a": 1})
    with pytest.raises(InputError, match="closed"):
        await model.embed(pictures())


async def test_a_tuned_model_answers_as_before(tmp_path: Path) -> None:
    async with await bascule.load(build_vit(tmp_path / "m"), tier="webgpu") as model:
        assert isinstance(model, ImageModel)
        await model.tune(0.05)
        assert cosines(await model.logits(pictures()), GOLDEN["vit_logits"]).min() > 0.99999
        model.trim()  # its passes are made again
        assert cosines(await model.logits(pictures()), GOLDEN["vit_logits"]).min() > 0.99999


async def test_quantized_weights_classify_nearly_alike(tmp_path: Path) -> None:
    folder = build_vit(tmp_path / "m")
    async with await bascule.load(folder, tier="cpu", quantize=8) as model:
        assert isinstance(model, ImageModel)
        assert model.quantization is not None
        assert cosines(await model.logits(pictures()), GOLDEN["vit_logits"]).min() > 0.99


def unsound(folder: Path, change: dict[str, Any]) -> Path:
    """A sound folder with another config.json."""
    config = build_vit(folder) / "config.json"
    config.write_text(json.dumps({**json.loads(config.read_text()), **change}))
    return folder


@pytest.mark.parametrize(
    ("change", "error"),
    [
        ({"hidden_size": 33}, ModelFileError),
        ({"image_size": 25}, ModelFileError),
        ({"image_size": 30}, ModelFileError),  # of other positions
        ({"num_hidden_layers": 1}, UnsupportedModelError),
        ({"num_hidden_layers": 3}, ModelFileError),
        ({"num_channels": 1}, UnsupportedModelError),
        ({"qkv_bias": False}, UnsupportedModelError),
        ({"hidden_act": "mish"}, UnsupportedModelError),
        ({"hidden_act": 3}, ModelFileError),
        ({"architectures": ["ViTForMaskedImageModeling"]}, UnsupportedModelError),
        ({"architectures": [3]}, UnsupportedModelError),
    ],
)
async def test_unsound_settings_are_refused(
    tmp_path: Path, change: dict[str, Any], error: type[Exception]
) -> None:
    with pytest.raises(error):
        await bascule.load(unsound(tmp_path / "m", change), tier="cpu")


async def test_a_folder_without_architectures_or_processing_is_known_by_its_tensors(
    tmp_path: Path,
) -> None:
    folder = build_vit(tmp_path / "m", architectures=None)
    (folder / "preprocessor_config.json").unlink()
    async with await bascule.load(folder, tier="cpu") as model:
        assert isinstance(model, ImageModel)
        assert len(model.labels) == LABELS
    tensors = load_file(folder / "model.safetensors")
    tensors["vit.encoder.layer.0.lora"] = np.zeros(3, np.float32)
    save_file(tensors, folder / "model.safetensors")
    with pytest.raises(UnsupportedModelError, match="lora"):
        await bascule.load(folder, tier="cpu")
    (folder / "preprocessor_config.json").write_text(json.dumps([1]))
    with pytest.raises((ModelFileError, UnsupportedModelError)):
        await bascule.load(folder, tier="cpu")
