"""What a Hugging Face folder of a Llama calls its tensors, and how it scales rotary angles."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import replace
from math import pi
from types import MappingProxyType
from typing import Any

from bascule.dtypes import BlockType, DType, dtype_of
from bascule.errors import ModelFileError, UnsupportedModelError
from bascule.model.llama_config import OUTPUT, TABLE, LlamaConfig, rotary_settings, tensor_names
from bascule.weights.pieces import ELEMENT_NBYTES
from bascule.weights.safetensors import TensorInfo

_NAMES = MappingProxyType(
    {
        "token_embd": "model.embed_tokens",
        "output_norm": "model.norm",
        "output": "lm_head",
        "attn_norm": "input_layernorm",
        "attn_q": "self_attn.q_proj",
        "attn_k": "self_attn.k_proj",
        "attn_v": "self_attn.v_proj",
        "attn_output": "self_attn.o_proj",
        "ffn_norm": "post_attention_layernorm",
        "ffn_gate": "mlp.gate_proj",
        "ffn_up": "mlp.up_proj",
        "ffn_down": "mlp.down_proj",
    }
)
# Numbers of a row that shaders take at once of halves and of blocks.
_RUN = 32
# A table that older files keep and that follows from the settings.
_DERIVED = re.compile(r"model\.layers\.\d+\.self_attn\.rotary_emb\.inv_freq")


def folder_name(name: str) -> str:
    """A folder's name of the tensor that programs know by its name in a GGUF file."""
    *block, part, weight = name.split(".")
    layer = f"model.layers.{block[1]}." if block else ""
    return f"{layer}{_NAMES[part]}.{weight}"


def folder_config(
    config: Mapping[str, Any], tensors: Mapping[str, TensorInfo], weights: DType | None, file: str
) -> LlamaConfig:
    """The sizes in config.json, which `file` names, and the types that tensors are to have.

    Those of the files, or the block format `weights`, where rows come out even, else float32. The
    embedding and the output become blocks of 8 bits at the least, as ggml has it: the choice of a
    token hangs on them. ModelFileError for what is not sound, UnsupportedModelError for what no
    Llama has.
    """
    sizes = LlamaConfig.from_config(config, file)
    tied = config.get("tie_word_embeddings", False)
    if not isinstance(tied, bool):
        raise ModelFileError(file, "tie_word_embeddings is no boolean")
    types: dict[str, DType] = {}
    for name, shape in _shapes(sizes, tied=tied).items():
        tensor = tensors.get(folder_name(name))
        if tensor is None or tensor.shape != shape:
            found = "missing" if tensor is None else f"{list(tensor.shape)}"
            told = (
                f"tensor {folder_name(name)!r} is {found}, and its settings make it {list(shape)}"
            )
            raise ModelFileError(file, told)
        fine = weights is not None and name in (TABLE, OUTPUT)
        types[name] = _type(tensor, "q8_0" if fine else weights, file)
    known = {folder_name(name) for name in (*types, OUTPUT)}
    for name in sorted(tensors.keys() - known):
        if not _DERIVED.fullmatch(name):
            told = f"there is a tensor {name[:80]!r}, which is not known"
            raise UnsupportedModelError(file, told)
    return replace(sizes, types=types)


def _shapes(sizes: LlamaConfig, *, tied: bool) -> dict[str, tuple[int, ...]]:
    """Each tensor's shape, by GGUF's names: what is allocated is as large as the file at most."""
    row, c = (sizes.hidden,), sizes.hidden
    wide, narrow = sizes.heads * sizes.size, sizes.kv_heads * sizes.size
    parts: dict[str, tuple[int, ...]] = {
        "token_embd": (sizes.vocabulary, c),
        "output_norm": row,
        "output": (sizes.vocabulary, c),
        "attn_norm": row,
        "attn_q": (wide, c),
        "attn_k": (narrow, c),
        "attn_v": (narrow, c),
        "attn_output": (c, wide),
        "ffn_norm": row,
        "ffn_gate": (sizes.inner, c),
        "ffn_up": (sizes.inner, c),
        "ffn_down": (c, sizes.inner),
    }
    names = (name for name in tensor_names(sizes.layers) if name != OUTPUT or not tied)
    return {name: parts[name.split(".")[-2]] for name in names}


def _type(tensor: TensorInfo, weights: DType | None, file: str) -> DType:
    if tensor.dtype not in ELEMENT_NBYTES:
        known = ", ".join(ELEMENT_NBYTES)
        told = f"tensor {tensor.name[:80]!r} is {tensor.dtype}, and this version reads {known}"
        raise UnsupportedModelError(file, told)
    if tensor.shape[-1] % _RUN:
        return "f32"
    return weights or dtype_of(BlockType[tensor.dtype])


def rotary_factors(config: Mapping[str, Any], sizes: LlamaConfig, file: str) -> list[float] | None:
    """What divides the rotary frequencies (D / 2); None where nothing does.

    "linear" stretches all positions alike, "llama3" those of long waves (Llama 3.1's rule, as
    transformers' modeling_rope_utils.py has it). UnsupportedModelError for other kinds,
    ModelFileError for numbers that cannot be.
    """
    told = rotary_settings(config, file)
    kind = told.get("rope_type", told.get("type", "default"))
    if kind == "default":
        return None
    if kind not in ("linear", "llama3"):
        raise UnsupportedModelError(file, f"its rope scaling is {str(kind)[:40]!r}")
    factor = _number(told, "factor", file)
    half = sizes.size // 2
    if kind == "linear":
        return [factor] * half
    low, high = (_number(told, f"{end}_freq_factor", file) for end in ("low", "high"))
    context = _number(told, "original_max_position_embeddings", file)
    if low >= high:
        raise ModelFileError(file, "its low_freq_factor is not below its high_freq_factor")
    return [
        # Waves are counted in the context that the model was trained for first.
        _llama3_factor(context * sizes.theta ** (-i / half) / (2 * pi), low, high, factor)
        for i in range(half)
    ]


def _llama3_factor(waves: float, low: float, high: float, factor: float) -> float:
    """What divides a frequency of so many waves: 1 from `high` on, `factor` up to `low`."""
    kept = min(max((waves - low) / (high - low), 0.0), 1.0)
    return 1 / ((1 - kept) / factor + kept)


def _number(told: Mapping[str, Any], key: str, file: str) -> float:
    value = told.get(key)
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 < value < 1e9:
        raise ModelFileError(file, f"its rope scaling's {key} is {str(value)[:40]}")
    return float(value)
