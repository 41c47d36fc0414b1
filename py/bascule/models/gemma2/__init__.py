"""Gemma 2 (Gemma Team 2024): Llama's layers with norms after each part, capped scores and logits, a
window in every other layer, and norms that multiply by 1 + weight.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from functools import partial
from typing import Any

from bascule.base.dtypes import DType
from bascule.errors import ModelFileError, UnsupportedModelError
from bascule.models.decoder.config import DecoderConfig, read_decoder_config
from bascule.models.decoder.files import NAMES, decoder_tensors, folder_name, llama_like
from bascule.models.decoder.graph import POST_ATTENTION, POST_FFN
from bascule.models.decoder.metadata import read_decoder_metadata
from bascule.models.settings import Settings

_MAX_CAP = 1e6
_SLIDING, _FULL = "sliding_attention", "full_attention"
# The defaults of transformers' Gemma2Config.
_DEFAULTS: Mapping[str, Any] = {
    "num_key_value_heads": 4,
    "head_dim": 256,
    "max_position_embeddings": 8192,
}
_PLAIN: Mapping[str, Any] = {
    "hidden_activation": "gelu_pytorch_tanh",
    "attention_bias": False,
    "use_bidirectional_attention": False,
    "quantization_config": None,
}
_NAMES = {
    **NAMES,
    POST_ATTENTION: "post_attention_layernorm",
    "ffn_norm": "pre_feedforward_layernorm",
    POST_FFN: "post_feedforward_layernorm",
}
# The one size whose scores are scaled by another number than 1 / sqrt(head_dim), which a GGUF
# header does not contain: llama.cpp also recognizes it by its layers.
_LAYERS_OF_27B = 46


def read_config(config: Mapping[str, Any], file: str) -> DecoderConfig:
    """Check and read a config.json; errors as `DecoderFamily.config`."""
    result = read_decoder_config(config, file, plain=_PLAIN, defaults=_DEFAULTS)
    read = Settings(config, file)
    scalar = read.number("query_pre_attn_scalar", 256, 1e-6, 1e6)
    return replace(
        _gemma(result, full_layers=_full_layers(config, result.layers, file)),
        window=_window(config, read),
        scale=scalar**-0.5,
        score_cap=_cap(config, read, "attn_logit_softcapping", 50.0),
        logit_cap=_cap(config, read, "final_logit_softcapping", 30.0),
        norm_plus=1.0,
    )


def read_metadata(
    metadata: Mapping[str, Any], types: Mapping[str, DType], rows: int, file: str
) -> DecoderConfig:
    """Check and read a GGUF header; errors as `DecoderFamily.config`.

    The weights of its norms already include the 1.
    """
    result = read_decoder_metadata(metadata, types, rows, file, architecture="gemma2")
    read = Settings(metadata, file)
    scalar = result.hidden // result.heads if result.layers == _LAYERS_OF_27B else result.size
    return replace(
        _gemma(result, full_layers=frozenset(range(1, result.layers, 2))),
        window=read.integer("gemma2.attention.sliding_window", 4096, 0),
        scale=scalar**-0.5,
        score_cap=read.number("gemma2.attn_logit_softcapping", 50.0, 0.0, _MAX_CAP),
        logit_cap=read.number("gemma2.final_logit_softcapping", 30.0, 0.0, _MAX_CAP),
    )


def _gemma(config: DecoderConfig, *, full_layers: frozenset[int]) -> DecoderConfig:
    """Set what no file says."""
    return replace(
        config,
        activation="gelu_tanh",
        embedding_scale=config.hidden**0.5,
        full_layers=full_layers,
    )


def _window(config: Mapping[str, Any], read: Settings) -> int:
    # A null window means none; one that is left out is the class's default.
    null = config.get("sliding_window", 4096) is None
    return 0 if null else read.size("sliding_window", 4096)


def _cap(config: Mapping[str, Any], read: Settings, key: str, default: float) -> float:
    null = config.get(key, default) is None
    return 0.0 if null else read.number(key, default, 1e-6, _MAX_CAP)


def _full_layers(config: Mapping[str, Any], n_layers: int, file: str) -> frozenset[int]:
    """Return the layers that attend to the whole text: by default each second one."""
    kinds = config.get("layer_types")
    if kinds is None:
        return frozenset(range(1, n_layers, 2))
    if not isinstance(kinds, list) or len(kinds) != n_layers:
        raise ModelFileError(file, f"layer_types is {str(kinds)[:40]}, expected {n_layers} names")
    if unknown := [kind for kind in kinds if kind not in (_SLIDING, _FULL)]:
        raise UnsupportedModelError(file, f"its layer_types have {str(unknown[0])[:40]!r}")
    return frozenset(index for index, kind in enumerate(kinds) if kind == _FULL)


GEMMA2 = llama_like(
    name="gemma2",
    examples="such as Gemma 2 2B",
    model_types=("gemma2",),
    config=read_config,
    tensors=partial(decoder_tensors, post_norms=True),
    tensor_name=partial(folder_name, names=_NAMES),
    architectures={"gemma2": read_metadata},
    tied=True,
)
