"""DINOv2 (Oquab et al. 2023): features of images; a ViT whose layers scale what they add."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from bascule.models.family import ImageFamily
from bascule.models.image.config import ImageConfig, read_layers, read_patches
from bascule.models.image.encoder import PlainEncoder
from bascule.models.image.graph import LayerNames

_CLASSIFIERS = ("Dinov2ForImageClassification",)
_ENCODER = PlainEncoder(
    LayerNames(
        layer="encoder.layer.{}",
        before="norm1",
        query="attention.attention.query",
        key="attention.attention.key",
        value="attention.attention.value",
        mixed="attention.output.dense",
        after="norm2",
        up="mlp.fc1",
        down="mlp.fc2",
        mixed_scale="layer_scale1.lambda1",
        down_scale="layer_scale2.lambda1",
    ),
    (*_CLASSIFIERS, "Dinov2Model"),
)
_PATCH = 14  # transformers' default
_MAX_RATIO = 64  # of the feed-forward part's size and the hidden size


def read_config(config: Mapping[str, Any], file: str) -> ImageConfig:
    """Check and read a config.json; errors as `EncoderFamily.config`."""
    read = _ENCODER.checked(config, file)
    read.expect({"use_swiglu_ffn": False})
    inner = read.size("hidden_size") * read.size("mlp_ratio", 4, _MAX_RATIO)
    layers = read_layers(read, config, "gelu", inner=inner, eps=1e-6)
    return ImageConfig(layers, read_patches(read, _PATCH))


DINO_V2 = ImageFamily(
    name="dinov2",
    examples="such as dinov2-small",
    model_types=("dinov2",),
    tensor_name=str,
    prefixes=("dinov2.",),
    ignored=re.compile(r"embeddings\.mask_token"),
    config=read_config,
    tensors=_ENCODER.tensors,
    phases={"image": _ENCODER.record},
    labels="classifier",
    classifiers=_CLASSIFIERS,
    labels_of_means=True,
    any_size=True,
)
