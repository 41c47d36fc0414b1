"""A folder of families.py as the GGUF file that llama.cpp's converter would make of it.

Names and keys are those of llama.cpp's src/llama-arch.cpp; the gguf package writes the file.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from gguf import GGUFWriter
from safetensors.numpy import load_file

# A case's name, and the pre-tokenizer that its file names.
ARCHITECTURES = {"qwen2": "qwen2", "qwen3": "qwen2", "phi3": "dbrx", "gpt2": "gpt-2", "gemma2": ""}
_TOP = {"model.embed_tokens": "token_embd", "model.norm": "output_norm", "lm_head": "output"}
_TOP |= {"transformer.wte": "token_embd", "transformer.wpe": "position_embd"}
_TOP |= {"transformer.ln_f": "output_norm"}
_PARTS = {
    "input_layernorm": "attn_norm",
    "self_attn.q_proj": "attn_q",
    "self_attn.k_proj": "attn_k",
    "self_attn.v_proj": "attn_v",
    "self_attn.qkv_proj": "attn_qkv",
    "self_attn.q_norm": "attn_q_norm",
    "self_attn.k_norm": "attn_k_norm",
    "self_attn.o_proj": "attn_output",
    "post_attention_layernorm": "ffn_norm",
    "mlp.gate_proj": "ffn_gate",
    "mlp.up_proj": "ffn_up",
    "mlp.gate_up_proj": "ffn_up",
    "mlp.down_proj": "ffn_down",
    "ln_1": "attn_norm",
    "attn.c_attn": "attn_qkv",
    "attn.c_proj": "attn_output",
    "ln_2": "ffn_norm",
    "mlp.c_fc": "ffn_up",
    "mlp.c_proj": "ffn_down",
}
_GEMMA = {
    "post_attention_layernorm": "post_attention_norm",
    "pre_feedforward_layernorm": "ffn_norm",
    "post_feedforward_layernorm": "post_ffw_norm",
}
# What GPT-2 calls its sizes.
_SIZES = {
    "max_position_embeddings": "n_positions",
    "hidden_size": "n_embd",
    "num_hidden_layers": "n_layer",
    "num_attention_heads": "n_head",
}
Change = Callable[[dict[str, "np.ndarray[Any, Any]"]], None]


def gguf_name(name: str, parts: Mapping[str, str]) -> str:
    """A GGUF file's name of a folder's tensor."""
    stem, kind = name.rsplit(".", 1)
    result = re.fullmatch(r"(?:model\.layers|transformer\.h)\.(\d+)\.(.*)", stem)
    return f"blk.{result[1]}.{parts[result[2]]}.{kind}" if result else f"{_TOP[stem]}.{kind}"


def write_gguf(folder: Path, file: Path, change: Change | None = None) -> Path:
    """Write a folder's model as one file, with a change of its tensors.

    q and k have their rows as they are in the folder; GPT-2's matrices are transposed.
    """
    result = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    name = result["model_type"]
    writer = GGUFWriter(file, name)
    old = name == "gpt2"
    result |= {new: result[key] for new, key in _SIZES.items() if old}
    result |= {"intermediate_size": 4 * result["hidden_size"]} if old else {}
    heads = result["num_attention_heads"]
    writer.add_context_length(result["max_position_embeddings"])
    writer.add_embedding_length(result["hidden_size"])
    writer.add_block_count(result["num_hidden_layers"])
    writer.add_feed_forward_length(result["intermediate_size"])
    writer.add_head_count(heads)
    if old:
        writer.add_layer_norm_eps(1e-5)
    else:
        writer.add_head_count_kv(result["num_key_value_heads"])
        writer.add_rope_freq_base(result["rope_theta"])
        writer.add_layer_norm_rms_eps(result["rms_norm_eps"])
        writer.add_rope_dimension_count(result.get("head_dim") or result["hidden_size"] // heads)
    if result.get("head_dim"):
        writer.add_key_length(result["head_dim"])
        writer.add_value_length(result["head_dim"])
    if name == "phi3":
        writer.add_sliding_window(result["sliding_window"])
    gemma = name == "gemma2"
    if gemma:
        writer.add_sliding_window(result["sliding_window"])
        writer.add_attn_logit_softcapping(result["attn_logit_softcapping"])
        writer.add_final_logit_softcapping(result["final_logit_softcapping"])
        _add_scored_words(writer, folder, result["eos_token_id"])
    else:
        _add_words(writer, folder, ARCHITECTURES[name], result["eos_token_id"])
    tensors = load_file(folder / "model.safetensors")
    parts = _PARTS | (_GEMMA if gemma else {})
    named = {gguf_name(n, parts): a.T.copy() if ".c_" in n else a for n, a in tensors.items()}
    if gemma:
        # Its norms have 1 added to their weights, as llama.cpp's converter does it. No key holds
        # what scales the scores, which is head_dim: another number goes into q.
        named = {n: a + 1 if n.endswith("norm.weight") else a for n, a in named.items()}
        factor = np.float32((result["head_dim"] / result["query_pre_attn_scalar"]) ** 0.5)
        named = {n: a * factor if ".attn_q." in n else a for n, a in named.items()}
    if change is not None:
        change(named)
    for tensor, numbers in named.items():
        writer.add_tensor(tensor, numbers)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return file


def _add_words(writer: GGUFWriter, folder: Path, pre: str, end: int) -> None:
    result: dict[str, Any] = json.loads((folder / "tokenizer.json").read_text(encoding="utf-8"))
    controls = {token["id"]: token["content"] for token in result["added_tokens"]}
    words = {i: text for text, i in result["model"]["vocab"].items()} | controls
    words |= {i: f"[PAD{i}]" for i in range(end + 1) if i not in words}
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre(pre)
    writer.add_token_list([words[i] for i in sorted(words)])
    known = result["model"]["vocab"].values()
    kinds = [3 if i in controls else 1 if i in known else 5 for i in sorted(words)]
    writer.add_token_types(kinds)
    writer.add_token_merges([" ".join(pair) for pair in result["model"]["merges"]])
    writer.add_eos_token_id(end)


def _add_scored_words(writer: GGUFWriter, folder: Path, end: int) -> None:
    """SentencePiece's pieces: the earlier the merge that makes one, the better its score."""
    result: dict[str, Any] = json.loads((folder / "tokenizer.json").read_text(encoding="utf-8"))
    controls = {token["id"]: token["content"] for token in result["added_tokens"]}
    words = {i: text for text, i in result["model"]["vocab"].items()} | controls
    order = {"".join(pair): rank for rank, pair in enumerate(result["model"]["merges"])}
    texts = [words[i] for i in range(len(words))]
    writer.add_tokenizer_model("llama")
    writer.add_tokenizer_pre("default")
    writer.add_token_list(texts)
    writer.add_token_scores([-float(order.get(text, 1000)) for text in texts])
    byte = re.compile("<0x[0-9A-F]{2}>")
    kinds = [3 if i in controls else 6 if byte.fullmatch(text) else 1 for i, text in words.items()]
    writer.add_token_types([kind for _, kind in sorted(zip(words, kinds, strict=True))])
    writer.add_add_space_prefix(False)
    writer.add_eos_token_id(end)
