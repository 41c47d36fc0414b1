"""Full-size ViT-B/16 and CLIP ViT-B/32 with seeded random weights, as Hugging Face folders."""

from __future__ import annotations

import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
from safetensors.numpy import save_file

from bascule.models.clip import CLIP
from bascule.models.vit import VIT
from tests.goldens.image_text import build_tokenizer
from tests.goldens.vision import CLIP_MEAN, CLIP_STD

VIT_CONFIG: dict[str, Any] = {
    "model_type": "vit",
    "architectures": ["ViTForImageClassification"],
    **{"hidden_size": 768, "num_hidden_layers": 12, "num_attention_heads": 12},
    **{"intermediate_size": 3072, "image_size": 224, "patch_size": 16},
    "id2label": {str(i): f"kind {i}" for i in range(1000)},
}
# All of its sizes are those that a config.json leaves out.
CLIP_CONFIG: dict[str, Any] = {"model_type": "clip", "architectures": ["CLIPModel"]}
PROCESSING: dict[str, Any] = {
    **{"size": {"shortest_edge": 224}, "crop_size": 224, "resample": 3},
    **{"image_mean": CLIP_MEAN, "image_std": CLIP_STD},
}


def vit_folder(home: Path) -> Path:
    """Write ViT-B/16 at 224 with 1,000 labels, unless it is there: 86 million parameters."""
    tensors = [*VIT.tensors(VIT.config(VIT_CONFIG, "config.json"))]
    labels = [("classifier.weight", (1000, 768)), ("classifier.bias", (1000,))]
    return _folder(home / "vit-b-16", VIT_CONFIG, [*tensors, *labels])


def clip_folder(home: Path) -> Path:
    """Write CLIP ViT-B/32, unless it is there: 151 million parameters."""
    folder = home / "clip-vit-b-32"
    tensors = CLIP.tensors(CLIP.config(CLIP_CONFIG, "config.json"))
    _folder(folder, CLIP_CONFIG, [*tensors, ("logit_scale", ())])
    build_tokenizer().save(str(folder / "tokenizer.json"))
    return folder


def _folder(
    folder: Path, config: dict[str, Any], tensors: Iterable[tuple[str, tuple[int, ...]]]
) -> Path:
    weights = folder / "model.safetensors"
    if weights.exists():
        return folder
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "config.json").write_text(json.dumps(config))
    (folder / "preprocessor_config.json").write_text(json.dumps(PROCESSING))
    rng = np.random.default_rng(7)
    results = {name: _random(rng, name, shape) for name, shape in tensors}
    save_file(results, weights.with_suffix(".part"), {"format": "pt"})
    weights.with_suffix(".part").rename(weights)
    return folder


def _random(rng: np.random.Generator, name: str, shape: tuple[int, ...]) -> np.ndarray[Any, Any]:
    """Matrices that keep a row's size; scales of 1, biases of 0."""
    if len(shape) < 2:
        scale = 2.0 if not shape else float(name.endswith(".weight"))
        return np.full(shape, scale, np.float32)
    return rng.standard_normal(shape, np.float32) / np.float32(shape[1] ** 0.5)
