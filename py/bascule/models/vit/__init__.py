"""ViT (Dosovitskiy et al. 2020): an image as a sequence of patches."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import Any

from bascule.errors import UnsupportedModelError
from bascule.models.family import ImageFamily
from bascule.models.image.config import ImageConfig, read_layers, read_patches
from bascule.models.image.files import Sizes, layer_tensors, norm_tensors, patch_tensors
from bascule.models.image.graph import LayerNames, Layers, Seeing
from bascule.models.settings import Settings
from bascule.program.program import Value

_CLASSIFIERS = ("ViTForImageClassification",)
_ARCHITECTURES = (*_CLASSIFIERS, "ViTModel")
_NAMES = LayerNames(
    layer="encoder.layer.{}",
    before="layernorm_before",
    query="attention.attention.query",
    key="attention.attention.key",
    value="attention.attention.value",
    mixed="attention.output.dense",
    after="layernorm_after",
    up="intermediate.dense",
    down="output.dense",
)
_PROJECTION = "embeddings.patch_embeddings.projection"
_TOKEN, _TABLE = "embeddings.cls_token", "embeddings.position_embeddings"


def read_config(config: Mapping[str, Any], file: str) -> ImageConfig:
    """Check and read a config.json; errors as `EncoderFamily.config`."""
    read = Settings(config, file)
    read.expect({"qkv_bias": True, "quantization_config": None})
    listed = config.get("architectures") or _ARCHITECTURES
    if not isinstance(listed, list | tuple) or not set(listed) <= set(_ARCHITECTURES):
        problem = f"its architectures are {str(listed)[:60]}"
        raise UnsupportedModelError(file, f"{problem}, and {', '.join(_ARCHITECTURES)} run")
    return ImageConfig(read_layers(read, config, "gelu"), read_patches(read))


def tensors(config: ImageConfig) -> Iterator[Sizes]:
    """Yield the tensors that `record` reads, with their shapes."""
    c = config.layers.hidden
    yield from patch_tensors(config.cut, c, _PROJECTION, _TOKEN, _TABLE)
    yield f"{_PROJECTION}.bias", (c,)
    yield from layer_tensors(config.layers, _NAMES)
    yield from norm_tensors("layernorm", c)


def record(to: Seeing, lengths: Value) -> Value:
    """Record pixels -> features of each position (B, T, C)."""
    layers = Layers(to.graph, to.config.layers, _NAMES, to.weights)
    x = to.positions(_PROJECTION, _TOKEN, _TABLE, biased=True)
    x = layers.record(x, to.attended(layers, lengths))
    return layers.norm(x, "layernorm")


VIT = ImageFamily(
    name="vit",
    examples="such as vit-base-patch16-224",
    model_types=("vit",),
    tensor_name=str,
    prefixes=("vit.",),
    ignored=re.compile(r"pooler\.dense\..*|embeddings\.mask_token"),
    config=read_config,
    tensors=tensors,
    phases={"image": record},
    labels="classifier",
    classifiers=_CLASSIFIERS,
)
