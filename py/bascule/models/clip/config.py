"""The config of CLIP: a config.json that nests one per encoder."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from bascule.errors import ModelFileError, UnsupportedModelError
from bascule.models.image.config import ImageConfig, read_layers, read_patches
from bascule.models.image_text.config import ImageTextConfig, TextConfig
from bascule.models.settings import Settings

_ARCHITECTURE = "CLIPModel"
_ACTIVATION = "quick_gelu"
# Defaults that transformers leaves out of a config.json.
_TEXT = {
    **{"vocab_size": 49408, "hidden_size": 512, "intermediate_size": 2048},
    **{"num_hidden_layers": 12, "num_attention_heads": 8, "max_position_embeddings": 77},
    "eos_token_id": 49407,
}
_IMAGE = {
    **{"hidden_size": 768, "intermediate_size": 3072, "num_hidden_layers": 12},
    **{"num_attention_heads": 12, "image_size": 224, "patch_size": 32},
}
_PROJECTION = 512
# Files older than transformers 4.31 have this id, and the end of a text is its highest id.
_OLD_EOS = 2


def read_config(config: Mapping[str, Any], file: str) -> ImageTextConfig:
    """Check and read a config.json; errors as `EncoderFamily.config`."""
    read = Settings(config, file)
    read.expect({"quantization_config": None})
    listed = config.get("architectures") or [_ARCHITECTURE]
    if listed != [_ARCHITECTURE]:
        problem = f"its architectures are {str(listed)[:60]}"
        raise UnsupportedModelError(file, f"{problem}, and {_ARCHITECTURE} runs")
    image = _nested(config, "vision_config", _IMAGE, file)
    text = _nested(config, "text_config", _TEXT, file)
    sizes = Settings(image, file)
    seen = ImageConfig(read_layers(sizes, image, _ACTIVATION), read_patches(sizes))
    return ImageTextConfig(seen, _text(text, file), read.size("projection_dim", _PROJECTION))


def _text(config: Mapping[str, Any], file: str) -> TextConfig:
    read = Settings(config, file)
    eos = read.integer("eos_token_id", None, 0)
    return TextConfig(
        layers=read_layers(read, config, _ACTIVATION),
        vocabulary=read.size("vocab_size"),
        positions=read.size("max_position_embeddings"),
        eos=None if eos == _OLD_EOS else eos,
    )


def _nested(
    config: Mapping[str, Any], key: str, defaults: Mapping[str, Any], file: str
) -> dict[str, Any]:
    """Return an encoder's settings; those of older files' `key`_dict have precedence, as in
    transformers, including its defaults.
    """
    result = dict(defaults)
    for name in (key, f"{key}_dict"):
        value = config.get(name)
        if value is None:
            continue
        if not isinstance(value, dict):
            raise ModelFileError(file, f"{name} is {str(value)[:40]!r}, expected an object")
        older = defaults if name != key else {}
        result |= {**older, **{k: v for k, v in value.items() if v is not None}}
    return result
