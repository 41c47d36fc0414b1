"""Qwen 3 (Yang et al. 2025): Llama's layers with an RMS norm of each head of q and k."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from typing import Any

from bascule.models.decoder.config import (
    DecoderConfig,
    expect_full_attention,
    read_decoder_config,
)
from bascule.models.decoder.files import DERIVED, decoder_tensors, folder_name
from bascule.models.decoder.graph import decode
from bascule.models.decoder.metadata import read_decoder_metadata
from bascule.models.family import DecoderFamily
from bascule.models.settings import Settings

# Those of transformers' Qwen3Config.
_DEFAULTS: Mapping[str, Any] = {
    "num_key_value_heads": 32,
    "head_dim": 128,
    "max_position_embeddings": 1 << 15,
}


def read_config(config: Mapping[str, Any], file: str) -> DecoderConfig:
    """Check and read a config.json; errors as `DecoderFamily.config`."""
    found = read_decoder_config(config, file, defaults=_DEFAULTS)
    Settings(config, file).expect({"use_sliding_window": False})
    expect_full_attention(config, file)
    return found


QWEN3 = DecoderFamily(
    name="qwen3",
    examples="such as Qwen3-0.6B",
    model_types=("qwen3",),
    config=read_config,
    tensors=partial(decoder_tensors, head_norms=True),
    tensor_name=folder_name,
    phases={"decode": decode},
    ignored=DERIVED,
    architectures={"qwen3": partial(read_decoder_metadata, architecture="qwen3")},
)
