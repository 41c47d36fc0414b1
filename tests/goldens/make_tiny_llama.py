"""Writes tiny-llama/*.gguf: whole Llama models of random weights, small enough to keep here.

    python -m venv goldens && goldens/bin/pip install numpy tokenizers gguf
    goldens/bin/python tests/goldens/make_tiny_llama.py

Then make_llama_goldens.py makes their goldens. Weights are large enough that attention is uneven,
that each layer matters and that the best logit leads; seeds were chosen so that greedy text neither
repeats one token nor nearly ties, and so that tiny-q4_1's second chat ends early. The tokenizer is
byte-level BPE as SmolLM2's, trained on perplexity.txt.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from gguf import GGMLQuantizationType as Type
from gguf import GGUFWriter, LlamaFileType, TokenType
from gguf.quants import quantize
from tokenizers import Regex, Tokenizer, models, pre_tokenizers, trainers

HERE = Path(__file__).resolve().parent
CONTROLS = ["<|endoftext|>", "<|im_start|>", "<|im_end|>"]
# SmolLM2's template with a shorter default system message.
TEMPLATE = (
    "{% for message in messages %}{% if loop.first and messages[0]['role'] != 'system' %}"
    "{{ '<|im_start|>system\nYou are tiny<|im_end|>\n' }}{% endif %}"
    "{{'<|im_start|>' + message['role'] + '\n' + message['content'] + '<|im_end|>' + '\n'}}"
    "{% endfor %}{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
)
# Large, so that a wrong one is seen.
EPSILON = 1e-2
K_TYPES = (Type.Q4_K, Type.Q5_K, Type.Q6_K)


@dataclass(frozen=True)
class Sizes:
    """One tiny model; `types` by a tensor's kind, and no "output" means a tied one."""

    name: str
    seed: int
    vocabulary: int
    layers: int
    hidden: int
    heads: int
    kv_heads: int
    inner: int
    theta: float
    types: dict[str, Type]


Q4_1 = dict.fromkeys(("attn_q", "attn_k", "attn_v", "attn_output"), Type.Q4_1)
Q4_1 |= dict.fromkeys(("ffn_gate", "ffn_up", "ffn_down"), Type.Q4_1)
ALL = [
    # As SmolLM2's file: Q4_1 throughout, a tied Q8_0 embedding.
    Sizes("tiny-q4_1", 763, 512, 2, 64, 4, 2, 96, 1e5, {"token_embd": Type.Q8_0, **Q4_1}),
    # An output of its own, one key for all heads, and each simple type once.
    Sizes(
        "tiny-mixed", 639, 512, 2, 64, 4, 1, 96, 1e4,
        {"token_embd": Type.Q4_0, "output": Type.Q8_0, "attn_q": Type.F16, "attn_k": Type.BF16,
         "attn_v": Type.F32, "attn_output": Type.Q4_0, "ffn_gate": Type.Q8_0,
         "ffn_up": Type.Q4_1, "ffn_down": Type.F16},
    ),
    # The types of Q4_K_M files, whose blocks hold 256 numbers.
    Sizes(
        "tiny-k", 182, 288, 1, 256, 4, 1, 256, 1e5,
        {"token_embd": Type.Q6_K, "attn_q": Type.Q4_K, "attn_k": Type.Q5_K, "attn_v": Type.Q6_K,
         "attn_output": Type.Q4_K, "ffn_gate": Type.Q5_K, "ffn_up": Type.Q4_K,
         "ffn_down": Type.Q4_K},
    ),
]  # fmt: skip


def k_scales(rng: np.random.Generator, count: int) -> np.ndarray:
    """12 bytes a block: the 6-bit scale and offset of 8 runs, packed as Q4_K and Q5_K have them."""
    s = rng.integers(24, 64, (count, 8), np.uint8)
    # The offset takes away about the mean of scale * q.
    m = np.clip(s.astype(np.int16) + rng.integers(-2, 3, (count, 8)), 0, 63).astype(np.uint8)
    first = (s[:, :4] & 63) | (s[:, 4:] >> 4 << 6)
    second = (m[:, :4] & 63) | (m[:, 4:] >> 4 << 6)
    third = (s[:, 4:] & 15) | (m[:, 4:] & 15) << 4
    return np.concatenate((first, second, third), axis=1)


def k_blocks(
    rng: np.random.Generator, type: Type, shape: tuple[int, int], spread: float
) -> np.ndarray:
    """Rows (R, bytes) of random blocks whose numbers have a deviation of about `spread`."""
    rows, columns = shape
    count = rows * columns // 256

    def half(value: float) -> np.ndarray:
        halves = rng.uniform(0.7, 1.3, (count, 1)) * value
        return halves.astype(np.float16).view(np.uint8)

    def noise(nbytes: int) -> np.ndarray:
        return rng.integers(0, 256, (count, nbytes), np.uint8)

    if type is Type.Q6_K:
        scales = rng.integers(-128, 128, (count, 16), np.int64).astype(np.int8).view(np.uint8)
        parts = [noise(192), scales, half(spread / 18.5 / 74)]
    else:
        levels = 16 if type is Type.Q4_K else 32
        d = (rng.uniform(0.7, 1.3, (count, 1)) * spread / 44 / (levels / 3.46)).astype(np.float16)
        dmin = (d * (levels - 1) / 2).astype(np.float16)
        halves = [d.view(np.uint8), dmin.view(np.uint8)]
        parts = [*halves, k_scales(rng, count), noise(128 if type is Type.Q4_K else 160)]
    return np.concatenate(parts, axis=1).reshape(rows, -1)


