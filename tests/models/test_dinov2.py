"""DINOv2 on every native tier, compared with transformers in float64."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import bascule
from bascule import ImageModel
from bascule.errors import ModelFileError, UnsupportedModelError
from bascule.models.image.bicubic import bicubic
from tests.goldens.vision import BICUBICS, DINO_SIZES, build_dinov2, pictures

GOLDEN = np.load(Path(__file__).parents[1] / "goldens" / "vision.npz")


def cosines(a: np.ndarray[Any, Any], b: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    return (a * b).sum(1) / np.linalg.norm(a, axis=1) / np.linalg.norm(b, axis=1)


@pytest.fixture(params=("webgpu", "wasm", "cpu"))
async def opened(request: pytest.FixtureRequest) -> AsyncIterator[bascule.Device]:
    result = await bascule.open_device(request.param)
    yield result
    result.close()


@pytest.mark.parametrize("stored", DINO_SIZES)
async def test_logits_and_features_are_the_goldens(
    opened: bascule.Device, tmp_path: Path, stored: int
) -> None:
    async with await opened.load(build_dinov2(tmp_path / "head", image_size=stored)) as model:
        assert isinstance(model, ImageModel)
        expected = GOLDEN[f"dinov2_logits_{stored}"]
        result = await model.logits(pictures())
        assert np.abs(result - expected).max() < 1e-5 * np.abs(expected).max()
        named = await model.classify(pictures())
        assert [each.label for each in named] == [f"kind {at}" for at in expected.argmax(1)]
    folder = build_dinov2(tmp_path / "bare", head=False, image_size=stored)
    async with await opened.load(folder) as model:
        assert isinstance(model, ImageModel)
        states = GOLDEN[f"dinov2_states_{stored}"]
        result = await model.embed(pictures())
        assert cosines(result, states[:, 0]).min() > 0.99999
        means = await model.embed(pictures(), pooling="mean")
        assert cosines(means, states[:, 1:].mean(1)).min() > 0.99999


@pytest.mark.parametrize(("n", "wanted"), BICUBICS)
def test_the_cubic_is_torch_s(n: int, wanted: int) -> None:
    weights = np.array(bicubic(n, wanted)).reshape(wanted, n)
    assert np.abs(weights - GOLDEN[f"bicubic_{n}_{wanted}"]).max() < 1e-6


def test_a_cubic_keeps_constants_and_as_many_numbers_as_they_are() -> None:
    for n, wanted in ((37, 16), (3, 8), (1, 4), (4, 1)):
        weights = np.array(bicubic(n, wanted)).reshape(wanted, n)
        assert np.allclose(weights.sum(1), 1)
    assert np.array_equal(np.array(bicubic(5, 5)).reshape(5, 5), np.eye(5))


@pytest.mark.parametrize(
    ("change", "error", "said"),
    [
        ({"use_swiglu_ffn": True}, UnsupportedModelError, "use_swiglu_ffn"),
        ({"mlp_ratio": 0}, ModelFileError, "mlp_ratio"),
        ({"mlp_ratio": 2.5}, ModelFileError, "mlp_ratio"),
        ({"mlp_ratio": 3}, ModelFileError, "fc1"),
        ({"patch_size": None}, ModelFileError, r"makes it \[32, 588\]"),  # of 14 x 14 pixels
        ({"image_size": 48}, ModelFileError, "position_embeddings"),
        ({"architectures": ["Dinov2Backbone"]}, UnsupportedModelError, "Dinov2Backbone"),
    ],
)
async def test_unsound_settings_are_refused(
    tmp_path: Path, change: dict[str, Any], error: type[Exception], said: str
) -> None:
    config = build_dinov2(tmp_path / "m") / "config.json"
    config.write_text(json.dumps({**json.loads(config.read_text()), **change}))
    with pytest.raises(error, match=said):
        await bascule.load(tmp_path / "m", tier="cpu")


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"crop_size": {"height": 24, "width": 18}}, "24 x 18"),
        ({"do_center_crop": False}, "any size"),
        ({"crop_size": 5}, "5 x 5 pixels are not 1 to"),
    ],
)
async def test_processing_that_makes_no_squares_is_refused(
    tmp_path: Path, change: dict[str, Any], said: str
) -> None:
    file = build_dinov2(tmp_path / "m") / "preprocessor_config.json"
    file.write_text(json.dumps({**json.loads(file.read_text()), **change}))
    with pytest.raises(ModelFileError, match=said):
        await bascule.load(tmp_path / "m", tier="cpu")
