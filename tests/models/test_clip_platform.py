"""CLIP behind the names that the seeds use: a platform, and a loader of components."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

import bascule
from bascule.errors import InputError, ModelFileError, UnsupportedModelError
from tests.goldens.image_text import TEXTS, build_clip
from tests.goldens.vision import LABELS, build_vit, pictures

GOLDEN = np.load(Path(__file__).parents[1] / "goldens" / "image_text.npz")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build_clip(tmp_path_factory.mktemp("clip") / "m")


async def test_a_platform_runs_images_texts_and_both(folder: Path) -> None:
    platform = bascule.UnifiedWebPlatform(str(folder), model_type="multimodal", platform="cpu")
    texts, images = list(TEXTS[:3]), pictures()[:2]
    result = await platform.run_inference({"input_text": texts, "image": images})
    assert np.allclose(result["text_embeddings"], GOLDEN["clip_texts"][:3], atol=1e-5)
    assert np.allclose(result["image_embeddings"], GOLDEN["clip_images"][:2], atol=1e-5)
    logits = np.exp(2.1) * GOLDEN["clip_images"][:2] @ GOLDEN["clip_texts"][:3].T
    shares = np.exp(logits) / np.exp(logits).sum(1, keepdims=True)
    assert np.allclose(result["probabilities"], shares, atol=1e-5)
    assert result["tier"] == "cpu"
    alone = await platform.run_inference({"image": images[0]})
    assert {"image_embeddings", "ms"} <= alone.keys()
    assert not {"text_embeddings", "probabilities"} & alone.keys()
    with pytest.raises(InputError, match="'input_text' or 'image'"):
        await platform.run_inference({"text": texts})
    platform.close()
    platform = bascule.UnifiedWebPlatform(str(folder), model_type="vision", platform="cpu")
    with pytest.raises(UnsupportedModelError, match="ImageTextModel, and model_type is 'vision'"):
        await platform.load_model()


async def test_a_platform_labels_or_embeds_images(tmp_path: Path) -> None:
    for head, key in ((True, "labels"), (False, "embeddings")):
        model = str(build_vit(tmp_path / key, head=head))
        platform = bascule.UnifiedWebPlatform(model, model_type="vision", platform="cpu")
        result = await platform.run_inference({"image": pictures()[:2]})
        assert len(result[key]) == 2
        if head:
            assert len(result["classifications"][0].probabilities) == min(5, LABELS)
        with pytest.raises(InputError, match="'image'"):
            await platform.run_inference({"input_text": "a"})
        platform.close()


async def test_components_of_one_folder_are_loaded_once(folder: Path) -> None:
    names = ["vision_encoder", "text_encoder"]
    loader = bascule.ParallelMultimodalLoader(str(folder), components=names, tier="cpu")
    heard: list[tuple[str, float, float]] = []
    loader.register_progress_callback(lambda *each: heard.append(each))
    async with await loader.load_parallel() as model:
        assert list(model) == names
        both = model["text_encoder"]
        assert isinstance(both, bascule.ImageTextModel)
        assert both is model["vision_encoder"]
        rows = await both.embed_text(TEXTS)
        assert (rows * GOLDEN["clip_texts"]).sum(1).min() > 0.99999
    assert heard[-1][1:] == (100, 100)
    assert {name for name, _, _ in heard} == set(names)
    assert loader.percent == 100


async def test_a_folder_that_cannot_load_frees_its_device(tmp_path: Path) -> None:
    broken = build_clip(tmp_path / "m")
    (broken / "tokenizer.json").write_text("{}")
    names = ["vision_encoder", "text_encoder"]
    with pytest.raises(ModelFileError, match=r"tokenizer\.json"):
        await bascule.ParallelMultimodalLoader(broken, components=names, tier="cpu").load_parallel()
