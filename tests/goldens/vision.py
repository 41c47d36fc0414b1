"""Tiny vision models with random weights, as Hugging Face folders that a test writes anew."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
from safetensors.numpy import save_file
from tokenizers import Tokenizer, models

from tests.goldens.families import Case, Tensors

C, INNER, IMAGE, PATCH, LABELS = 32, 48, 24, 6, 7
PLACES = (IMAGE // PATCH) ** 2 + 1
VIT: dict[str, Any] = {
    "model_type": "vit",
    "architectures": ["ViTForImageClassification"],
    "hidden_size": C,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "intermediate_size": INNER,
    "hidden_act": "gelu",
    "image_size": IMAGE,
    "patch_size": PATCH,
    "layer_norm_eps": 1e-12,
    "id2label": {str(i): f"kind {i}" for i in range(LABELS)},
    "label2id": {f"kind {i}": i for i in range(LABELS)},
}
VIT_PROCESSING: dict[str, Any] = {
    "image_processor_type": "ViTImageProcessor",
    "do_resize": True,
    "size": {"height": IMAGE, "width": IMAGE},
    "resample": 2,
    "do_rescale": True,
    "rescale_factor": 1 / 255,
    "do_normalize": True,
    "image_mean": [0.5, 0.4, 0.6],
    "image_std": [0.5, 0.25, 0.3],
}
# Stored for images of 42 pixels, 7 x 7 patches.
DINO: dict[str, Any] = {
    "model_type": "dinov2",
    "architectures": ["Dinov2ForImageClassification"],
    "hidden_size": C,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "mlp_ratio": 2,
    "hidden_act": "gelu",
    "image_size": 42,
    "patch_size": PATCH,
    "layer_norm_eps": 1e-6,
    "use_swiglu_ffn": False,
    **{key: VIT[key] for key in ("id2label", "label2id")},
}
# The pixels that positions are stored for: more than are seen, as many, fewer.
DINO_SIZES = (42, IMAGE, 18)
# Patches along an edge: of DINOv2's table and of images of 224 pixels, more of them, one.
BICUBICS = ((37, 16), (16, 37), (4, 1))
CLIP_MEAN = [0.48145466, 0.4578275, 0.40821073]
CLIP_STD = [0.26862954, 0.26130258, 0.27577711]


def clip_processing(shortest: int) -> dict[str, Any]:
    """CLIP's settings: the shorter edge becomes `shortest` by a bicubic, the middle is taken."""
    return {
        "image_processor_type": "CLIPImageProcessor",
        "do_convert_rgb": True,
        "do_resize": True,
        "size": {"shortest_edge": shortest},
        "resample": 3,
        "do_center_crop": True,
        "crop_size": {"height": IMAGE, "width": IMAGE},
        "do_rescale": True,
        "rescale_factor": 1 / 255,
        "do_normalize": True,
        "image_mean": CLIP_MEAN,
        "image_std": CLIP_STD,
    }


# The shorter edge: as long as the crop, longer by an odd number, shorter (black around it).
CLIP_EDGES = (IMAGE, IMAGE + 5, IMAGE - 3)
# Height and width: odd, smaller than the target, one row, one column, just right.
SIZES = ((37, 61), (9, 11), (1, 40), (40, 1), (IMAGE, IMAGE), (130, 47))


