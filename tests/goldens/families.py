"""Tiny models of every family, as Hugging Face folders that a test writes anew.

`build` writes a case's folder with random weights of a fixed seed. make_family_goldens.py runs
transformers on the folders, in float64; families.json and families.npz have what came out. Nothing
of Bascule is used.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from safetensors.numpy import save_file
from tokenizers import Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers, processors

HERE = Path(__file__).resolve().parent
PROMPT = "The leaves rise; the ship passes. Ça va, 1894? A weight goes down."
TEXTS = ("w4", "w5 w6 w98", " ".join(f"w{4 + i % 95}" for i in range(30)), "w7 w7 Übung w8!", "")
# For models whose tokens meet only those near them, or tell far ones from near ones.
LONG = " ".join(f"w{4 + i * i % 91}" for i in range(190))
N_GREEDY = 16
STRIDE = 6  # of the tokens whose logits are stored
Arrays = dict[str, "np.ndarray[Any, Any]"]


@dataclass(frozen=True)
class Case:
    """A model: its config.json, a function that makes its tensors, and one that makes its words.

    `gain` scales all matrices but the embedding.
    """

    name: str
    config: Mapping[str, Any]
    tensors: Callable[[Tensors], None]
    tokenizer: Callable[[], Tokenizer]
    seed: int = 7
    gain: float = 1.5
    names: Mapping[str, str] = field(default_factory=dict[str, str])
    texts: tuple[str, ...] = TEXTS


class Tensors:
    """Collects random tensors under their names."""

    def __init__(self, case: Case) -> None:
        self.found: Arrays = {}
        self.config = case.config
        self._gain = case.gain
        self._rng = np.random.default_rng(case.seed)

    def matrix(self, name: str, rows: int, columns: int, gain: float | None = None) -> None:
        """A weight whose rows make numbers of about the size of `gain`."""
        scale = (gain or self._gain) / columns**0.5
        self._add(f"{name}.weight", self._rng.standard_normal((rows, columns)) * scale)

    def norm(self, name: str, size: int, *, bias: bool = False) -> None:
        """The scale of a norm, and what it adds."""
        self._add(f"{name}.weight", self._rng.uniform(0.6, 1.4, size))
        if bias:
            self.bias(name, size)

    def bias(self, name: str, size: int) -> None:
        """What is added."""
        self._add(f"{name}.bias", self._rng.standard_normal(size) * 0.5)

    def linear(self, name: str, rows: int, columns: int) -> None:
        """A matrix and what is added."""
        self.matrix(name, rows, columns)
        self.bias(name, rows)

    def _add(self, name: str, numbers: np.ndarray[Any, Any]) -> None:
        self.found[name] = numbers.astype(np.float32)


def build(case: Case, folder: Path) -> Path:
    """Write a case's folder."""
    folder.mkdir(parents=True)
    made = Tensors(case)
    case.tensors(made)
    save_file(made.found, folder / "model.safetensors", {"format": "pt"})
    (folder / "config.json").write_text(json.dumps(case.config))
    (folder / "tokenizer.json").write_text(case.tokenizer().to_str())
    result = {"tokenizer_class": "PreTrainedTokenizerFast", **case.names}
    (folder / "tokenizer_config.json").write_text(json.dumps(result))
    return folder


# Decoders.

