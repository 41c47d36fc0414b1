"""The tensors of a CLIP folder."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import replace

from bascule.models.clip.graph import (
    FINAL_NORM,
    IMAGE,
    IMAGE_PROJECTION,
    PATCHES,
    POST_NORM,
    PRE_NORM,
    TABLE,
    TEXT,
    TEXT_POSITIONS,
    TEXT_PROJECTION,
    TOKEN,
    TOKEN_TABLE,
)
from bascule.models.image.files import Sizes, layer_tensors, norm_tensors, patch_tensors
from bascule.models.image.files import as_matrices as flattened
from bascule.models.image_text.config import ImageTextConfig
from bascule.weights.safetensors import TensorInfo


def tensors(config: ImageTextConfig) -> Iterator[Sizes]:
    """Yield the tensors of both encoders, with their shapes."""
    image, text = config.image.layers, config.text.layers
    yield from patch_tensors(config.image.cut, image.hidden, PATCHES, TOKEN, TABLE)
    yield from norm_tensors(PRE_NORM, image.hidden)
    yield from layer_tensors(image, IMAGE)
    yield from norm_tensors(POST_NORM, image.hidden)
    yield f"{IMAGE_PROJECTION}.weight", (config.dimension, image.hidden)
    yield TOKEN_TABLE, (config.text.vocabulary, text.hidden)
    yield TEXT_POSITIONS, (config.text.positions, text.hidden)
    yield from layer_tensors(text, TEXT)
    yield from norm_tensors(FINAL_NORM, text.hidden)
    yield f"{TEXT_PROJECTION}.weight", (config.dimension, text.hidden)


def as_matrices(tensors: Mapping[str, TensorInfo]) -> dict[str, TensorInfo]:
    """Return tensors with at most two axes: the class token (C,) becomes a row (1, C)."""
    flat = flattened(tensors)
    token = flat.get(TOKEN)
    if token is not None and len(token.shape) == 1:
        flat[TOKEN] = replace(token, shape=(1, *token.shape))
    return flat
