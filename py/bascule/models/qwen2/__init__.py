"""Qwen 2 and 2.5 (Yang et al. 2024): Llama's layers with biases of q, k and v."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from typing import Any

from bascule.models.decoder.config import DecoderConfig, expect_full_attention, read_decoder_config
from bascule.models.decoder.files import DERIVED, decoder_tensors, folder_name
from bascule.models.decoder.graph import decode
from bascule.models.decoder.metadata import read_decoder_metadata
from bascule.models.family import DecoderFamily
from bascule.models.settings import Settings

# Those of transformers' Qwen2Config.
_DEFAULTS: Mapping[str, Any] = {"num_key_value_heads": 32, "max_position_embeddings": 1 << 15}


def read_config(config: Mapping[str, Any], file: str) -> DecoderConfig:
    """Check and read a config.json; errors as `DecoderFamily.config`."""
    found = read_decoder_config(config, file, defaults=_DEFAULTS)
    # A window has no effect unless it is switched on, for some of the layers alone.
    Settings(config, file).expect({"use_sliding_window": False})
    expect_full_attention(config, file)
    return found


QWEN2 = DecoderFamily(
    name="qwen2",
    examples="such as Qwen2.5",
    model_types=("qwen2",),
    config=read_config,
    tensors=partial(decoder_tensors, biases=("attn_q", "attn_k", "attn_v")),
    tensor_name=folder_name,
    phases={"decode": decode},
    ignored=DERIVED,
    architectures={"qwen2": partial(read_decoder_metadata, architecture="qwen2")},
)
