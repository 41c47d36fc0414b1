"""The config of SigLIP: a config.json that nests one per encoder."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from bascule.errors import ModelFileError, UnsupportedModelError
from bascule.models.image.config import ImageConfig, read_layers, read_patches
from bascule.models.image_text.config import ImageTextConfig, TextConfig
from bascule.models.settings import Settings

_ARCHITECTURE = "SiglipModel"
_ACTIVATION = "gelu_pytorch_tanh"
_EPS = 1e-6
# Defaults that transformers leaves out of a config.json.
_LAYERS = {
    **{"hidden_size": 768, "intermediate_size": 3072},
    **{"num_hidden_layers": 12, "num_attention_heads": 12},
}
_TEXT = {**_LAYERS, "vocab_size": 32000, "max_position_embeddings": 64, "pad_token_id": 1}
_IMAGE = {**_LAYERS, "image_size": 224, "patch_size": 16}


def read_config(config: Mapping[str, Any], file: str) -> ImageTextConfig:
    """Check and read a config.json; errors as `EncoderFamily.config`."""
    Settings(config, file).expect({"quantization_config": None})
    listed = config.get("architectures") or [_ARCHITECTURE]
    if listed != [_ARCHITECTURE]:
        problem = f"its architectures are {str(listed)[:60]}"
        raise UnsupportedModelError(file, f"{problem}, and {_ARCHITECTURE} runs")
    image = _nested(config, "vision_config", _IMAGE, file)
    text = _nested(config, "text_config", _TEXT, file)
    sizes = Settings(image, file)
    sizes.expect({"vision_use_head": True})
    seen = ImageConfig(
        read_layers(sizes, image, _ACTIVATION, eps=_EPS), read_patches(sizes, token=False)
    )
    read = Settings(text, file)
    dimension = read.size("projection_size", read.size("hidden_size"))
    if dimension != seen.layers.hidden:
        problem = f"its texts have {dimension} numbers, its images {seen.layers.hidden}"
        raise ModelFileError(file, f"{problem}: projection_size is not the images' hidden_size")
    return ImageTextConfig(seen, _text(read, text), dimension)


def _text(read: Settings, config: Mapping[str, Any]) -> TextConfig:
    vocabulary, pad = read.size("vocab_size"), read.integer("pad_token_id", None, 0)
    if pad >= vocabulary:
        raise ModelFileError(read.file, f"its pad_token_id {pad} is none of {vocabulary} tokens")
    return TextConfig(
        layers=read_layers(read, config, _ACTIVATION, eps=_EPS),
        vocabulary=vocabulary,
        positions=read.size("max_position_embeddings"),
        pad=pad,
    )


def _nested(
    config: Mapping[str, Any], key: str, defaults: Mapping[str, Any], file: str
) -> dict[str, Any]:
    value = config.get(key)
    if not isinstance(value, dict | None):
        raise ModelFileError(file, f"{key} is {str(value)[:40]!r}, expected an object")
    return {**defaults, **{k: v for k, v in (value or {}).items() if v is not None}}
