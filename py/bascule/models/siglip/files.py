"""The tensors of a SigLIP folder."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import replace

from bascule.models.image.files import (
    Sizes,
    layer_tensors,
    linear_tensors,
    norm_tensors,
    patch_tensors,
)
from bascule.models.image.files import as_matrices as flattened
from bascule.models.image_text.config import ImageTextConfig
from bascule.models.siglip.graph import (
    FINAL_NORM,
    HEAD,
    HEAD_BIAS,
    HEAD_DOWN,
    HEAD_NORM,
    HEAD_OUT,
    HEAD_UP,
    HEAD_WEIGHT,
    IMAGE,
    PATCHES,
    POST_NORM,
    PROBE,
    TABLE,
    TEXT,
    TEXT_POSITIONS,
    TOKEN_TABLE,
)
from bascule.weights.safetensors import TensorInfo

SCALE, BIAS = "logit_scale", "logit_bias"


def tensors(config: ImageTextConfig) -> Iterator[Sizes]:
    """Yield the tensors of both encoders, with their shapes."""
    image, text = config.image.layers, config.text.layers
    c = image.hidden
    yield from patch_tensors(config.image.cut, c, PATCHES, "", TABLE)
    yield f"{PATCHES}.bias", (c,)
    yield from layer_tensors(image, IMAGE)
    yield from norm_tensors(POST_NORM, c)
    yield PROBE, (1, c)
    yield HEAD_WEIGHT, (3 * c, c)
    yield HEAD_BIAS, (3 * c,)
    yield from linear_tensors(HEAD_OUT, c, c)
    yield from norm_tensors(HEAD_NORM, c)
    yield from linear_tensors(HEAD_UP, image.inner, c)
    yield from linear_tensors(HEAD_DOWN, c, image.inner)
    yield TOKEN_TABLE, (config.text.vocabulary, text.hidden)
    yield TEXT_POSITIONS, (config.text.positions, text.hidden)
    yield from layer_tensors(text, TEXT)
    yield from norm_tensors(FINAL_NORM, text.hidden)
    yield from linear_tensors(HEAD, config.dimension, text.hidden)


def as_matrices(found: Mapping[str, TensorInfo]) -> dict[str, TensorInfo]:
    """Return tensors with at most two axes; the scale and bias of logits (1) become scalars ()."""
    flat = flattened(found)
    for name in (SCALE, BIAS):
        if name in flat and flat[name].shape == (1,):
            flat[name] = replace(flat[name], shape=())
    return flat
