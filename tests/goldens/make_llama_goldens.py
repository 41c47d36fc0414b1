"""Makes the goldens of Llama models: an independent implementation, in float64, on GGUF weights.

    python -m venv goldens
    goldens/bin/pip install numpy torch transformers tokenizers jinja2 gguf
    goldens/bin/python tests/goldens/make_llama_goldens.py SmolLM2-135M-Instruct.Q4_1.gguf

Only the tiny models are done if no file is given. The independent implementation is transformers'
LlamaForCausalLM on weights that the `gguf` package dequantized; its norm and its rotary angles are
replaced, since they compute in float32 whatever the weights are. The tokenizer is built with
`tokenizers` from the GGUF's metadata and the chat template runs in transformers. Nothing of Bascule
is used. perplexity.txt is our own text. llama.py beside this tells what each written file holds.
"""

from __future__ import annotations

import json
import math
import sys
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import torch
from gguf import GGUFReader
from gguf.quants import dequantize
from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers
from transformers import DynamicCache, LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast
from transformers.models.llama import modeling_llama

HERE = Path(__file__).resolve().parent
N_GREEDY = 32
N_LONG = 200
WINDOW = 512
N_WINDOWS = 5
N_TOP = 8
# llama.cpp takes these for ends whatever a file names as its own.
ENDS = ("<|im_end|>", "<|endoftext|>")

# Name, messages. The answers to the first and the last end early, so that stopping is tested.
CHATS: list[tuple[str, list[dict[str, str]]]] = [
    ("short", [{"role": "user", "content": "What is the capital of France?"}]),
    (
        "code",
        [{"role": "user", "content": "Write a Python function fib(n) that returns the n-th "
          "Fibonacci number.\n\n```python\ndef fib(n: int) -> int:\n    # your code here\n```"}],
    ),
    ("accents", [{"role": "user", "content": "Traduis en français : “The café opens at 8:30, "
                  "even on Sundays.” Puis réponds : où est-ce que ça se trouve ? ☕ Grüße!"}]),
    (
        "list",
        [{"role": "user", "content": "List five things to pack for a week by the sea, with a "
          "reason for each:\n\n- sunscreen (SPF 50)\n- a hat\n- …"}],
    ),
    (
        "long",
        [{"role": "user", "content": "Here is a note from our engineer:\n\n\"The north leaf was "
          "raised 14 times on 3 March 2021. At 06:40 the motor drew 212 A, which is 18% more than "
          "usual; at 11:15 it drew 178 A. We greased both trunnions, tightened 36 bolts (M24) and "
          "replaced one limit switch. In the afternoon the current was back to normal. Ice on the "
          "deck is the likely cause: each centimetre adds about 2.5 tons to the leaf, and the "
          "counterweight knows nothing about it. I would ask for a heater in the pit before next "
          "winter, or at least for a broom.\"\n\nExplain to a child of ten years what "
          "happened, step by step."}],
    ),
    (
        "system",
        [
            {"role": "system", "content": "You are a ship's cook. Answer briefly."},
            {"role": "user", "content": "What is for dinner?"},
            {"role": "assistant", "content": "Fish soup, and bread from this morning."},
            {"role": "user", "content": "And what do you put in the soup?"},
        ],
    ),
]  # fmt: skip

LONG_TEXT = """\
The harbour office at Brugge-aan-Zee keeps three clocks. One shows local time, one shows UTC and the
third, which has stood still since 1987, shows 4:17. "It's right twice a day," says Zoë Lefèvre, 
who has worked here for 31 years, “and that's more than I can say for the ferry.”

    def next_tide(now: float, period: float = 12.42) -> float:
        return math.ceil(now / period) * period

Her notebook holds 2,048 entries. Each has a date, a ship, a length in metres (or feet: 1 m = 3.2808
ft) and a remark. On 9 May, for example: *Agnes*, 48.5 m, "paint still wet". On 10 May: *Übermut*,
12 m, "captain sang". Asked whether anyone reads them, she laughs. The office will close in spring,
and the notebooks will go to the museum, where they are to be scanned, indexed and put on a shelf. 
The stopped clock is hers to keep. She has not decided whether to have it repaired.
"""

TINY_CHATS: list[list[dict[str, str]]] = [
    [{"role": "user", "content": "Which bridges move?"}],
    [{"role": "system", "content": "Zoë, 9."}, {"role": "user", "content": "où ☕ 42?"}],
]
TINY_TEXT = "The leaves rise; the ship passes. Ça va, 1894? A weight goes down, the road goes up."
N_TINY = 40


@dataclass(frozen=True)
class Model:
    """A GGUF file as transformers runs it, in float64."""

    net: LlamaForCausalLM
    tokenizer: PreTrainedTokenizerFast
    ends: set[int]


def metadata(reader: GGUFReader, key: str) -> Any:
    return reader.fields[key].contents()


