"""Writes tiny-llama/folder: a whole random Llama as Hugging Face keeps one, and its goldens.

    python -m venv goldens
    goldens/bin/pip install numpy torch transformers tokenizers jinja2 gguf safetensors
    goldens/bin/python tests/goldens/make_tiny_llama_folder.py

It has what the GGUF files beside it have not: heads that are not hidden / heads wide, Llama 3.1's
scaling of rotary angles, a tied embedding in halves, layers of three types, rows of q and k in
transformers' order, and Llama 3's tokenizer (words first, a first token, two ends). The goldens are
those of make_llama_goldens.py: transformers in float64, out of the folder by its own loaders.
"""

from __future__ import annotations

import json
from pathlib import Path

import make_llama_goldens as goldens
import numpy as np
import torch
from make_tiny_llama import EPSILON
from safetensors.torch import save_file
from tokenizers import (
    Regex,
    Tokenizer,
    decoders,
    models,
    pre_tokenizers,
    processors,
    trainers,
)
from transformers import AutoModelForCausalLM, AutoTokenizer

HERE = Path(__file__).resolve().parent
FOLDER = HERE / "tiny-llama" / "folder"
SEED = 63
VOCABULARY, LAYERS, HIDDEN, HEADS, KV_HEADS, SIZE, INNER = 384, 2, 64, 4, 2, 24, 80
CONTROLS = ["<|begin_of_text|>", "<|end_of_text|>", "<|start_header_id|>", "<|end_header_id|>"]
CONTROLS.append("<|eot_id|>")
BEGIN, ENDS = VOCABULARY - 5, [VOCABULARY - 4, VOCABULARY - 1]
WORDS = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}|"
    r" ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)
TEMPLATE = (
    "{{ bos_token }}{% for message in messages %}"
    "{{ '<|start_header_id|>' + message['role'] + '<|end_header_id|>\n\n' }}"
    "{{ message['content'] | trim + '<|eot_id|>' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|start_header_id|>assistant<|end_header_id|>\n\n' }}"
    "{% endif %}"
)
CONFIG = {
    "architectures": ["LlamaForCausalLM"],
    "model_type": "llama",
    "hidden_act": "silu",
    "attention_bias": False,
    "mlp_bias": False,
    "vocab_size": VOCABULARY,
    "hidden_size": HIDDEN,
    "intermediate_size": INNER,
    "num_hidden_layers": LAYERS,
    "num_attention_heads": HEADS,
    "num_key_value_heads": KV_HEADS,
    "head_dim": SIZE,
    "max_position_embeddings": 256,
    "rms_norm_eps": EPSILON,
    "rope_theta": 10000.0,
    # So short a first context that of 12 waves some are stretched, some not and some in part.
    "rope_scaling": {
        "rope_type": "llama3",
        "factor": 8.0,
        "low_freq_factor": 1.0,
        "high_freq_factor": 4.0,
        "original_max_position_embeddings": 64,
    },
    "tie_word_embeddings": True,
    "bos_token_id": BEGIN,
    "eos_token_id": ENDS[0],
    "dtype": "bfloat16",
}


def tensors(seed: int) -> dict[str, torch.Tensor]:
    """Gains as in make_tiny_llama.py; each kind of matrix has one type."""
    rng = np.random.default_rng(seed)
    results: dict[str, torch.Tensor] = {}

    def weight(name: str, rows: int, columns: int, gain: float, dtype: torch.dtype) -> None:
        numbers = rng.normal(0, gain / columns**0.5, (rows, columns))
        results[f"{name}.weight"] = torch.from_numpy(numbers).to(dtype)

    def norm(name: str) -> None:
        numbers = rng.uniform(0.6, 1.4, HIDDEN)
        results[f"{name}.weight"] = torch.from_numpy(numbers).to(torch.bfloat16)

    weight("model.embed_tokens", VOCABULARY, HIDDEN, 4.0, torch.float16)
    wide, narrow = HEADS * SIZE, KV_HEADS * SIZE
    for layer in range(LAYERS):
        name = f"model.layers.{layer}"
        norm(f"{name}.input_layernorm")
        weight(f"{name}.self_attn.q_proj", wide, HIDDEN, 1.6, torch.bfloat16)
        weight(f"{name}.self_attn.k_proj", narrow, HIDDEN, 1.6, torch.bfloat16)
        weight(f"{name}.self_attn.v_proj", narrow, HIDDEN, 1.5, torch.bfloat16)
        weight(f"{name}.self_attn.o_proj", HIDDEN, wide, 1.5, torch.float16)
        norm(f"{name}.post_attention_layernorm")
        weight(f"{name}.mlp.gate_proj", INNER, HIDDEN, 1.5, torch.float16)
        weight(f"{name}.mlp.up_proj", INNER, HIDDEN, 1.5, torch.float32)
        weight(f"{name}.mlp.down_proj", HIDDEN, INNER, 1.5, torch.bfloat16)
    norm("model.norm")
    return results


