"""Qwen 3 (Yang et al. 2025): Llama's layers with an RMS norm of each head of q and k."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from typing import Any

from bascule.models.decoder.config import read_unwindowed_config
from bascule.models.decoder.files import decoder_tensors, llama_like
from bascule.models.decoder.metadata import read_decoder_metadata

# The defaults of transformers' Qwen3Config.
_DEFAULTS: Mapping[str, Any] = {
    "num_key_value_heads": 32,
    "head_dim": 128,
    "max_position_embeddings": 1 << 15,
}


QWEN3 = llama_like(
    name="qwen3",
    examples="such as Qwen3-0.6B",
    model_types=("qwen3",),
    config=partial(read_unwindowed_config, defaults=_DEFAULTS),
    tensors=partial(decoder_tensors, head_norms=True),
    architectures={"qwen3": partial(read_decoder_metadata, architecture="qwen3")},
)