def adjacent_to_halves(weight: np.ndarray, n_heads: int) -> np.ndarray:
    """Rows of q or k in transformers' order.

    A GGUF pairs rows 2i and 2i + 1 of a head for the rotation, transformers rows i and i + D/2.
    """
    rows, columns = weight.shape
    pairs = weight.reshape(n_heads, rows // n_heads // 2, 2, columns)
    return np.ascontiguousarray(pairs.swapaxes(1, 2)).reshape(rows, columns)


class Norm64(torch.nn.Module):
    """y = x / sqrt(mean(x^2) + eps) * weight, in the input's type throughout."""

    def __init__(self, norm: modeling_llama.LlamaRMSNorm) -> None:
        super().__init__()
        self.weight, self.eps = norm.weight, norm.variance_epsilon

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x / torch.sqrt((x * x).mean(-1, keepdim=True) + self.eps) * self.weight


class Rotary64(torch.nn.Module):
    """cos and sin of position * theta^(-2i / D), in float64."""

    def __init__(self, theta: float, head: int) -> None:
        super().__init__()
        self.frequencies = theta ** (-torch.arange(0, head, 2, dtype=torch.float64) / head)

    def forward(
        self, x: torch.Tensor, position_ids: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor]:
        angles = position_ids[..., None].double() * self.frequencies
        both = torch.cat((angles, angles), dim=-1)
        return both.cos().to(x.dtype), both.sin().to(x.dtype)


def load(path: Path) -> Model:
    reader = GGUFReader(path)
    tokens = metadata(reader, "tokenizer.ggml.tokens")
    hidden = metadata(reader, "llama.embedding_length")
    n_heads = metadata(reader, "llama.attention.head_count")
    n_kv_heads = metadata(reader, "llama.attention.head_count_kv")
    theta = float(metadata(reader, "llama.rope.freq_base"))
    weights = {t.name: dequantize(t.data, t.tensor_type).astype(np.float64) for t in reader.tensors}
    tied = "output.weight" not in weights
    config = LlamaConfig(
        vocab_size=len(tokens),
        hidden_size=hidden,
        intermediate_size=metadata(reader, "llama.feed_forward_length"),
        num_hidden_layers=metadata(reader, "llama.block_count"),
        num_attention_heads=n_heads,
        num_key_value_heads=n_kv_heads,
        max_position_embeddings=metadata(reader, "llama.context_length"),
        rms_norm_eps=metadata(reader, "llama.attention.layer_norm_rms_epsilon"),
        rope_parameters={"rope_type": "default", "rope_theta": theta},
        tie_word_embeddings=tied,
        attn_implementation="sdpa",
    )
    state = {
        "model.embed_tokens.weight": weights["token_embd.weight"],
        "model.norm.weight": weights["output_norm.weight"],
        "lm_head.weight": weights["token_embd.weight" if tied else "output.weight"],
    }
    names = {
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
    for layer in range(config.num_hidden_layers):
        for ours, theirs in names.items():
            weight = weights[f"blk.{layer}.{ours}.weight"]
            if ours in ("attn_q", "attn_k"):
                weight = adjacent_to_halves(weight, n_heads if ours == "attn_q" else n_kv_heads)
            state[f"model.layers.{layer}.{theirs}.weight"] = weight
    net = LlamaForCausalLM(config).double().eval()
    net.load_state_dict({name: torch.from_numpy(w) for name, w in state.items()}, strict=True)
    for layer in net.model.layers:
        layer.input_layernorm = Norm64(layer.input_layernorm)
        layer.post_attention_layernorm = Norm64(layer.post_attention_layernorm)
    net.model.norm = Norm64(net.model.norm)
    net.model.rotary_emb = Rotary64(theta, hidden // n_heads)
    ends = {tokens.index(token) for token in ENDS if token in tokens}
    ends.add(metadata(reader, "tokenizer.ggml.eos_token_id"))
    return Model(net, tokenizer_of(reader), ends)


def tokenizer_of(reader: GGUFReader) -> PreTrainedTokenizerFast:
    """Byte-level BPE with single digits, which is what pre-tokenizer "smollm" means."""
    if metadata(reader, "tokenizer.ggml.pre") != "smollm":
        raise SystemExit("Only the smollm pre-tokenizer is known here.")
    tokens = metadata(reader, "tokenizer.ggml.tokens")
    merges = [tuple(m.split(" ")) for m in metadata(reader, "tokenizer.ggml.merges")]
    tokenizer = Tokenizer(models.BPE({token: i for i, token in enumerate(tokens)}, merges))
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(r"\p{N}"), "isolated"),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=True),
        ]
    )
    tokenizer.decoder = decoders.ByteLevel()
    kinds = metadata(reader, "tokenizer.ggml.token_type")
    tokenizer.add_special_tokens([t for t, kind in zip(tokens, kinds, strict=True) if kind == 3])
    fast = PreTrainedTokenizerFast(tokenizer_object=tokenizer, clean_up_tokenization_spaces=False)
    fast.chat_template = metadata(reader, "tokenizer.chat_template")
    return fast