_V = 272
_END = 265  # the third control token
_ALPHABET = sorted(pre_tokenizers.ByteLevel.alphabet())
_QWEN2 = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|"
    r"\s*[\r\n]+|\s+(?!\S)|\s+"
)
_CL100K = _QWEN2.replace(r"|\p{N}|", r"|\p{N}{1,3}|")
_TEKKEN = (
    r"[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]*[\p{Ll}\p{Lm}\p{Lo}\p{M}]+|"
    r"[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]+[\p{Ll}\p{Lm}\p{Lo}\p{M}]*|"
    r"\p{N}| ?[^\s\p{L}\p{N}]+[\r\n/]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)
_BYTES = [f"<0x{byte:02X}>" for byte in range(256)]
_MERGES = [("Ġ", "t"), ("h", "e"), ("Ġt", "he"), ("e", "s"), ("i", "s"), ("Ġ", "s"), ("a", "s")]


def byte_words(
    cut: str | None, *controls: str, composed: bool = False, whole: bool = False
) -> Tokenizer:
    """A byte-level BPE with a few merges; words are cut by an expression, or as GPT-2 does.

    With `whole` a word that is a token is taken before any merge.
    """
    tokens = [*_ALPHABET, *(a + b for a, b in _MERGES)]
    vocabulary = {t: i for i, t in enumerate(tokens)}
    made = Tokenizer(models.BPE(vocabulary, _MERGES, ignore_merges=whole))
    to_bytes = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=cut is None)
    # Phi-4's and Granite's files remove what does not match, which is nothing.
    rule = ("removed", True) if cut == _CL100K else ("isolated", False)
    steps = [] if cut is None else [pre_tokenizers.Split(Regex(cut), *rule)]
    made.pre_tokenizer = pre_tokenizers.Sequence([*steps, to_bytes])
    if composed:
        made.normalizer = normalizers.NFC()
    made.decoder = decoders.ByteLevel()
    made.add_special_tokens(list(controls))
    return made


_SIZES = {
    "vocab_size": _V,
    "hidden_size": 32,
    "intermediate_size": 64,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "hidden_act": "silu",
    "max_position_embeddings": 128,
    "rms_norm_eps": 1e-5,
    "rope_theta": 10000.0,
    "tie_word_embeddings": False,
    "eos_token_id": _END,
}


def rotary_decoder(
    made: Tensors,
    *,
    biases: bool = False,
    fused: bool = False,
    head_norms: bool = False,
    post_norms: bool = False,
    embedding: float = 4.0,
) -> None:
    """Tensors of a decoder like Llama."""
    config = made.config
    c, inner, heads = (
        config["hidden_size"],
        config["intermediate_size"],
        config["num_attention_heads"],
    )
    size = config.get("head_dim") or c // heads
    wide, narrow = heads * size, config["num_key_value_heads"] * size
    made.matrix("model.embed_tokens", config["vocab_size"], c, embedding)
    for layer in range(config["num_hidden_layers"]):
        name = f"model.layers.{layer}"
        made.norm(f"{name}.input_layernorm", c)
        rows = {"qkv": wide + 2 * narrow} if fused else {"q": wide, "k": narrow, "v": narrow}
        for part, n in rows.items():
            made.matrix(f"{name}.self_attn.{part}_proj", n, c)
            if biases:
                made.bias(f"{name}.self_attn.{part}_proj", n)
        for part in "qk" if head_norms else "":
            made.norm(f"{name}.self_attn.{part}_norm", size)
        made.matrix(f"{name}.self_attn.o_proj", c, wide)
        made.norm(f"{name}.post_attention_layernorm", c)
        for part in ("pre", "post") if post_norms else ():
            made.norm(f"{name}.{part}_feedforward_layernorm", c)
        for part in ["gate_up"] if fused else ["gate", "up"]:
            made.matrix(f"{name}.mlp.{part}_proj", 2 * inner if fused else inner, c)
        made.matrix(f"{name}.mlp.down_proj", c, inner)
    made.norm("model.norm", c)
    if not config["tie_word_embeddings"]:
        made.matrix("lm_head", config["vocab_size"], c)


