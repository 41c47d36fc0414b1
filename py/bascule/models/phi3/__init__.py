"""Phi-3 (Abdin et al. 2024): Llama's layers; one tensor has q, k and v, one gate and up."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from functools import partial
from typing import Any

from bascule.base.dtypes import DType
from bascule.models.decoder.config import DecoderConfig, read_decoder_config
from bascule.models.decoder.files import NAMES, decoder_tensors, folder_name
from bascule.models.decoder.graph import decode
from bascule.models.decoder.metadata import read_decoder_metadata
from bascule.models.family import DecoderFamily
from bascule.models.settings import Settings

# The defaults of transformers' Phi3Config.
_DEFAULTS: Mapping[str, Any] = {"max_position_embeddings": 4096, "rms_norm_eps": 1e-5}


def read_config(config: Mapping[str, Any], file: str) -> DecoderConfig:
    """Check and read a config.json; errors as `DecoderFamily.config`."""
    result = read_decoder_config(config, file, defaults=_DEFAULTS)
    return _with_window(result, Settings(config, file), "sliding_window")


def read_metadata(
    metadata: Mapping[str, Any], types: Mapping[str, DType], rows: int, file: str
) -> DecoderConfig:
    """Check and read a GGUF header; errors as `DecoderFamily.config`."""
    result = read_decoder_metadata(metadata, types, rows, file, architecture="phi3")
    return _with_window(result, Settings(metadata, file), "phi3.attention.sliding_window")


def _with_window(config: DecoderConfig, settings: Settings, key: str) -> DecoderConfig:
    return replace(config, window=settings.integer(key, 0, 0))


PHI3 = DecoderFamily(
    name="phi3",
    examples="such as Phi-4's GGUF file",
    model_types=("phi3",),
    config=read_config,
    tensors=partial(decoder_tensors, fused=True),
    tensor_name=partial(folder_name, names={**NAMES, "ffn_up": "mlp.gate_up_proj"}),
    phases={"decode": decode},
    architectures={"phi3": read_metadata},
)