def encode(model: Model, text: str) -> list[int]:
    return model.tokenizer(text, add_special_tokens=False)["input_ids"]


def run(model: Model, ids: list[int]) -> tuple[torch.Tensor, torch.Tensor]:
    """The final norm's output (T, C) and the logits (T, V) of one sequence from position 0."""
    with torch.no_grad():
        hidden = model.net.model(input_ids=torch.tensor([ids]), use_cache=False).last_hidden_state
        return hidden[0], model.net.lm_head(hidden)[0]


def greedy(model: Model, prompt: list[int], count: int) -> tuple[list[int], list[float]]:
    """The `count` likeliest continuations and by how much each led; goes on past an end token."""
    ids: list[int] = []
    margins: list[float] = []
    cache = DynamicCache(config=model.net.config)
    fresh = prompt
    with torch.no_grad():
        for _ in range(count):
            out = model.net(input_ids=torch.tensor([fresh]), past_key_values=cache)
            best = out.logits[0, -1].topk(2)
            ids.append(int(best.indices[0]))
            margins.append(float(best.values[0] - best.values[1]))
            fresh = ids[-1:]
    _check_cache(model, prompt, ids)
    return ids, margins


def _check_cache(model: Model, prompt: list[int], ids: list[int]) -> None:
    """The same tokens in one pass lead to the same choices."""
    logits = run(model, prompt + ids[:-1])[1]
    if logits[len(prompt) - 1 :].argmax(-1).tolist() != ids:
        raise SystemExit("One pass and step by step disagree.")


def chat(model: Model, messages: list[dict[str, str]]) -> dict[str, Any]:
    prompt = model.tokenizer.apply_chat_template(
        messages, tokenize=False, add_generation_prompt=True
    )
    prompt_ids = encode(model, prompt)
    ids, margins = greedy(model, prompt_ids, N_GREEDY)
    end = next((i for i, token in enumerate(ids) if token in model.ends), None)
    return {
        "messages": messages,
        "prompt": prompt,
        "prompt_ids": prompt_ids,
        "ids": ids,
        "margins": [round(m, 6) for m in margins],
        "end": end,
        "text": model.tokenizer.decode(ids[:end]),
    }


def window_losses(model: Model, ids: list[int]) -> list[float]:
    """The mean negative log-likelihood (nats) of tokens 1 to 511 of each window."""
    losses: list[float] = []
    for start in range(0, N_WINDOWS * WINDOW, WINDOW):
        window = ids[start : start + WINDOW]
        logits = run(model, window)[1]
        scores = torch.log_softmax(logits[:-1], -1)
        losses.append(-float(scores.gather(1, torch.tensor(window[1:])[:, None]).mean()))
    return losses


def write_json(path: Path, told: dict[str, Any]) -> None:
    path.parent.mkdir(exist_ok=True)
    path.write_text(json.dumps(told, ensure_ascii=False) + "\n", encoding="utf-8")


def made_with() -> dict[str, str]:
    return {name: version(name) for name in ("torch", "transformers", "tokenizers", "gguf")}


def smollm2(path: Path) -> None:
    model, folder = load(path), HERE / "smollm2"
    chats = {name: chat(model, messages) for name, messages in CHATS}
    write_json(folder / "chats.json", {"file": path.name, "made_with": made_with(), "chats": chats})
    ids = encode(model, LONG_TEXT)[:N_LONG]
    hidden, logits = run(model, ids)
    top = logits.topk(N_TOP)
    write_json(
        folder / "long.json",
        {"text": model.tokenizer.decode(ids), "ids": ids, "top_ids": top.indices.tolist()},
    )
    np.savez_compressed(
        folder / "long.npz",
        hidden=hidden.numpy().astype(np.float32),
        norms=logits.norm(dim=1).numpy(),
        top_logits=top.values.numpy(),
    )
    ids = encode(model, (HERE / "perplexity.txt").read_text(encoding="utf-8"))
    losses = window_losses(model, ids)
    write_json(
        folder / "perplexity.json",
        {
            "window": WINDOW,
            "losses": losses,
            "perplexity": math.exp(sum(losses) / len(losses)),
            "n_tokens": len(ids),
            "ids": ids[: N_WINDOWS * WINDOW],
        },
    )


def tiny(path: Path) -> None:
    model = load(path)
    ids = encode(model, TINY_TEXT)[:N_TINY]
    result = {"made_with": made_with(), "chats": [chat(model, c) for c in TINY_CHATS], "ids": ids}
    write_json(path.with_suffix(".json"), result)
    np.savez_compressed(
        path.with_suffix(".npz"), logits=run(model, ids)[1].numpy().astype(np.float32)
    )


if __name__ == "__main__":
    for tiny_file in sorted((HERE / "tiny-llama").glob("*.gguf")):
        tiny(tiny_file)
    for given in sys.argv[1:]:
        smollm2(Path(given).expanduser())