def tensors(sizes: Sizes) -> list[tuple[str, np.ndarray, Type]]:
    """Each tensor's name, stored array and type."""
    rng = np.random.default_rng(sizes.seed)
    results: list[tuple[str, np.ndarray, Type]] = []

    def weight(name: str, rows: int, columns: int, gain: float) -> None:
        """A matrix that makes rows of deviation `gain` out of rows of deviation 1."""
        kind = sizes.types[name.split(".")[-2]]
        spread = gain / columns**0.5
        if kind in K_TYPES:
            results.append((name, k_blocks(rng, kind, (rows, columns), spread), kind))
        else:
            numbers = rng.normal(0, spread, (rows, columns)).astype(np.float32)
            results.append((name, quantize(numbers, kind), kind))

    def norm(name: str) -> None:
        results.append((name, rng.uniform(0.6, 1.4, sizes.hidden).astype(np.float32), Type.F32))

    c, head = sizes.hidden, sizes.hidden // sizes.heads
    weight("token_embd.weight", sizes.vocabulary, c, 4.0)
    for layer in range(sizes.layers):
        block = f"blk.{layer}."
        norm(block + "attn_norm.weight")
        weight(block + "attn_q.weight", c, c, 1.6)
        weight(block + "attn_k.weight", sizes.kv_heads * head, c, 1.6)
        weight(block + "attn_v.weight", sizes.kv_heads * head, c, 1.5)
        weight(block + "attn_output.weight", c, c, 1.5)
        norm(block + "ffn_norm.weight")
        weight(block + "ffn_gate.weight", sizes.inner, c, 1.5)
        weight(block + "ffn_up.weight", sizes.inner, c, 1.5)
        weight(block + "ffn_down.weight", c, sizes.inner, 1.5)
    norm("output_norm.weight")
    if "output" in sizes.types:
        weight("output.weight", sizes.vocabulary, c, 4.0)
    return results


def bpe(vocabulary: int) -> tuple[list[str], list[str]]:
    """The tokens by id (controls, all 256 bytes, merged ones), and the merges."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(r"\p{N}"), "isolated"),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=True),
        ]
    )
    trainer = trainers.BpeTrainer(
        vocab_size=vocabulary,
        special_tokens=CONTROLS,
        initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
        show_progress=False,
    )
    tokenizer.train([str(HERE / "perplexity.txt")], trainer)
    model = json.loads(tokenizer.to_str())["model"]
    tokens = sorted(model["vocab"], key=lambda token: model["vocab"][token])
    return tokens, [" ".join(merge) for merge in model["merges"]]


def write(sizes: Sizes) -> None:
    path = HERE / "tiny-llama" / f"{sizes.name}.gguf"
    path.parent.mkdir(exist_ok=True)
    writer = GGUFWriter(path, "llama")
    writer.add_name(f"Random weights, {sizes.name}")
    writer.add_license("apache-2.0")
    writer.add_block_count(sizes.layers)
    writer.add_context_length(256)
    writer.add_embedding_length(sizes.hidden)
    writer.add_feed_forward_length(sizes.inner)
    writer.add_head_count(sizes.heads)
    writer.add_head_count_kv(sizes.kv_heads)
    writer.add_rope_freq_base(sizes.theta)
    writer.add_rope_dimension_count(sizes.hidden // sizes.heads)
    writer.add_layer_norm_rms_eps(EPSILON)
    writer.add_vocab_size(sizes.vocabulary)
    writer.add_file_type(LlamaFileType.GUESSED)
    tokens, merges = bpe(sizes.vocabulary)
    kinds = [TokenType.CONTROL if t in CONTROLS else TokenType.NORMAL for t in tokens]
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre("smollm")
    writer.add_token_list(tokens)
    writer.add_token_types(kinds)
    writer.add_token_merges(merges)
    writer.add_bos_token_id(1)
    writer.add_eos_token_id(2)
    writer.add_unk_token_id(0)
    writer.add_pad_token_id(2)
    writer.add_add_bos_token(False)
    writer.add_add_space_prefix(False)
    writer.add_chat_template(TEMPLATE)
    writer.add_quantization_version(2)
    for name, stored, kind in tensors(sizes):
        writer.add_tensor(name, stored, raw_dtype=kind)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


if __name__ == "__main__":
    for one in ALL:
        write(one)
