"""GPT-2 (Radford et al. 2019)."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from bascule.base.dtypes import DType
from bascule.errors import ModelFileError, UnsupportedModelError
from bascule.models.decoder.config import MAX_CONTEXT, DecoderConfig, check_heads
from bascule.models.decoder.metadata import read_decoder_metadata
from bascule.models.family import DecoderFamily
from bascule.models.gpt2.graph import decode, tensors
from bascule.models.settings import MAX_LAYERS, Settings

# A folder's names of the tensors, and of the parts of a layer.
_NAMES = {"token_embd": "wte", "position_embd": "wpe", "output_norm": "ln_f", "output": "lm_head"}
_PARTS = {
    "attn_norm": "ln_1",
    "attn_qkv": "attn.c_attn",
    "attn_output": "attn.c_proj",
    "ffn_norm": "ln_2",
    "ffn_up": "mlp.c_fc",
    "ffn_down": "mlp.c_proj",
}
# transformers' Conv1D, stored (K, N).
_COLUMNS = frozenset(("attn_qkv", "attn_output", "ffn_up", "ffn_down"))
_PLAIN: Mapping[str, Any] = {
    "scale_attn_weights": True,
    "scale_attn_by_inverse_layer_idx": False,
    "add_cross_attention": False,
    "quantization_config": None,
}
_ACTIVATIONS = ("gelu_new", "gelu_pytorch_tanh")


def read_config(config: Mapping[str, Any], file: str) -> DecoderConfig:
    """Check and read a config.json; errors as `DecoderFamily.config`."""
    read = Settings(config, file)
    read.expect(_PLAIN)
    activation = config.get("activation_function", "gelu_new")
    if activation not in _ACTIVATIONS:
        raise UnsupportedModelError(file, f"its activation_function is {str(activation)[:40]!r}")
    hidden, heads = read.size("n_embd", 768), read.size("n_head", 12)
    check_heads(heads, heads, hidden // heads, file, even=hidden % heads == 0)
    return DecoderConfig(
        vocabulary=read.size("vocab_size", 50257),
        hidden=hidden,
        layers=read.size("n_layer", 12, MAX_LAYERS),
        heads=heads,
        kv_heads=heads,
        size=hidden // heads,
        inner=read.size("n_inner", 4 * hidden),
        context=read.size("n_positions", 1024, MAX_CONTEXT),
        theta=1.0,
        eps=read.number("layer_norm_epsilon", 1e-5, 0.0, 1.0),
        types={},
        pairs="halves",
        rotary=False,
        columns=_COLUMNS,
    )


def tensor_name(name: str) -> str:
    """Return a folder's name of a tensor of the graph."""
    *block, part, kind = name.split(".")
    return f"h.{block[1]}.{_PARTS[part]}.{kind}" if block else f"{_NAMES[part]}.{kind}"


def read_metadata(
    metadata: Mapping[str, Any], types: Mapping[str, DType], rows: int, file: str
) -> DecoderConfig:
    """Check and read a GGUF header; errors as `DecoderFamily.config`."""
    eps = "attention.layer_norm_epsilon"
    result = read_decoder_metadata(metadata, types, rows, file, architecture="gpt2", eps=eps)
    if result.kv_heads != result.heads or result.heads * result.size != result.hidden:
        problem = f"{result.heads} heads of size {result.size} do not make {result.hidden}"
        raise ModelFileError(file, problem)
    return replace(result, rotary=False)


GPT2 = DecoderFamily(
    name="gpt2",
    examples="such as gpt2, distilgpt2",
    model_types=("gpt2",),
    config=read_config,
    tensors=tensors,
    tensor_name=tensor_name,
    phases={"decode": decode},
    architectures={"gpt2": read_metadata},
    tied=True,
    prefixes=("transformer.",),
    # Masks in older files.
    ignored=re.compile(r"h\.\d+\.attn\.(bias|masked_bias)"),
)