def space_words(*controls: str, before: str = "never") -> Tokenizer:
    """SentencePiece's BPE as Gemma (no space before a text), Llama 2 and Mistral write it."""
    letters = ["▁", *"abcdefghijklmnopqrstuvwxyzTACW.,;?0123456789"]
    merges = [("▁", "t"), ("h", "e"), ("▁t", "he"), ("e", "s"), ("a", "s"), ("▁", "▁")]
    pieces = [*_BYTES, *letters, *(a + b for a, b in merges)]
    tokens = [*controls, *pieces]
    vocabulary = {token: i for i, token in enumerate(tokens)}
    model = models.BPE(vocabulary, merges, unk_token="<unk>", byte_fallback=True, fuse_unk=True)
    made = Tokenizer(model)
    steps = [decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse()]
    if before == "never":
        made.normalizer = normalizers.Replace(" ", "▁")
        made.pre_tokenizer = pre_tokenizers.Split(" ", "merged_with_previous")
    elif before == "first":
        made.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme="first", split=False)
    else:
        both = [normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")]
        made.normalizer = normalizers.Sequence(both)
    if before != "never":
        steps.append(decoders.Strip(" ", 1, 0))
    made.decoder = decoders.Sequence(steps)
    made.add_special_tokens(list(controls))
    return made


def gpt2(made: Tensors) -> None:
    """Tensors of GPT-2, whose matrices lie column by column."""
    config = made.config
    c, inner = config["n_embd"], 4 * config["n_embd"]
    made.matrix("transformer.wte", _V, c, 3.0)
    made.matrix("transformer.wpe", config["n_positions"], c, 6.0)

    def linear(name: str, columns: int, rows: int) -> None:
        made.matrix(name, columns, rows)
        result = made.found[f"{name}.weight"]
        made.found[f"{name}.weight"] = result * np.float32((rows / columns) ** 0.5)
        made.bias(name, rows)

    for layer in range(config["n_layer"]):
        name = f"transformer.h.{layer}"
        made.norm(f"{name}.ln_1", c, bias=True)
        linear(f"{name}.attn.c_attn", c, 3 * c)
        linear(f"{name}.attn.c_proj", c, c)
        made.norm(f"{name}.ln_2", c, bias=True)
        linear(f"{name}.mlp.c_fc", c, inner)
        linear(f"{name}.mlp.c_proj", inner, c)
    made.norm("transformer.ln_f", c, bias=True)


# A folder that is not run: its GGUF file is.
GPT2 = Case(
    "gpt2",
    {
        **{"model_type": "gpt2", "vocab_size": _V, "n_positions": 128, "n_embd": 32},
        **{"n_layer": 2, "n_head": 4, "activation_function": "gelu_new", "eos_token_id": _END},
    },
    gpt2,
    partial(byte_words, None, "<|startoftext|>", "<|unk|>", "<|endoftext|>"),
    seed=15,
    gain=2.0,
)

DECODERS = (
    Case(
        # So short a window that tokens of the prompt leave it; heads as wide as Mistral NeMo's.
        "mistral",
        {**_SIZES, "model_type": "mistral", "sliding_window": 12, "head_dim": 12},
        rotary_decoder,
        partial(byte_words, _TEKKEN, "<unk>", "<s>", "</s>", whole=True),
    ),
    Case(
        "qwen2",
        {
            **_SIZES,
            **{"model_type": "qwen2", "tie_word_embeddings": True, "rope_theta": 1e6},
            **{"use_sliding_window": False, "sliding_window": 64, "max_window_layers": 1},
        },
        partial(rotary_decoder, biases=True),
        partial(byte_words, _QWEN2, "<|endoftext|>", "<|im_start|>", "<|im_end|>", composed=True),
    ),
    Case(
        "qwen3",
        {
            **_SIZES,
            **{"model_type": "qwen3", "tie_word_embeddings": True, "head_dim": 12},
            **{"use_sliding_window": False, "sliding_window": None, "max_window_layers": 1},
        },
        partial(rotary_decoder, head_norms=True),
        partial(byte_words, _QWEN2, "<|endoftext|>", "<|im_start|>", "<|im_end|>", composed=True),
        seed=9,
    ),
    Case(
        "phi3",
        {
            **_SIZES,
            **{"model_type": "phi3", "sliding_window": 20, "original_max_position_embeddings": 128},
            "pad_token_id": 0,
        },
        partial(rotary_decoder, fused=True),
        partial(byte_words, _CL100K, "<|endoftext|>", "<|user|>", "<|end|>"),
    ),
    Case(
        # Scores and logits well past their caps, and a window in the first and the third layer.
        "gemma2",
        {
            **{**_SIZES, "model_type": "gemma2", "vocab_size": 320, "head_dim": 12},
            **{"num_hidden_layers": 3, "hidden_activation": "gelu_pytorch_tanh"},
            **{"hidden_act": "gelu_pytorch_tanh", "tie_word_embeddings": True},
            **{"query_pre_attn_scalar": 20, "sliding_window": 9, "attention_bias": False},
            **{"attn_logit_softcapping": 5.0, "final_logit_softcapping": 8.0},
            **{"pad_token_id": 0, "eos_token_id": 1, "bos_token_id": 2},
        },
        partial(rotary_decoder, post_norms=True, embedding=0.7),
        partial(space_words, "<pad>", "<eos>", "<bos>", "<unk>", "<end_of_turn>"),
        seed=21,
    ),
)


# Encoders.

_E = 300


def bert_words() -> Tokenizer:
    """WordPiece with BERT's steps."""
    words = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", *(f"w{i}" for i in range(4, 99))]
    made = Tokenizer(models.WordPiece({w: i for i, w in enumerate(words)}, unk_token="[UNK]"))
    made.normalizer = normalizers.BertNormalizer()
    made.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    made.post_processor = processors.BertProcessing(("[SEP]", 3), ("[CLS]", 2))
    made.add_special_tokens(words[:4])
    return made


def mpnet_words() -> Tokenizer:
    """WordPiece with MPNet's special tokens, whose padding has the id that its positions skip."""
    words = ["<s>", "<pad>", "</s>", "[UNK]", *(f"w{i}" for i in range(4, 99))]
    made = Tokenizer(models.WordPiece({w: i for i, w in enumerate(words)}, unk_token="[UNK]"))
    made.normalizer = normalizers.BertNormalizer()
    made.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    made.post_processor = processors.RobertaProcessing(("</s>", 2), ("<s>", 0))
    made.add_special_tokens(words[:4])
    return made


def roberta_words() -> Tokenizer:
    """A byte-level BPE with RoBERTa's first and last token."""
    tokens = ["<s>", "<pad>", "</s>", "<unk>", *_ALPHABET, "<mask>"]
    made = Tokenizer(models.BPE({t: i for i, t in enumerate(tokens)}, []))
    made.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    made.post_processor = processors.RobertaProcessing(("</s>", 2), ("<s>", 0))
    made.add_special_tokens([*tokens[:4], "<mask>"])
    return made


def unigram_words() -> Tokenizer:
    """Unigram pieces as XLM-RoBERTa has them."""
    words = [
        "<s>",
        "<pad>",
        "</s>",
        "<unk>",
        "▁",
        *(f"▁w{i}" for i in range(4, 99)),
        *"w0123456789",
    ]
    made = Tokenizer(models.Unigram([(w, -1.0 - i / 50) for i, w in enumerate(words)], 3, False))
    made.pre_tokenizer = pre_tokenizers.Metaspace()
    made.post_processor = processors.TemplateProcessing(
        single="<s> $A </s>",
        pair="<s> $A </s> </s> $B </s>",
        special_tokens=[("<s>", 0), ("</s>", 2)],
    )
    made.add_special_tokens(words[:4])
    return made


ENCODER = {
    "vocab_size": _E,
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "hidden_act": "gelu",
    "max_position_embeddings": 130,
    "layer_norm_eps": 1e-5,
    "type_vocab_size": 1,
    "pad_token_id": 1,
}


def post_norm_encoder(made: Tensors, prefix: str = "") -> None:
    """Tensors of an encoder like BERT, with a pooler."""
    config = made.config
    c, inner = config["hidden_size"], config["intermediate_size"]
    top = f"{prefix}embeddings"
    made.matrix(f"{top}.word_embeddings", config["vocab_size"], c, 4.0)
    made.matrix(f"{top}.position_embeddings", config["max_position_embeddings"], c, 4.0)
    made.matrix(f"{top}.token_type_embeddings", config["type_vocab_size"], c, 2.0)
    made.norm(f"{top}.LayerNorm", c, bias=True)
    for layer in range(config["num_hidden_layers"]):
        name = f"{prefix}encoder.layer.{layer}"
        for part in ("query", "key", "value"):
            made.linear(f"{name}.attention.self.{part}", c, c)
        made.linear(f"{name}.attention.output.dense", c, c)
        made.norm(f"{name}.attention.output.LayerNorm", c, bias=True)
        made.linear(f"{name}.intermediate.dense", inner, c)
        made.linear(f"{name}.output.dense", c, inner)
        made.norm(f"{name}.output.LayerNorm", c, bias=True)
    made.linear(f"{prefix}pooler.dense", c, c)


def distilbert(made: Tensors, prefix: str = "") -> None:
    """Tensors of DistilBERT."""
    config = made.config
    c, inner = config["dim"], config["hidden_dim"]
    top = f"{prefix}embeddings"
    made.matrix(f"{top}.word_embeddings", config["vocab_size"], c, 4.0)
    made.matrix(f"{top}.position_embeddings", config["max_position_embeddings"], c, 4.0)
    made.norm(f"{top}.LayerNorm", c, bias=True)
    for layer in range(config["n_layers"]):
        name = f"{prefix}transformer.layer.{layer}"
        for part in ("q_lin", "k_lin", "v_lin", "out_lin"):
            made.linear(f"{name}.attention.{part}", c, c)
        made.norm(f"{name}.sa_layer_norm", c, bias=True)
        made.linear(f"{name}.ffn.lin1", inner, c)
        made.linear(f"{name}.ffn.lin2", c, inner)
        made.norm(f"{name}.output_layer_norm", c, bias=True)


def mpnet(made: Tensors, prefix: str = "") -> None:
    """Tensors of MPNet."""
    config = made.config
    c, inner = config["hidden_size"], config["intermediate_size"]
    made.matrix(f"{prefix}embeddings.word_embeddings", config["vocab_size"], c, 4.0)
    made.matrix(
        f"{prefix}embeddings.position_embeddings", config["max_position_embeddings"], c, 4.0
    )
    made.norm(f"{prefix}embeddings.LayerNorm", c, bias=True)
    made.matrix(f"{prefix}encoder.relative_attention_bias", 32, config["num_attention_heads"], 3.0)
    for layer in range(config["num_hidden_layers"]):
        name = f"{prefix}encoder.layer.{layer}"
        for part in "qkvo":
            made.linear(f"{name}.attention.attn.{part}", c, c)
        made.norm(f"{name}.attention.LayerNorm", c, bias=True)
        made.linear(f"{name}.intermediate.dense", inner, c)
        made.linear(f"{name}.output.dense", c, inner)
        made.norm(f"{name}.output.LayerNorm", c, bias=True)
    made.linear(f"{prefix}pooler.dense", c, c)


def modernbert(made: Tensors, prefix: str = "") -> None:
    """Tensors of ModernBERT: no biases, and no norm before the first layer's attention."""
    config = made.config
    c, inner = config["hidden_size"], config["intermediate_size"]
    made.matrix(f"{prefix}embeddings.tok_embeddings", config["vocab_size"], c, 4.0)
    made.norm(f"{prefix}embeddings.norm", c)
    for layer in range(config["num_hidden_layers"]):
        name = f"{prefix}layers.{layer}"
        if layer:
            made.norm(f"{name}.attn_norm", c)
        made.matrix(f"{name}.attn.Wqkv", 3 * c, c)
        made.matrix(f"{name}.attn.Wo", c, c)
        made.norm(f"{name}.mlp_norm", c)
        made.matrix(f"{name}.mlp.Wi", 2 * inner, c)
        made.matrix(f"{name}.mlp.Wo", c, inner)
    made.norm(f"{prefix}final_norm", c)


ROBERTA_NAMES = {"pad_token": "<pad>", "unk_token": "<unk>", "bos_token": "<s>"}
BERT_NAMES = {"pad_token": "[PAD]", "unk_token": "[UNK]", "cls_token": "[CLS]"}

ENCODERS = (
    Case(
        "roberta",
        {**ENCODER, "model_type": "roberta", "architectures": ["RobertaModel"]},
        partial(post_norm_encoder, prefix="roberta."),
        roberta_words,
        names=ROBERTA_NAMES,
    ),
    Case(
        "xlm-roberta",
        {**ENCODER, "model_type": "xlm-roberta", "architectures": ["XLMRobertaModel"]},
        post_norm_encoder,
        unigram_words,
        seed=8,
        names=ROBERTA_NAMES,
    ),
    Case(
        "distilbert",
        {
            **{"model_type": "distilbert", "architectures": ["DistilBertModel"]},
            **{"vocab_size": 120, "dim": 32, "hidden_dim": 48, "n_layers": 2, "n_heads": 4},
            **{"max_position_embeddings": 130, "activation": "gelu"},
            **{"sinusoidal_pos_embds": False, "pad_token_id": 0},
        },
        distilbert,
        bert_words,
        names=BERT_NAMES,
    ),
    Case(
        # Long enough that distances share buckets, and some of them the last.
        "mpnet",
        {
            **{**ENCODER, "model_type": "mpnet", "architectures": ["MPNetModel"]},
            **{"max_position_embeddings": 200, "relative_attention_num_buckets": 32},
        },
        mpnet,
        mpnet_words,
        seed=10,
        names={"pad_token": "<pad>", "unk_token": "[UNK]", "bos_token": "<s>"},
        texts=(*TEXTS, LONG),
    ),
    Case(
        # Texts longer than the window; the third layer meets only tokens nearby, the fourth all.
        "modernbert",
        {
            **{"model_type": "modernbert", "architectures": ["ModernBertModel"]},
            **{"vocab_size": 120, "hidden_size": 32, "intermediate_size": 48},
            **{"num_hidden_layers": 4, "num_attention_heads": 4, "local_attention": 14},
            **{"max_position_embeddings": 256, "hidden_activation": "gelu", "norm_eps": 1e-5},
            **{"global_attn_every_n_layers": 3, "global_rope_theta": 160000.0, "pad_token_id": 0},
            **{"local_rope_theta": 10000.0, "norm_bias": False, "attention_bias": False},
            **{"mlp_bias": False, "position_embedding_type": "absolute"},
            **{"cls_token_id": 2, "sep_token_id": 3, "bos_token_id": 2, "eos_token_id": 3},
        },
        modernbert,
        bert_words,
        seed=13,
        names=BERT_NAMES,
        texts=(*TEXTS, LONG),
    ),
)


@dataclass(frozen=True)
class DecoderGolden:
    """Tokens of PROMPT, logits after each STRIDE-th, and the likeliest next ones with leads."""

    ids: list[int]
    logits: np.ndarray[Any, Any]
    greedy: list[int]
    margins: list[float]


def decoder_golden(name: str) -> DecoderGolden:
    """What transformers gives."""
    result = json.loads((HERE / "families.json").read_text(encoding="utf-8"))[name]
    with np.load(HERE / "families.npz") as arrays:
        return DecoderGolden(logits=arrays[name], **result)


def encoder_golden(name: str) -> np.ndarray[Any, Any]:
    """The embeddings (texts, C) of the case's texts."""
    with np.load(HERE / "families.npz") as arrays:
        return arrays[name]
