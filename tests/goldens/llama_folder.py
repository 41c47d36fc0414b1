"""A GGUF file of a Llama as the Hugging Face folder that it could have been made from.

Its numbers are dequantized, so that the folder's model is the file's. Tensors are named, and rows
of q and k ordered, as transformers has them; the gguf package reads the file. Nothing of Bascule.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from gguf import GGUFReader
from gguf.quants import dequantize
from safetensors.numpy import save_file

_TOP = {
    "token_embd.weight": "model.embed_tokens.weight",
    "output_norm.weight": "model.norm.weight",
    "output.weight": "lm_head.weight",
}
_PARTS = {
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
_CONTROL = 3


def write_folder(file: Path, folder: Path, **changes: Any) -> Path:
    """Write config.json (with `changes`), the tokenizer's files and float32 model.safetensors."""
    folder.mkdir()
    reader = GGUFReader(file)
    result = {name: field.contents() for name, field in reader.fields.items()}
    config = (
        config_of(result, tied="output.weight" not in {t.name for t in reader.tensors}) | changes
    )
    tensors = {
        _name(t.name): _halves(t.name, dequantize(t.data, t.tensor_type), config)
        for t in reader.tensors
    }
    save_file(tensors, folder / "model.safetensors")
    files = {
        "config.json": config,
        "tokenizer.json": tokenizer_of(result),
        "tokenizer_config.json": tokenizer_config_of(result),
        "generation_config.json": {"eos_token_id": result["tokenizer.ggml.eos_token_id"]},
    }
    for name, holds in files.items():
        (folder / name).write_text(json.dumps(holds, ensure_ascii=False), encoding="utf-8")
    return folder


def config_of(told: Mapping[str, Any], *, tied: bool) -> dict[str, Any]:
    """What transformers would write."""
    return {
        "architectures": ["LlamaForCausalLM"],
        "model_type": "llama",
        "hidden_act": "silu",
        "attention_bias": False,
        "vocab_size": len(told["tokenizer.ggml.tokens"]),
        "hidden_size": told["llama.embedding_length"],
        "intermediate_size": told["llama.feed_forward_length"],
        "num_hidden_layers": told["llama.block_count"],
        "num_attention_heads": told["llama.attention.head_count"],
        "num_key_value_heads": told["llama.attention.head_count_kv"],
        "max_position_embeddings": told["llama.context_length"],
        "rms_norm_eps": told["llama.attention.layer_norm_rms_epsilon"],
        "rope_theta": told["llama.rope.freq_base"],
        "rope_scaling": None,
        "tie_word_embeddings": tied,
    }


def tokenizer_of(told: Mapping[str, Any]) -> dict[str, Any]:
    """A tokenizer.json as SmolLM2's: single digits and GPT-2's words, control tokens in vocab."""
    assert told["tokenizer.ggml.pre"] == "smollm"
    tokens, kinds = told["tokenizer.ggml.tokens"], told["tokenizer.ggml.token_type"]
    flags = dict.fromkeys(("single_word", "lstrip", "rstrip", "normalized"), False)
    to_bytes = {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True}
    return {
        "version": "1.0",
        "truncation": None,
        "padding": None,
        "added_tokens": [
            {"id": i, "content": tokens[i], **flags, "special": True}
            for i, kind in enumerate(kinds)
            if kind == _CONTROL
        ],
        "normalizer": None,
        "pre_tokenizer": {
            "type": "Sequence",
            "pretokenizers": [
                {"type": "Digits", "individual_digits": True},
                {**to_bytes, "use_regex": True},
            ],
        },
        "post_processor": {**to_bytes, "use_regex": True},
        "decoder": {**to_bytes, "use_regex": True},
        "model": {
            **{"type": "BPE", "dropout": None, "unk_token": None},
            **{"continuing_subword_prefix": None, "end_of_word_suffix": None},
            **{"fuse_unk": False, "byte_fallback": False, "ignore_merges": False},
            "vocab": {token: i for i, token in enumerate(tokens)},
            "merges": told["tokenizer.ggml.merges"],
        },
    }


def tokenizer_config_of(told: Mapping[str, Any]) -> dict[str, Any]:
    """The special tokens by their texts, and the chat template."""
    tokens = told["tokenizer.ggml.tokens"]
    return {
        "bos_token": tokens[told["tokenizer.ggml.bos_token_id"]],
        "eos_token": tokens[told["tokenizer.ggml.eos_token_id"]],
        "chat_template": told["tokenizer.chat_template"],
        "tokenizer_class": "GPT2Tokenizer",
    }


def _name(ours: str) -> str:
    if ours in _TOP:
        return _TOP[ours]
    _, layer, part, _ = ours.split(".")
    return f"model.layers.{layer}.{_PARTS[part]}.weight"


def _halves(name: str, array: np.ndarray, config: Mapping[str, Any]) -> np.ndarray:
    """Rows of q and k from pairs that are neighbours to pairs half a head apart."""
    for part, key in (("attn_q.", "num_attention_heads"), ("attn_k.", "num_key_value_heads")):
        if part in name:
            heads = array.reshape(config[key], -1, 2, array.shape[1])
            array = heads.swapaxes(1, 2).reshape(array.shape)
    return np.ascontiguousarray(array, dtype=np.float32)
