"""Tiny T5 models as Hugging Face folders, and what to ask them.

`build` writes a folder with random weights of a fixed seed; make_t5_goldens.py runs transformers on
it, in float64; t5.npz has what came out. Nothing of Bascule is used.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
from safetensors.numpy import save_file
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors

# Long enough for the widest buckets of distances; past the tiles and the smallest bucket of shapes.
LONG = " ".join(f"w{i * i % 91}" for i in range(190))
TEXTS = ("summarize: w4 w5 w6", "w7 w98 é w8!", LONG, "")
N_GREEDY = 12
TARGET = [9 + 7 * i % 80 for i in range(40)]  # tokens of a teacher
_TINY: dict[str, Any] = {
    "model_type": "t5",
    "architectures": ["T5ForConditionalGeneration"],
    "vocab_size": 136,  # more than there are tokens, as in T5's own models
    "d_model": 32,
    "d_kv": 12,
    "d_ff": 48,
    "num_layers": 2,
    "num_decoder_layers": 3,
    "num_heads": 4,
    "relative_attention_num_buckets": 32,
    "relative_attention_max_distance": 128,
    "layer_norm_epsilon": 1e-6,
    "is_encoder_decoder": True,
    "pad_token_id": 0,
    "eos_token_id": 1,
    "decoder_start_token_id": 0,
    "n_positions": 512,
}
CASES: dict[str, dict[str, Any]] = {
    "t5": {**_TINY, "feed_forward_proj": "relu"},
    "flan": {**_TINY, "feed_forward_proj": "gated-gelu", "tie_word_embeddings": False},
}


def pieces() -> Tokenizer:
    """Unigram pieces as T5 has them: an end behind each text, and ids to fill in."""
    words = ["<pad>", "</s>", "<unk>", "▁", "s", "u", "m", "a", "r", "i", "z", "e", ":", "!", "w"]
    words += [*"0123456789", "▁summarize", *(f"▁w{i}" for i in range(90))]
    made = Tokenizer(models.Unigram([(w, -1.0 - i / 50) for i, w in enumerate(words)], 2, False))
    made.pre_tokenizer = pre_tokenizers.Sequence(
        [pre_tokenizers.WhitespaceSplit(), pre_tokenizers.Metaspace(prepend_scheme="always")]
    )
    made.decoder = decoders.Metaspace(prepend_scheme="always")
    made.post_processor = processors.TemplateProcessing(
        single="$A </s>", pair="$A </s> $B </s>", special_tokens=[("</s>", 1)]
    )
    made.add_special_tokens([*words[:3], *(f"<extra_id_{i}>" for i in range(9, -1, -1))])
    return made


def build(name: str, folder: Path, **changes: Any) -> Path:
    """Write a case's folder."""
    folder.mkdir(parents=True)
    config = {**CASES[name], **changes}
    save_file(_tensors(config), folder / "model.safetensors", {"format": "pt"})
    (folder / "config.json").write_text(json.dumps(config))
    (folder / "tokenizer.json").write_text(pieces().to_str())
    return folder


def _tensors(config: dict[str, Any]) -> dict[str, np.ndarray[Any, Any]]:
    rng = np.random.default_rng(11)
    results: dict[str, np.ndarray[Any, Any]] = {}
    c, inner = config["d_model"], config["d_ff"]
    width = config["num_heads"] * config["d_kv"]

    def matrix(name: str, rows: int, columns: int, gain: float) -> None:
        numbers = rng.standard_normal((rows, columns)) * gain / columns**0.5
        results[f"{name}.weight"] = numbers.astype(np.float32)

    def norm(name: str) -> None:
        results[f"{name}.layer_norm.weight"] = rng.uniform(0.6, 1.4, c).astype(np.float32)

    def attention(name: str) -> None:
        for part in "qkv":  # q and k so small that scores, which are not scaled, stay moderate
            matrix(f"{name}.{part}", width, c, 1.2 if part == "v" else 0.6)
        matrix(f"{name}.o", c, width, 1.2)

    matrix("shared", config["vocab_size"], c, c**0.5)
    if config["feed_forward_proj"].startswith("gated"):
        matrix("lm_head", config["vocab_size"], c, 1.5)
    halves = (("encoder", config["num_layers"]), ("decoder", config["num_decoder_layers"]))
    for half, layers in halves:
        table = f"{half}.block.0.layer.0.SelfAttention.relative_attention_bias.weight"
        shape = (config["relative_attention_num_buckets"], config["num_heads"])
        results[table] = rng.standard_normal(shape).astype(np.float32)
        results[f"{half}.final_layer_norm.weight"] = rng.uniform(0.6, 1.4, c).astype(np.float32)
        parts = ["SelfAttention", "EncDecAttention"][: 1 + (half == "decoder")]
        for layer in range(layers):
            name = f"{half}.block.{layer}.layer"
            for at, part in enumerate(parts):
                attention(f"{name}.{at}.{part}")
                norm(f"{name}.{at}")
            last = f"{name}.{len(parts)}"
            gated = config["feed_forward_proj"].startswith("gated")
            for part in ("wi_0", "wi_1") if gated else ("wi",):
                matrix(f"{last}.DenseReluDense.{part}", inner, c, 1.5)
            matrix(f"{last}.DenseReluDense.wo", c, inner, 1.5)
            norm(last)
    return results