def pictures() -> list[np.ndarray[Any, Any]]:
    """Pictures (H, W, 3) uint8 of all sizes: smooth, with edges and noise."""
    rng = np.random.default_rng(5)
    made: list[np.ndarray[Any, Any]] = []
    for height, width in SIZES:
        y, x = np.mgrid[0:height, 0:width]
        wave = np.stack([np.sin(x / 5 + i) + np.cos(y / (3 + i)) for i in range(3)], -1)
        edges = 60 * ((x // 7 + y // 5) % 2)[..., None]
        noise = rng.integers(0, 40, (height, width, 3))
        made.append((70 + 40 * wave + edges + noise).clip(0, 255).astype(np.uint8))
    return made


def _vit(made: Tensors, prefix: str, *, head: bool) -> None:
    add = made.found
    rng = np.random.default_rng(17)
    tokens = f"{prefix}embeddings"
    add[f"{tokens}.cls_token"] = rng.standard_normal((1, 1, C)).astype(np.float32)
    add[f"{tokens}.position_embeddings"] = rng.standard_normal((1, PLACES, C)).astype(np.float32)
    name = f"{tokens}.patch_embeddings.projection"
    made.linear(name, C, 3 * PATCH**2)
    add[f"{name}.weight"] = add[f"{name}.weight"].reshape(C, 3, PATCH, PATCH)
    for layer in range(made.config["num_hidden_layers"]):
        at = f"{prefix}encoder.layer.{layer}"
        made.norm(f"{at}.layernorm_before", C, bias=True)
        for part in ("query", "key", "value"):
            made.linear(f"{at}.attention.attention.{part}", C, C)
        made.linear(f"{at}.attention.output.dense", C, C)
        made.norm(f"{at}.layernorm_after", C, bias=True)
        made.linear(f"{at}.intermediate.dense", INNER, C)
        made.linear(f"{at}.output.dense", C, INNER)
    made.norm(f"{prefix}layernorm", C, bias=True)
    if head:
        made.linear("classifier", LABELS, C)
    else:
        made.linear("pooler.dense", C, C)


def _dinov2(made: Tensors, prefix: str, *, head: bool) -> None:
    add, config = made.found, made.config
    rng = np.random.default_rng(23)
    tokens = f"{prefix}embeddings"
    table = (1, (config["image_size"] // PATCH) ** 2 + 1, C)
    for name, shape in (("cls_token", (1, 1, C)), ("mask_token", (1, C))):
        add[f"{tokens}.{name}"] = rng.standard_normal(shape).astype(np.float32)
    add[f"{tokens}.position_embeddings"] = rng.standard_normal(table).astype(np.float32)
    name = f"{tokens}.patch_embeddings.projection"
    made.linear(name, C, 3 * PATCH**2)
    add[f"{name}.weight"] = add[f"{name}.weight"].reshape(C, 3, PATCH, PATCH)
    inner = config["mlp_ratio"] * C
    for layer in range(config["num_hidden_layers"]):
        at = f"{prefix}encoder.layer.{layer}"
        made.norm(f"{at}.norm1", C, bias=True)
        for part in ("query", "key", "value"):
            made.linear(f"{at}.attention.attention.{part}", C, C)
        made.linear(f"{at}.attention.output.dense", C, C)
        made.norm(f"{at}.norm2", C, bias=True)
        made.linear(f"{at}.mlp.fc1", inner, C)
        made.linear(f"{at}.mlp.fc2", C, inner)
        for part in ("layer_scale1", "layer_scale2"):
            add[f"{at}.{part}.lambda1"] = rng.standard_normal(C).astype(np.float32)
    made.norm(f"{prefix}layernorm", C, bias=True)
    if head:
        made.linear("classifier", LABELS, 2 * C)


def build_dinov2(folder: Path, *, head: bool = True, **changes: Any) -> Path:
    """Write a classifier's folder, or that of the encoder alone, which sees 24 x 24 pixels."""
    architecture = "Dinov2ForImageClassification" if head else "Dinov2Model"
    config = {**DINO, "architectures": [architecture], **changes}
    made = Tensors(Case("dinov2", config, lambda _: None, _unused, seed=29))
    _dinov2(made, "dinov2." if head else "", head=head)
    processing = {**clip_processing(IMAGE + 5), "image_processor_type": "BitImageProcessor"}
    return write(folder, config, processing, made.found)


def build_vit(folder: Path, *, head: bool = True, **changes: Any) -> Path:
    """Write a classifier's folder, or that of the encoder alone."""
    architecture = "ViTForImageClassification" if head else "ViTModel"
    config = {**VIT, "architectures": [architecture], **changes}
    made = Tensors(Case("vit", config, lambda _: None, _unused, seed=3))
    _vit(made, "vit." if head else "", head=head)
    return write(folder, config, VIT_PROCESSING, made.found)


def write(
    folder: Path,
    config: dict[str, Any],
    processing: dict[str, Any],
    tensors: dict[str, np.ndarray[Any, Any]],
) -> Path:
    """Write a folder's files."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "config.json").write_text(json.dumps(config))
    (folder / "preprocessor_config.json").write_text(json.dumps(processing))
    save_file(tensors, folder / "model.safetensors", {"format": "pt"})
    return folder


def _unused() -> Tokenizer:
    return Tokenizer(models.BPE())