def tokenizer() -> Tokenizer:
    """Llama 3's, trained on perplexity.txt; control tokens come last, outside the vocabulary."""
    made = Tokenizer(models.BPE(ignore_merges=True))
    to_bytes = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    words = pre_tokenizers.Split(Regex(WORDS), "isolated")
    made.pre_tokenizer = pre_tokenizers.Sequence([words, to_bytes])
    trainer = trainers.BpeTrainer(
        vocab_size=VOCABULARY - len(CONTROLS),
        initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
        show_progress=False,
    )
    made.train([str(HERE / "perplexity.txt")], trainer)
    made.add_special_tokens(CONTROLS)
    first = processors.TemplateProcessing(
        single="<|begin_of_text|> $A",
        pair="<|begin_of_text|> $A <|begin_of_text|> $B",
        special_tokens=[("<|begin_of_text|>", BEGIN)],
    )
    made.post_processor = processors.Sequence([processors.ByteLevel(trim_offsets=False), first])
    made.decoder = decoders.ByteLevel()
    return made


def write(seed: int) -> None:
    FOLDER.mkdir(exist_ok=True)
    save_file(tensors(seed), FOLDER / "model.safetensors", {"format": "pt"})
    # Older files name special tokens in objects.
    end = {"__type": "AddedToken", "content": "<|end_of_text|>", "lstrip": False, "rstrip": False}
    names = {"bos_token": "<|begin_of_text|>", "eos_token": end}
    for file, holds in (
        ("config.json", CONFIG),
        ("tokenizer.json", json.loads(tokenizer().to_str())),
        ("tokenizer_config.json", {**names, "tokenizer_class": "PreTrainedTokenizerFast"}),
        ("generation_config.json", {"bos_token_id": BEGIN, "eos_token_id": ENDS}),
    ):
        goldens.write_json(FOLDER / file, holds)
    (FOLDER / "chat_template.jinja").write_text(TEMPLATE, encoding="utf-8")


def load() -> goldens.Model:
    """As transformers loads a folder, with the norms and angles of make_llama_goldens.py."""
    net = AutoModelForCausalLM.from_pretrained(FOLDER, dtype=torch.float64).eval()
    frequencies = net.model.rotary_emb.inv_freq.double()
    for layer in net.model.layers:
        layer.input_layernorm = goldens.Norm64(layer.input_layernorm)
        layer.post_attention_layernorm = goldens.Norm64(layer.post_attention_layernorm)
    net.model.norm = goldens.Norm64(net.model.norm)
    net.model.rotary_emb = goldens.Rotary64(1.0, SIZE)
    net.model.rotary_emb.frequencies = frequencies
    return goldens.Model(net, AutoTokenizer.from_pretrained(FOLDER), set(ENDS))


if __name__ == "__main__":
    write(SEED)
    model = load()
    ids = model.tokenizer(goldens.TINY_TEXT)["input_ids"][: goldens.N_TINY]
    chats = [goldens.chat(model, messages) for messages in goldens.TINY_CHATS]
    told = {"made_with": goldens.made_with(), "chats": chats, "ids": ids}
    goldens.write_json(FOLDER.parent / "folder.json", told)
    logits = goldens.run(model, ids)[1].numpy().astype(np.float32)
    np.savez_compressed(FOLDER.parent / "folder.npz", logits=logits)
