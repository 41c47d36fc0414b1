"""Mistral (Jiang et al. 2023): Llama's layers over a window of the last tokens."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from bascule.models.decoder.config import DecoderConfig, expect_full_attention, read_decoder_config
from bascule.models.decoder.files import llama_like
from bascule.models.settings import Settings

# The defaults of transformers' MistralConfig.
_DEFAULTS: Mapping[str, Any] = {"num_key_value_heads": 8, "max_position_embeddings": 1 << 17}


def read_config(config: Mapping[str, Any], file: str) -> DecoderConfig:
    """Check and read a config.json; errors as `DecoderFamily.config`."""
    result = read_decoder_config(config, file, defaults=_DEFAULTS)
    expect_full_attention(config, file)
    # A null window means none; one that is left out is the class's default.
    if config.get("sliding_window", 4096) is None:
        return result
    return replace(result, window=Settings(config, file).size("sliding_window", 4096))


MISTRAL = llama_like(
    name="mistral",
    examples="such as Mistral NeMo",
    model_types=("mistral",),
    config=read_config,
)
