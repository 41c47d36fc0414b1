"""Qwen 2 and 2.5 (Yang et al. 2024): Llama's layers with biases of q, k and v."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from typing import Any

from bascule.models.decoder.config import read_unwindowed_config
from bascule.models.decoder.files import decoder_tensors, llama_like
from bascule.models.decoder.metadata import read_decoder_metadata

# The defaults of transformers' Qwen2Config.
_DEFAULTS: Mapping[str, Any] = {"num_key_value_heads": 32, "max_position_embeddings": 1 << 15}

QWEN2 = llama_like(
    name="qwen2",
    examples="such as Qwen2.5",
    model_types=("qwen2",),
    config=partial(read_unwindowed_config, defaults=_DEFAULTS),
    tensors=partial(decoder_tensors, biases=("attn_q", "attn_k", "attn_v")),
    architectures={"qwen2": partial(read_decoder_metadata, architecture="qwen2")},
)
