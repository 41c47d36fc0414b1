"""ViT (Dosovitskiy et al. 2020): an image as a sequence of patches."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from bascule.models.family import ImageFamily
from bascule.models.image.config import ImageConfig, read_layers, read_patches
from bascule.models.image.encoder import PlainEncoder
from bascule.models.image.graph import LayerNames

_CLASSIFIERS = ("ViTForImageClassification",)
_ENCODER = PlainEncoder(
    LayerNames(
        layer="encoder.layer.{}",
        before="layernorm_before",
        query="attention.attention.query",
        key="attention.attention.key",
        value="attention.attention.value",
        mixed="attention.output.dense",
        after="layernorm_after",
        up="intermediate.dense",
        down="output.dense",
    ),
    (*_CLASSIFIERS, "ViTModel"),
)


def read_config(config: Mapping[str, Any], file: str) -> ImageConfig:
    """Check and read a config.json; errors as `EncoderFamily.config`."""
    read = _ENCODER.checked(config, file)
    return ImageConfig(read_layers(read, config, "gelu"), read_patches(read))


VIT = ImageFamily(
    name="vit",
    examples="such as vit-base-patch16-224",
    model_types=("vit",),
    tensor_name=str,
    prefixes=("vit.",),
    ignored=re.compile(r"pooler\.dense\..*|embeddings\.mask_token"),
    config=read_config,
    tensors=_ENCODER.tensors,
    phases={"image": _ENCODER.record},
    labels="classifier",
    classifiers=_CLASSIFIERS,
)
