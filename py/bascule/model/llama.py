"""Llama (Touvron et al. 2023) as a text generator over a KV cache.

Reads in the order of the computation. T tokens, hidden size C, inner size I, H heads over G KV
heads of size D, S slots of the cache, V vocabulary. Every program reads its ids from the state
`tokens` from `position` on, so that a token which was sampled on the GPU never leaves it.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal

from bascule.model.llama_config import MOST_CONTEXT, LlamaConfig
from bascule.program.graph import Graph
from bascule.program.program import Dim, Value

# Which end a pass has: none (prefill), the next token, or the logits of all its tokens.
Head = Literal["none", "argmax", "sample", "penalised", "logits"]
CacheDType = Literal["f16", "f32"]


def decoder(
    config: LlamaConfig,
    length: int | Dim,
    slots: Dim,
    *,
    head: Head,
    cache: CacheDType,
    window: int,
) -> Graph:
    """Record a pass over `length` tokens from `position` on.

    With head "none" the cache is filled and nothing is computed that does not serve it; "argmax",
    "sample" and "penalised" (length 1) write the next token and move `position` on; "logits" gives
    (T, V) f32. `window` bounds how far back a token attends (0: to the start).
    """
    graph = Graph(f"llama {head}")
    tokens = graph.state("tokens", (slots,), "u32")
    position = graph.state("position", (1,), "u32")
    angles = graph.state("angles", (Dim("A", MOST_CONTEXT), config.size))
    pass_ = _Pass(graph, config, position, angles, window)

    table = pass_.weight("token_embd", (config.vocabulary, config.hidden))
    x = graph.call("token_embedding", table, tokens, position, length=length)  # (T, C)
    for layer in range(config.layers):
        kept = graph.state(f"cache.{layer}", (slots, config.cache_width), cache)
        last = head == "none" and layer == config.layers - 1
        x = _layer(pass_, x, kept, f"blk.{layer}", only_cache=last)
    if head == "none":
        return graph

    x = pass_.norm(x, "output_norm")
    tied = "output.weight" not in config.types
    output = table if tied else pass_.weight("output", (config.vocabulary, config.hidden))
    logits = graph.call("linear", x, output, activation="none")  # (T, V)
    if head == "logits":
        graph.output(logits)
        return graph
    settings = graph.state("settings", (8,), "u32")
    if head == "penalised":
        logits = graph.call("penalise", logits, tokens, position, settings)
    if head == "argmax":
        graph.call("argmax_token", logits, tokens, position)
    else:
        graph.call("sample_token", logits, tokens, position, settings)
    return graph


@dataclass(frozen=True, slots=True)
class _Pass:
    """What every layer of one recording shares."""

    graph: Graph
    config: LlamaConfig
    position: Value
    angles: Value
    window: int

    def weight(self, name: str, shape: tuple[int, int], *parts: str) -> Value:
        """A matrix of the file, or several stacked, in the blocks that it has there."""
        tensors = [f"{part}.weight" for part in parts or (name,)]
        dtype = self.config.types.get(tensors[0], "f32")
        return self.graph.parameter(f"{name}.weight", shape, *tensors, dtype=dtype)

    def norm(self, x: Value, name: str) -> Value:
        """RMS norm by a weight of the file."""
        weight = self.graph.parameter(f"{name}.weight", (self.config.hidden,))
        return self.graph.call("rms_norm", x, weight, eps=self.config.eps)

    def alike(self, names: Iterable[str]) -> bool:
        """Whether these tensors have one type, so that they can be stacked."""
        return len({self.config.types.get(f"{name}.weight", "f32") for name in names}) == 1


def _layer(pass_: _Pass, x: Value, cache: Value, name: str, *, only_cache: bool) -> Value:
    config, call = pass_.config, pass_.graph.call
    heads = {"heads": config.heads, "kv_heads": config.kv_heads, "size": config.size}
    position = pass_.position
    normed = pass_.norm(x, f"{name}.attn_norm")
    qkv = _qkv(pass_, normed, name)  # (T, (H + 2G) D)
    q = call("rope_append", qkv, cache, pass_.angles, position, **heads, pairs=config.pairs)
    if only_cache:
        return q
    mixed = call("cached_attention", q, cache, position, **heads, window=pass_.window)  # (T, HD)
    wide = config.heads * config.size
    output = pass_.weight(f"{name}.attn_output", (config.hidden, wide))
    x = call("linear", mixed, output, None, x, activation="none")  # (T, C)

    normed = pass_.norm(x, f"{name}.ffn_norm")
    y = _gated(pass_, normed, name)  # (T, I)
    down = pass_.weight(f"{name}.ffn_down", (config.hidden, config.inner))
    return call("linear", y, down, None, x, activation="none")


def _qkv(pass_: _Pass, x: Value, name: str) -> Value:
    config, call = pass_.config, pass_.graph.call
    widths = (config.heads * config.size, *(config.kv_heads * config.size,) * 2)
    parts = [f"{name}.attn_{part}" for part in "qkv"]
    if pass_.alike(parts):
        weight = pass_.weight(f"{name}.attn_qkv", (sum(widths), config.hidden), *parts)
        return call("linear", x, weight, activation="none")
    made = [
        call("linear", x, pass_.weight(part, (width, config.hidden)), activation="none")
        for part, width in zip(parts, widths, strict=True)
    ]
    return call("concat", *made)


def _gated(pass_: _Pass, x: Value, name: str) -> Value:
    config, call = pass_.config, pass_.graph.call
    parts = [f"{name}.ffn_{part}" for part in ("gate", "up")]
    if pass_.alike(parts):
        weight = pass_.weight(f"{name}.ffn_gate_up", (2 * config.inner, config.hidden), *parts)
        return call("gated_linear", x, weight, activation="silu")
    gate, up = (pass_.weight(part, (config.inner, config.hidden)) for part in parts)
    opened = call("linear", x, gate, activation="silu")
    return call("multiply", opened, call("linear", x, up, activation="none"))
